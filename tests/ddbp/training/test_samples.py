"""Samples of several inputs, targets and lengths, their weights, and what reaches the model."""

import json
import re

import numpy as np
import pytest

import ddbp
from ddbp.reduction.shards import ShardPlan
from ddbp.training.data import Rows, local_batch, permutation, sliced
from layers import (
    LSTM,
    BatchNorm,
    Composite,
    Conv2d,
    Embedding,
    GlobalAveragePool,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tape,
    Value,
    tanh,
)

from .small import DATA, LABELS, X, make, network, parameters

RNG = np.random.default_rng(8)
WORDS = [RNG.integers(0, 9, n) for n in RNG.integers(1, 8, 45)]
FIRST = np.array([word[0] % 3 for word in WORDS])
A, B = RNG.standard_normal((45, 4)), RNG.standard_normal((45, 3))


class Reader(Composite):
    """Reads sentences and keeps what it was called with."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.embedding, self.lstm = Embedding(9, 5, rng=rng), LSTM(5, 6, rng=rng)
        self.head = Linear(6, 3, rng=rng)
        self.called = []

    def __call__(self, tokens, lengths):
        self.called.append((getattr(tokens, "array", tokens).copy(), lengths))
        _, ((h, _),) = self.lstm.run(self.embedding(tokens), None, lengths)
        return self.head(h)

    def __repr__(self):
        return "Reader()"


class Labeller(Composite):
    """Labels each word of sentences."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.embedding, self.head = Embedding(9, 5, rng=rng), Linear(5, 3, rng=rng)

    def __call__(self, tokens, lengths):
        return self.head(self.embedding(tokens))


class Two(Composite):
    """Two inputs and two outputs."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.of_a, self.of_b = Linear(4, 5, rng=rng), Linear(3, 5, rng=rng)
        self.head = Linear(5, 2, rng=rng)

    def __call__(self, a, b):
        assert type(a) is type(b)
        h = tanh(self.of_a(a) + self.of_b(b))
        return {"both": self.head(h), "sum": h.sum(axis=1)}


def both_losses(prediction, y):
    """Return the sum of two losses."""
    assert y.keys() == {"label", "number"}
    error = MeanSquaredError()(prediction["both"], y["number"])
    return error + 0.5 * SoftmaxCrossEntropy()(prediction["both"], y["label"])


def reading(**options):
    return make(Reader(), batch_size=8, **options)


# Structures


@pytest.mark.parametrize(
    ("x", "call"),
    [
        ((A, B), lambda model, x: model(*x)),
        ({"b": B, "a": A}, lambda model, x: model(**x)),
    ],
    ids=["tuple", "dict"],
)
def test_several_inputs_and_targets_reach_model_and_loss_in_every_way(x, call):
    y = {"label": FIRST % 2, "number": RNG.standard_normal((45, 2))}
    data = ddbp.ArrayDataset(x, y)
    fitted, looped, stepped = (
        make(Two(), loss=both_losses, batch_size=9, shards=3) for _ in range(3)
    )
    fitted.fit(data, epochs=2, validation=data)
    for batch in looped.batches(data, epochs=2):
        looped.step(both_losses(call(looped.model, batch.x), batch.y))
    assert looped.parameters_sha256() == fitted.parameters_sha256()
    stepped.train_step(x, y)
    batch = fitted.batch(x, y)
    assert batch.samples == 45
    prediction = fitted.predict(x)
    direct = fitted.model(A.astype(np.float32), B.astype(np.float32))
    assert prediction["both"].tobytes() == direct["both"].tobytes()
    assert prediction["sum"].shape == (45,)
    error = np.mean((direct["both"] - y["number"]) ** 2)
    error += 0.5 * float(SoftmaxCrossEntropy()(direct["both"], y["label"]))
    assert fitted.evaluate(data)["loss"] == pytest.approx(error, rel=1e-5)


def test_inputs_may_be_nested():
    data = ddbp.ArrayDataset({"pair": (A, WORDS), "mask": A > 0}, FIRST)
    (batch,) = make(batch_size=45).batches(data)
    values, tokens, lengths = batch.x["pair"]
    assert [type(part) for part in (values, tokens, lengths)] == [Value, Value, np.ndarray]
    assert batch.x["mask"].dtype == np.bool_
    assert type(batch.x["mask"]) is np.ndarray
    assert values.dtype == np.float32


def test_metrics_get_arrays_of_the_structure():
    def largest(prediction, y):
        assert type(prediction["both"]) is np.ndarray
        return np.abs(prediction["sum"] - y["label"])

    y = {"label": FIRST % 2, "number": RNG.standard_normal((45, 2))}
    trainer = make(Two(), loss=both_losses, batch_size=9, metrics={"largest": largest})
    found = trainer.evaluate(ddbp.ArrayDataset((A, B), y))["largest"]
    assert found == pytest.approx(
        np.abs(trainer.predict((A, B))["sum"] - y["label"]).mean(), rel=1e-6
    )


def test_split_keeps_all_parts_of_a_sample_together():
    number = np.arange(45)
    data = ddbp.ArrayDataset(
        {"a": number, "words": [np.full(1 + n % 5, n) for n in number]},
        (number, -number),
        weights=number + 1.0,
    )
    for part in data.split(0.3):
        assert (
            part.x["words"].values.tolist() == np.repeat(part.x["a"], 1 + part.x["a"] % 5).tolist()
        )
        assert (part.y[0] == part.x["a"]).all()
        assert (part.y[1] == -part.x["a"]).all()
        assert (part.weights == part.x["a"] + 1).all()


def test_digest_tells_every_part_of_data_apart():
    other, words = A.copy(), [word.copy() for word in WORDS]
    other[3, 1] += 1
    words[7][0] += 1
    data = [
        ((A, B), FIRST, None),
        ((other, B), FIRST, None),
        ((B, A), FIRST, None),
        ({"a": A, "b": B}, FIRST, None),
        ((A, B), (FIRST,), None),
        ((A, B), FIRST, A[:, 0] ** 2),
        (WORDS, FIRST, None),
        (words, FIRST, None),
        (ddbp.Ragged(WORDS, padding=1), FIRST, None),
    ]
    digests = {ddbp.ArrayDataset(x, y, weights=w).digest() for x, y, w in data}
    assert len(digests) == len(data)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ((A, B[:-1]), FIRST, r"x\[0\], x\[1\] and y must have the same length; got \(45, 44, 45\)"),
        ({"a": A}, FIRST[1:], r"x\['a'\] and y must have the same length; got \(45, 44\)"),
        (WORDS[1:], FIRST, r"x and y must have the same length; got \(44, 45\)"),
        ((), FIRST, r"x must hold an array; got \(\)"),
        (
            {"a": WORDS, "a_lengths": FIRST},
            FIRST,
            r"x must leave the name a_lengths to the lengths of 'a'; got \['a', 'a_lengths'\]",
        ),
        (A, (0, 1), r"y\[0\] must hold one sample or more; got shape \(\)\. .* a tuple several"),
        ((A, [["cat"]] * 45), FIRST, r"x\[1\] must be numeric; got <U3"),
        ((A, np.where(A > 9, A, np.nan)), FIRST, r"x\[1\] must be finite; got nan at x\[1\]\[0, 0"),
        ([[[1], [1, 2]], [[1], [2, 3]]], [0, 1], r"x must be an array, or a list of arrays that"),
        (np.array(WORDS, object), FIRST, r"x must be numeric; got object\. Pass sequences of diff"),
        ((row for row in A), FIRST, r"x must be an array; got a generator. Collect it: x=np.stack"),
    ],
)  # fmt: skip
def test_wrong_structures_are_refused_by_the_name_of_the_part(x, y, said):
    with pytest.raises((ValueError, TypeError), match=f"^ArrayDataset: {said}"):
        ddbp.ArrayDataset(x, y)


def test_tensors_are_arrays_or_told_how_to_become_one():
    torch = pytest.importorskip("torch")
    data = ddbp.ArrayDataset(torch.zeros(3, 2), torch.arange(3))
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)
    with pytest.raises(TypeError, match=r"x must be an array; got Tensor: .* Of a tensor pass"):
        ddbp.ArrayDataset(torch.zeros(3, 2, requires_grad=True), torch.arange(3))


@pytest.mark.parametrize(
    ("x", "inputs", "got"),
    [
        ((A, B), "input 0, input 1", "too many positional arguments"),
        ({"a": A, "c": B}, "a, c", "missing a required argument: 'x'"),
        (WORDS, "input 0, input 1", "too many positional arguments"),
    ],
)
def test_model_that_takes_other_inputs_is_refused_with_those_that_there_are(x, inputs, got):
    class One(Composite):
        def __init__(self):
            self.layer = Linear(4, 3, rng=np.random.default_rng(0))

        def __call__(self, x):
            return self.layer(x)

    trainer = make(One(), batch_size=9)
    said = f"^Trainer: the model must take what the data hold: {inputs}; got {got}"
    for run in (
        lambda: trainer.fit(ddbp.ArrayDataset(x, FIRST), epochs=1),
        lambda: trainer.evaluate(ddbp.ArrayDataset(x, FIRST)),
        lambda: trainer.predict(x),
    ):
        with pytest.raises(TypeError, match=said):
            run()


@pytest.mark.parametrize(
    ("data", "fix"),
    [
        ((X, LABELS), r"got tuple\. Write ArrayDataset\(\*data\)"),
        (zip(X, LABELS, strict=True), r"got zip\. Collect it: x, y = zip"),
        (X, r"got ndarray\. "),
        (None, r"got NoneType\. Use ArrayDataset\(x, y\)"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_refused_with_what_to_write(data, fix):
    with pytest.raises(TypeError, match=f"^Trainer: data must be an ArrayDataset; {fix}"):
        make().fit(data, epochs=1)


# Sequences of different lengths


def test_lengths_and_padded_sequences_reach_the_model():
    trainer = reading()
    (first, *_) = trainer.batches(ddbp.ArrayDataset(WORDS, FIRST))
    tokens, lengths = first.x
    assert type(lengths) is np.ndarray
    assert tokens.shape == (8, lengths.max())
    for row, length in zip(tokens.array, lengths, strict=True):
        assert (row[length:] == 0).all()
        assert any(np.array_equal(row[:length], word) for word in WORDS)


@pytest.mark.parametrize("take", [Rows().take, sliced])
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


# Weights


def test_sample_of_weight_two_is_a_sample_that_comes_twice():
    weights = np.where(np.arange(83) < 20, 2.0, 1.0)
    trainer = make(batch_size=83, metrics={})
    twice = np.concatenate((np.arange(83), np.arange(20)))
    found = trainer.evaluate(ddbp.ArrayDataset(X, LABELS, weights=weights))["loss"]
    assert found == pytest.approx(
        trainer.evaluate(ddbp.ArrayDataset(X[twice], LABELS[twice]))["loss"], rel=1e-3
    )


def test_samples_of_weight_zero_do_not_train():
    odd = LABELS.copy()
    odd[::3] = (odd[::3] + 1) % 3
    weights = np.ones(83)
    weights[::3] = 0
    digests = set()
    for labels in (LABELS, odd):
        trainer = make()
        trainer.fit(ddbp.ArrayDataset(X, labels, weights=weights), epochs=2)
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 1


def test_weighted_ragged_batches_accumulate_to_the_large_batch():
    weights = RNG.uniform(0, 2, 40)
    data = ddbp.ArrayDataset(WORDS[:40], FIRST[:40], weights=weights)
    large, parts = (
        make(Reader().astype(np.float64), batch_size=8 * size, accumulate=4 // size)
        for size in (4, 1)
    )
    histories = [trainer.fit(data, epochs=2) for trainer in (large, parts)]
    np.testing.assert_allclose(parameters(parts), parameters(large), rtol=0, atol=1e-14)
    assert histories[1][-1]["loss"] == pytest.approx(histories[0][-1]["loss"], rel=1e-12)


@pytest.mark.parametrize("positions", [False, True])
def test_weights_are_cut_into_windows_with_their_time_steps(positions):
    x, labels = RNG.standard_normal((6, 7, 4)), RNG.integers(0, 5, (6, 7))
    weights = RNG.uniform(1, 2, (6, 7) if positions else 6)

    def trainer(loss=None, **options):
        model = LSTM(4, 5, rng=np.random.default_rng(0), dtype=np.float64)
        return make(model, loss=loss or SoftmaxCrossEntropy(), batch_size=6, **options)

    got = []

    def noting(prediction, y, weights):
        got.append(np.array(weights))
        return SoftmaxCrossEntropy()(prediction, y, weights)

    trainer(noting, truncate=3).train_step(x, labels, weights)
    cuts = [weights[:, :3], weights[:, 3:6], weights[:, 6:]] if positions else [weights] * 3
    assert [window.tolist() for window in got] == [cut.tolist() for cut in cuts]
    whole, cut = trainer(), trainer(truncate=7)
    assert cut.train_step(x, labels, weights) == whole.train_step(x, labels, weights)
    assert cut.parameters_sha256() == whole.parameters_sha256()


@pytest.mark.parametrize("given", [{1: 3.0}, [1.0, 3.0, 1.0], np.array([1, 3, 1])])
def test_class_weights_are_weights_of_the_samples(given):
    by_class, by_sample, plain = make(), make(), make()
    by_class.fit(DATA, epochs=2, class_weight=given)
    weights = np.where(LABELS == 1, 3.0, 1.0)
    by_sample.fit(ddbp.ArrayDataset(X, LABELS, weights=weights), epochs=2)
    plain.fit(DATA, epochs=2)
    assert by_class.parameters_sha256() == by_sample.parameters_sha256()
    assert by_class.parameters_sha256() != plain.parameters_sha256()


def test_run_with_class_weights_goes_on_with_the_same_ones_only():
    class Stop(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == 7:
                self.state = trainer.state()
                raise KeyError

    stop, weights = Stop(), {1: 3.0}
    undisturbed, stopped, resumed, forgetful = make(), make(callbacks=[stop]), make(), make()
    undisturbed.fit(DATA, epochs=3, class_weight=weights)
    with pytest.raises(KeyError):
        stopped.fit(DATA, epochs=3, class_weight=weights)
    forgetful.load_state(stop.state)
    with pytest.raises(ValueError, match="the data must be those of the epoch"):
        forgetful.fit(DATA, epochs=3)
    resumed.load_state(stop.state)
    resumed.fit(DATA, epochs=3, class_weight=weights)
    assert resumed.parameters_sha256() == undisturbed.parameters_sha256()


def test_balanced_class_weights_give_every_label_the_same_share():
    found = DATA.weighted("balanced").weights
    counts = np.bincount(LABELS)
    np.testing.assert_array_equal(found, (83 / (3 * counts))[LABELS])
    padded = ddbp.ArrayDataset(X, np.where(LABELS == 2, -1, LABELS))
    found = padded.weighted("balanced", ignore=-1).weights[LABELS != 2]
    np.testing.assert_array_equal(found, (counts[:2].sum() / (2 * counts[:2]))[LABELS[LABELS != 2]])


def test_weights_of_0_for_all_labels_that_count_are_refused():
    data = ddbp.ArrayDataset(X, np.where(LABELS == 2, -1, LABELS))
    with pytest.raises(ValueError, match="class_weight must not be 0 for all labels"):
        data.weighted({0: 0, 1: 0}, ignore=-1)


def test_class_weights_multiply_the_weights_that_there_are():
    weights = RNG.uniform(1, 2, 83)
    data = ddbp.ArrayDataset(X, LABELS, weights=weights).weighted({2: 4.0})
    np.testing.assert_array_equal(data.weights, weights * np.where(LABELS == 2, 4.0, 1.0))
    ragged = ddbp.ArrayDataset(WORDS, [word % 3 for word in WORDS], weights=A[:, 0] ** 2)
    found = ragged.weighted([1, 2, 3]).weights.values
    expected = np.repeat(A[:, 0] ** 2, list(map(len, WORDS))) * (np.concatenate(WORDS) % 3 + 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("data", "given", "said"),
    [
        (DATA, [1.0, 2.0], "class_weight must have a weight for label 2; got 2 weights"),
        (DATA, {"a": 1.0}, "class_weight must have labels as keys"),
        (DATA, {0: -1.0}, "class_weight must be numbers of at least 0"),
        (DATA, {0: 0, 1: 0, 2: 0}, "class_weight must not be 0 for all labels"),
        (DATA, {7: 2}, r"class_weight must be of labels that occur; got 7, .* in 0\.\.2"),
        (DATA, "equal", r"class_weight must be numbers; got 'equal'\. Write .* or \"balanced\""),
        (DATA, {0: "a"}, "class_weight must be numbers"),
        (ddbp.ArrayDataset(X, X), {0: 1.0}, r"class_weight needs targets that are integer labels"),
    ],
)
def test_wrong_class_weights_are_refused(data, given, said):
    with pytest.raises(ValueError, match=f"^Trainer.fit: {said}"):
        make().fit(data, epochs=1, class_weight=given)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.ones(82), r"x, y and weights must have the same length; got \(83, 83, 82\)"),
        (-np.ones(83), "weights must be at least 0, and not all 0; got -1.0 to -1.0"),
        (np.zeros(83), "weights must be at least 0, and not all 0; got 0.0 to 0.0"),
        ((np.ones(83),), "weights must be an array; got"),
        (np.full(83, np.nan), r"weights must be finite; got nan at weights\[0\]"),
    ],
)
def test_wrong_weights_are_refused(weights, said):
    with pytest.raises(ValueError, match=f"^ArrayDataset: {said}"):
        ddbp.ArrayDataset(X, LABELS, weights=weights)


def test_loss_that_takes_no_weights_is_refused_for_data_that_have_them():
    trainer = make(loss=lambda prediction, y: SoftmaxCrossEntropy()(prediction, y))
    trainer.fit(DATA, epochs=1)
    said = "^Trainer.fit: the loss must take the weights of the training data; got too many"
    with pytest.raises(ValueError, match=said):
        trainer.fit(DATA, epochs=1, class_weight={1: 2.0})


# The last batch


def test_last_batch_may_be_left_out():
    whole, dropping, by_hand = make(), make(drop_last=True), make()
    history = dropping.fit(DATA, epochs=2)
    assert [record["step"] for record in history] == [4, 8]
    for epoch in range(2):
        order = permutation(83, 0, epoch)
        losses = [by_hand.train_step(X[rows], LABELS[rows]) for rows in np.split(order[:80], 4)]
        assert history[epoch]["loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert dropping.parameters_sha256() == by_hand.parameters_sha256()
    whole.fit(DATA, epochs=2)
    assert whole.step_count == 10


def test_dropped_batch_ends_a_group_and_a_loop():
    trainer, steps = make(drop_last=True, accumulate=3), []
    trainer.fit(DATA, epochs=2)
    assert trainer.step_count == 4
    for batch in trainer.batches(DATA, epochs=2):
        steps.append(trainer.step(trainer.loss(trainer.model(batch.x), batch.y)))
        assert batch.samples == 20
    assert np.isnan(steps).tolist() == [True, True, False, False] * 2


@pytest.mark.parametrize("truncate", [None, 3])
def test_steps_per_epoch_are_counted_without_the_dropped_batch(truncate):
    class Count(ddbp.Callback):
        def on_fit_begin(self, trainer, epochs, steps_per_epoch):
            self.expected = epochs * steps_per_epoch

    counting = Count()
    data = ddbp.ArrayDataset(RNG.standard_normal((10, 7, 4)), RNG.standard_normal((10, 7, 5)))
    trainer = make(
        LSTM(4, 5, rng=np.random.default_rng(0)),
        loss=MeanSquaredError(),
        batch_size=4,
        drop_last=True,
        truncate=truncate,
        callbacks=[counting],
    )
    trainer.fit(data, epochs=3)
    assert trainer.step_count == counting.expected == 6 * (3 if truncate else 1)


def test_state_from_the_midst_of_an_epoch_that_drops_goes_on():
    def looped(trainer, stop=None):
        for number, batch in enumerate(trainer.batches(DATA, epochs=3), 1):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
            if number == stop:
                break

    undisturbed, first, second = (make(drop_last=True) for _ in range(3))
    looped(undisturbed)
    looped(first, stop=4)
    second.load_state(first.state())
    looped(second)
    assert second.parameters_sha256() == undisturbed.parameters_sha256()
    with pytest.raises(ValueError, match="the same drop_last; got True in the state, False here"):
        make().load_state(first.state())


def test_data_smaller_than_a_batch_are_refused_where_it_would_be_dropped():
    data = ddbp.ArrayDataset(X[:19], LABELS[:19])
    with pytest.raises(ValueError, match="the data set must hold a batch of 20; got 19 samples"):
        next(make(drop_last=True).batches(data))


def single(samples, **options):
    """Return a trainer of a network with BatchNorm, and so many samples."""
    data = ddbp.ArrayDataset(np.resize(X, (samples, 6)), np.resize(LABELS, samples))
    return make(network(BatchNorm(16)), **options), data


def test_batch_norm_that_would_meet_a_single_sample_is_refused_before_training():
    trainer, data = single(81)
    before = trainer.parameters_sha256()
    said = (
        "Trainer.fit: BatchNorm needs more than one value per channel in each shard of a batch; got"
        r" a last batch of 1 in 1 shards. Pass drop_last=True"
    )
    with pytest.raises(ValueError, match=said):
        trainer.fit(data, epochs=1)
    with pytest.raises(ValueError, match=said.replace("fit", "batches")):
        next(trainer.batches(data))
    assert (trainer.step_count, trainer.parameters_sha256()) == (0, before)
    trainer, data = single(81, drop_last=True)
    trainer.fit(data, epochs=1)


def test_shards_of_one_sample_are_refused_before_training():
    trainer, data = single(88, shards=6)
    with pytest.raises(ValueError, match=r"a last batch of 8 in 6 shards. Pass drop_last=True"):
        trainer.fit(data, epochs=1)
    trainer, data = single(80, shards=12)
    with pytest.raises(ValueError, match=r"got a batch of 20 in 12 shards. Use fewer shards"):
        trainer.fit(data, epochs=1)


def test_single_images_and_synchronized_statistics_are_enough():
    rng = np.random.default_rng(0)
    layers = Conv2d(1, 4, 3, rng=rng), BatchNorm(4), ReLU(), GlobalAveragePool()
    model = Sequential(*layers, Linear(4, 3, rng=rng))
    make(model).fit(ddbp.ArrayDataset(rng.standard_normal((41, 5, 5, 1)), LABELS[:41]), epochs=1)
    synchronized = make(network(BatchNorm(16, synchronized=True)), shards=6)
    synchronized.fit(single(88)[1], epochs=1)


def test_loop_that_gives_the_model_something_else_is_not_refused_its_batches():
    trainer, _ = single(81)
    noise = np.zeros((81, 3), np.float32)
    batches = trainer.batches(ddbp.ArrayDataset(noise, np.resize(LABELS, 81)))
    assert [batch.samples for batch in batches] == [20, 20, 20, 20, 1]


# Conversion of what steps and predictions are given


class Frame:
    """What NumPy reads as an array, like a data frame."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype)


@pytest.mark.parametrize(
    "of", [np.asarray, np.ndarray.tolist, Frame, lambda a: a.astype(np.float16)]
)
def test_steps_and_predictions_convert_as_a_fit_does(of):
    x = X[:20].astype(np.float16)
    plain, converted = make(), make()
    losses = [
        trainer.train_step(f(x.astype(float)), labels)
        for trainer, f, labels in (
            (plain, lambda a: a.astype(np.float32), LABELS[:20]),
            (converted, of, LABELS[:20].tolist()),
        )
    ]
    assert losses[0] == losses[1]
    assert converted.parameters_sha256() == plain.parameters_sha256()
    assert converted.predict(of(x.astype(float))).tobytes() == plain.predict(x).tobytes()
    assert converted.batch(of(x.astype(float)), LABELS[:20]).x.dtype == np.float32


def test_data_in_the_other_byte_order_are_the_same_data():
    swapped = [a.astype(a.dtype.newbyteorder()) for a in (X[:20].astype(np.float32), LABELS[:20])]
    plain, converted = make(), make()
    losses = plain.train_step(X[:20], LABELS[:20]), converted.train_step(*swapped)
    assert losses[0] == losses[1]
    assert converted.predict(swapped[0]).tobytes() == plain.predict(X[:20]).tobytes()


@pytest.mark.parametrize("method", ["train_step", "batch"])
@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (X[:20], LABELS[:19], r"x and y must have the same length; got \(20, 19\)"),
        (X[:20].astype(np.float32), LABELS[:19], r"x and y must have the same length; got \(20, "),
        (X[:0], LABELS[:0], r"x must hold one sample or more; got shape \(0, 6\)"),
        (np.where(X > 1, np.nan, X)[:20], LABELS[:20], "x must be finite; got nan at x"),
        (["a", "b"], [0, 1], "x must be numeric; got <U1"),
        (1.0, 0, r"x must hold one sample or more; got shape \(\)"),
        (iter(X), LABELS, "x must be an array; got a .*iterator"),
    ],
)  # fmt: skip
def test_steps_refuse_what_a_fit_refuses(method, x, y, said):
    with pytest.raises((ValueError, TypeError), match=f"^Trainer.{method}: {said}"):
        getattr(make(), method)(x, y)


@pytest.mark.parametrize("part", ["x", "y"])
def test_step_on_data_that_are_not_finite_blames_the_data(part):
    x, y = X[:20].astype(np.float32), X[:20, :3].astype(np.float32)
    (x if part == "x" else y)[7, 2] = np.nan
    trainer = make(loss=MeanSquaredError(), metrics={})
    where = r"layers\.0: Linear\(6, 16\).*" if part == "x" else r"the loss, MeanSquaredError\(\)"
    with pytest.raises(
        FloatingPointError,
        match=rf"{where} was given nan, in sample 7 of the batch\. Drop or impute",
    ):
        trainer.train_step(x, y)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (X[:, :4], r"Linear\(6, 16\): the input must have shape \(N, \.\.\., 6\); got \(20, 4\)"),
        (X[0], r"Linear\(6, 16\): the input must have shape \(N, \.\.\., 6\); got \(6,\)"),
        (np.ones((3, 6), int), r"Linear\(6, 16\): the input must have the dtype of the weights"),
        (["a"], "Trainer.predict: x must be numeric; got <U1"),
        (None, "Trainer.predict: x must be numeric; got object"),
        (3.0, r"Trainer.predict: x must hold one sample or more; got shape \(\)"),
        (np.full((3, 6), np.inf), r"Trainer.predict: x must be finite; got inf at x\[0, 0\]"),
        (DATA, "Trainer.predict: x must be the inputs alone; got an ArrayDataset. Pass dataset.x"),
        ((X, X[:3]), r"Trainer.predict: x\[0\] and x\[1\] must have the same length"),
    ],
)
def test_prediction_for_wrong_values_is_refused(x, said):
    with pytest.raises((ValueError, TypeError), match=f"^{said}"):
        make().predict(x)


def test_options_of_numpy_become_those_of_python(tmp_path):
    options = {"clip_norm": np.float32(1), "clip_value": np.float64(0.5), "l1": np.float32(0.25)}
    trainer = make(**options, drop_last=np.bool_(True), run_dir=tmp_path)
    trainer.fit(DATA, epochs=1)
    assert ddbp.TrainerOptions.read(tmp_path) == trainer.options
    kinds = {type(value) for value in trainer.options.as_dict().values()}
    assert kinds == {int, float, bool, str, type(None)}
    with pytest.raises(ValueError, match=r"^Trainer: drop_last must be True or False; got 'no'"):
        make(drop_last="no")


def test_numbers_of_numpy_in_a_schedule_do_not_spoil_the_state():
    schedule = ddbp.Plateau(np.float32(0.1), patience=np.int64(0), factor=np.float32(0.5))
    trainer = make(optimizer=ddbp.SGD(schedule, momentum=np.float32(0.9)))
    trainer.fit(DATA, epochs=3)
    json.dumps(trainer.state().values)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16])
def test_all_integer_options_take_numbers_of_numpy(kind):
    options = {"batch_size": 20, "shards": 2, "accumulate": 2, "seed": 3}
    plain, numbers = make(**options), make(**{name: kind(n) for name, n in options.items()})
    assert numbers.options == plain.options
    assert type(ddbp.TrainerOptions(batch_size=kind(20), truncate=kind(3)).truncate) is int
    json.dumps(numbers.options.as_dict())
    numbers.fit(DATA, epochs=kind(2))
    plain.fit(DATA, epochs=2)
    assert numbers.parameters_sha256() == plain.parameters_sha256()
    assert parameters(numbers).tobytes() == parameters(plain).tobytes()
    assert re.fullmatch("[0-9a-f]+", numbers.parameters_sha256())


def test_value_is_refused_where_an_array_is_meant():
    value = Tape().input(X)
    said = (
        r"^Trainer\.predict: x must be an array; got a Value \(83, 6\)\. Of a value pass \.array\.$"
    )
    with pytest.raises(TypeError, match=said):
        make().predict(value)


def test_sequences_that_differ_in_another_axis_are_named_by_their_shapes():
    said = r"got parts of shapes \(2, 3\) and \(2, 4\)\. Pad the other axes\.$"
    with pytest.raises(ValueError, match=said):
        ddbp.ArrayDataset([np.ones((2, 3)), np.ones((2, 4))], [0, 1])
