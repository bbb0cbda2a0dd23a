"""Sequences of different lengths: padding, lengths, and what does not depend on them."""

import numpy as np
import pytest

import ddbp
from ddbp.data.order import permutation
from ddbp.reduction.shards import ShardPlan
from ddbp.training.batch import RowBuffers, local_batch, sliced
from layers import LSTM, Linear, MeanSquaredError, Sequential, SoftmaxCrossEntropy

from .sentences import FIRST, RNG, WORDS, A, Labeller, Reader
from .small import make


def reading(**options):
    return make(Reader(), batch_size=8, **options)


def test_sequences_are_there_one_by_one():
    ragged = ddbp.Ragged([[1, 2], [3], [4, 5, 6]])
    assert [each.tolist() for each in ragged] == [[1, 2], [3], [4, 5, 6]]
    assert ragged[0].tolist() == [1, 2]
    assert ragged[np.int64(-1)].tolist() == [4, 5, 6]
    with pytest.raises(IndexError):
        ragged[3]
    assert [each.tolist() for each in ragged[1:]] == [[3], [4, 5, 6]]
    assert [each.tolist() for each in ragged[np.array([True, False, True])]] == [[1, 2], [4, 5, 6]]
    assert len(ragged[:0]) == 0


def test_lengths_and_padded_sequences_reach_the_model():
    trainer = reading()
    (first, *_) = trainer.batches(ddbp.ArrayDataset(WORDS, FIRST))
    tokens, lengths = first.x
    assert type(lengths) is np.ndarray
    assert tokens.shape == (8, lengths.max())
    for row, length in zip(tokens.array, lengths, strict=True):
        assert (row[length:] == 0).all()
        assert any(np.array_equal(row[:length], word) for word in WORDS)


@pytest.mark.parametrize("take", [RowBuffers().take, sliced])
def test_padding_is_to_the_longest_of_the_global_batch_on_every_rank(take):
    data, rows = ddbp.ArrayDataset(WORDS, [word % 3 for word in WORDS]), range(3, 12)
    if take is not sliced:
        rows = np.array(rows)
    longest = max(len(WORDS[n]) for n in rows)
    parts = [local_batch(data, ShardPlan(3, 3, rank), rows, take) for rank in range(3)]
    assert {len(part.x.lengths) for part in parts} == {3}
    assert min(part.x.lengths.max() for part in parts) < longest
    for part in parts:
        assert part.x.values.shape == part.y.shape == part.weights.shape == (3, longest)


def test_padding_may_be_chosen():
    data = ddbp.ArrayDataset(ddbp.Ragged([[1, 2], [3]], padding=8), [0, 1])
    trainer = make(Reader(), batch_size=2)
    trainer.fit(data, epochs=1)
    assert sorted(trainer.model.called[0][0].tolist()) == [[1, 2], [3, 8]]


def test_fit_loop_and_single_steps_on_ragged_data_have_the_same_bits():
    data = ddbp.ArrayDataset(WORDS, FIRST)
    fitted, looped, stepped = reading(), reading(), reading()
    fitted.fit(data, epochs=2)
    for batch in looped.batches(data, epochs=2):
        looped.step(looped.loss(looped.model(*batch.x), batch.y))
    for epoch in range(2):
        order = permutation(45, 0, epoch)
        for start in range(0, 45, 8):
            rows = order[start : start + 8]
            stepped.train_step([WORDS[n] for n in rows], FIRST[rows])
    assert looped.parameters_sha256() == fitted.parameters_sha256()
    assert stepped.parameters_sha256() == fitted.parameters_sha256()


def test_evaluation_and_prediction_of_ragged_data_do_not_depend_on_the_batch_size():
    results = []
    for size in (1, 8, 45):
        trainer = make(Reader(), batch_size=size)
        found = trainer.evaluate(ddbp.ArrayDataset(WORDS, FIRST))
        results.append((found["accuracy"], trainer.predict(WORDS).tobytes()))
        assert found["accuracy"] == np.mean(trainer.predict(WORDS).argmax(axis=1) == FIRST)
    assert results[0] == results[1] == results[2]


def test_prediction_for_each_step_has_the_length_of_the_longest():
    trainer = make(Labeller(), batch_size=8)
    assert trainer.predict(WORDS).shape == (45, 7, 3)


def test_padding_of_ragged_targets_counts_for_nothing():
    data = ddbp.ArrayDataset(WORDS, [word % 3 for word in WORDS])
    trainer = make(Labeller(), batch_size=45)
    tokens = np.concatenate(WORDS)
    model = trainer.model
    logits = model.head(model.embedding(tokens))
    expected = SoftmaxCrossEntropy()(logits, tokens % 3)
    found = trainer.evaluate(data)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert found["accuracy"] == pytest.approx((logits.argmax(axis=1) == tokens % 3).mean())
    (record,) = trainer.fit(data, epochs=1)
    assert record["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_ragged_numbers_are_learnt_without_their_padding():
    sequences = [A[: len(word), :4] for word in WORDS]
    numbers = [one @ np.ones((4, 2)) for one in sequences]
    rng = np.random.default_rng(0)
    model = Sequential(Linear(4, 2, rng=rng), LSTM(2, 2, rng=rng))
    options = {"loss": MeanSquaredError(), "optimizer": ddbp.SGD(0.0), "batch_size": 8}
    trainer = make(model, **options)
    data = ddbp.ArrayDataset(sequences, numbers)
    expected = np.concatenate([model(one[np.newaxis].astype(np.float32))[0] for one in sequences])
    error = np.mean((expected - np.concatenate(numbers)) ** 2)
    assert trainer.evaluate(data)["loss"] == pytest.approx(error, rel=1e-5)
    (record,) = trainer.fit(data, epochs=1)
    assert record["loss"] == pytest.approx(error, rel=1e-5)


def test_weights_of_ragged_targets_spread_over_their_steps():
    targets = [word % 3 for word in WORDS]
    of_samples = RNG.uniform(0.5, 2, 45)
    of_steps = [np.full(len(word), w) for word, w in zip(WORDS, of_samples, strict=True)]
    for weights in (of_samples, of_steps):
        data = ddbp.ArrayDataset(WORDS, targets, weights=weights)
        batch = make(Labeller(), batch_size=8).batch(data.x, data.y, data.weights)
        lengths = batch.x[1]
        expected = np.where(np.arange(7) < lengths[:, np.newaxis], of_samples[:, np.newaxis], 0)
        np.testing.assert_array_equal(batch.weights, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("sequences", "said"),
    [
        ([], "there must be one sequence or more; got none"),
        ([[1, 2], []], r"sequence 1 must hold one sample or more; got shape \(0,\)"),
        ([np.zeros((2, 3)), np.zeros((1, 4))], r"all sequences must have shape \(T, 3\); got"),
        ([[1.0], [np.inf, 1]], r"sequence 1 must be finite; got inf at sequence 1\[0\]"),
    ],
)  # fmt: skip
def test_sequences_that_cannot_be_ragged_are_refused(sequences, said):
    with pytest.raises(ValueError, match=f"^Ragged: {said}"):
        ddbp.Ragged(sequences)


def test_truncation_refuses_what_it_cannot_cut():
    sequences = RNG.standard_normal((6, 7, 4))
    y = RNG.standard_normal((6, 7, 5))
    for x in ([one[: n + 1] for n, one in enumerate(sequences)], (sequences, sequences)):
        trainer = make(
            LSTM(4, 5, rng=np.random.default_rng(0)),
            loss=MeanSquaredError(),
            batch_size=3,
            truncate=2,
        )
        with pytest.raises(
            ValueError, match="truncate needs sequences of one length, and x as one"
        ):
            trainer.fit(ddbp.ArrayDataset(x, y), epochs=1)
        with pytest.raises(
            ValueError, match="truncate needs sequences of one length, and x as one"
        ):
            trainer.train_step(x, y)


def test_sequences_that_differ_in_another_axis_are_named_by_their_shapes():
    said = r"got parts of shapes \(2, 3\) and \(2, 4\)\. Pad the other axes\.$"
    with pytest.raises(ValueError, match=said):
        ddbp.ArrayDataset([np.ones((2, 3)), np.ones((2, 4))], [0, 1])
