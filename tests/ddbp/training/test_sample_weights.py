"""Weights of samples, time steps and classes."""

import numpy as np
import pytest

import ddbp
from layers import LSTM, SoftmaxCrossEntropy

from .sentences import FIRST, RNG, WORDS, A, Reader
from .small import DATA, LABELS, X, make, parameters


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
