"""Losses and metrics count what counts: whatever is left out, and however samples are put into
batches and shards.
"""

from functools import partial

import numpy as np
import pytest

import ddbp
from layers import (
    CTC,
    GRU,
    Composite,
    Linear,
    MeanAbsoluteError,
    MeanSquaredError,
    Sequential,
    SoftmaxCrossEntropy,
)

from .small import DATA, LABELS, X, make, network, parameters

RNG = np.random.default_rng(8)
SEQUENCES = RNG.standard_normal((8, 5, 6))
TOKENS = RNG.integers(0, 3, (8, 5))
TOKENS[RNG.random((8, 5)) < np.linspace(0, 1, 8)[:, np.newaxis]] = -1
TOKENS[0] = -1
IGNORING = ddbp.ArrayDataset(SEQUENCES, TOKENS)


class Perfect(Composite):
    """Finds the last three features, whatever is trained."""

    def __init__(self):
        self.unused = Linear(1, 1, rng=np.random.default_rng(0))

    def __call__(self, x):
        return x[..., -3:]

    def __repr__(self):
        return "Perfect()"


def ignoring(batch_size, shards, **options):
    return make(
        network(),
        loss=SoftmaxCrossEntropy(ignore=-1),
        batch_size=batch_size,
        shards=shards,
        **options,
    )


@pytest.mark.parametrize(("batch_size", "shards"), [(1, 1), (3, 2), (4, 4), (8, 1), (8, 8)])
def test_evaluation_does_not_depend_on_the_batch_size(batch_size, shards):
    trainer = ignoring(batch_size, shards)
    measured = trainer.evaluate(IGNORING)
    logits = trainer.predict(SEQUENCES)
    expected = SoftmaxCrossEntropy(ignore=-1)(logits, TOKENS)
    hits = (logits.argmax(axis=-1) == TOKENS)[TOKENS >= 0]
    np.testing.assert_allclose(measured["loss"], expected, rtol=1e-6)
    np.testing.assert_allclose(measured["accuracy"], hits.mean(), rtol=1e-12)


def test_perfect_predictor_is_perfect_whatever_is_ignored():
    x = SEQUENCES.copy()
    x[..., -3:] = 50 * np.eye(3)[np.maximum(TOKENS, 0)]
    trainer = make(Perfect(), loss=SoftmaxCrossEntropy(ignore=-1), batch_size=3)
    assert trainer.evaluate(ddbp.ArrayDataset(x, TOKENS)) == {"loss": 0.0, "accuracy": 1.0}


def test_nothing_that_counts_has_no_mean():
    measured = ignoring(4, 2).evaluate(ddbp.ArrayDataset(SEQUENCES, np.full_like(TOKENS, -1)))
    assert np.isnan([measured["loss"], measured["accuracy"]]).all()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_loss_of_an_epoch_is_over_what_counts(accumulate):
    # A rate of almost 0: the loss of the epoch is that of the first parameters.
    trainer = ignoring(3, 3, optimizer=ddbp.SGD(1e-12), accumulate=accumulate)
    expected = trainer.evaluate(IGNORING)["loss"]
    np.testing.assert_allclose(trainer.fit(IGNORING, epochs=1)[0]["loss"], expected, rtol=1e-6)


class Recurrent(Composite):
    """A network of time steps that carries nothing."""

    def __init__(self):
        self.network = network()

    def __call__(self, x):
        return self.network(x)

    def run(self, x, state):
        return self.network(x), state

    def __repr__(self):
        return "Recurrent()"


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(ignore=-1), SoftmaxCrossEntropy()], ids=str)
def test_windows_of_time_steps_count_what_is_in_them(loss):
    tokens = TOKENS if loss.ignore is not None else np.maximum(TOKENS, 0)
    options = {"loss": loss, "optimizer": ddbp.SGD(1e-12), "batch_size": 8, "truncate": 2}
    trainer = make(Recurrent(), **options)
    expected = loss(network()(SEQUENCES.astype(np.float32)), tokens)
    x = SEQUENCES.astype(np.float32)
    np.testing.assert_allclose(trainer.train_step(x, tokens), expected, rtol=1e-6)
    data = ddbp.ArrayDataset(SEQUENCES, tokens)
    np.testing.assert_allclose(trainer.fit(data, epochs=1)[0]["loss"], expected, rtol=1e-6)


def test_accumulated_batches_that_count_nothing_change_nothing():
    x, tokens = SEQUENCES.astype(np.float32), TOKENS
    one, two = ignoring(8, 2), ignoring(8, 2, accumulate=2)
    value = one.train_step(x, tokens)
    assert np.isnan(two.train_step(x, np.full_like(tokens, -1)))
    assert two.train_step(x, tokens) == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(parameters(two), parameters(one), rtol=1e-6)


# ---- losses in Python


def python_loss(prediction, target):
    """Return a loss of means and sums over the batch, of a loss layer, and of a number."""
    error = prediction - target
    mean, layer = (error * error).mean(), MeanAbsoluteError()(prediction, target)
    return mean + 0.5 * (error * error).sum() / 20 - layer / 4 + 0.25


TARGETS = np.eye(3)[LABELS]
REGRESSION = ddbp.ArrayDataset(X, TARGETS)


def test_loss_in_python_is_the_same_for_any_number_of_shards():
    trained = {}
    for shards in (1, 4):
        trainer = make(network(dtype=np.float64), loss=python_loss, shards=shards, batch_size=20)
        value = trainer.train_step(X[:20], TARGETS[:20])
        measured = trainer.evaluate(ddbp.ArrayDataset(X[:20], TARGETS[:20]))["loss"]
        trained[shards] = [value, measured, *parameters(trainer)]
    np.testing.assert_allclose(trained[4], trained[1], rtol=1e-11)


def test_mean_over_the_batch_has_the_gradient_of_the_loss_layer():
    ours, theirs = (make(network(dtype=np.float64), loss=None, shards=4) for _ in range(2))
    for trainer, loss in ((ours, lambda e: (e * e).mean()), (theirs, None)):
        for batch in trainer.batches(REGRESSION):
            prediction = trainer.model(batch.x)
            trainer.step(
                MeanSquaredError()(prediction, batch.y)
                if loss is None
                else loss(prediction - batch.y)
            )
    np.testing.assert_allclose(parameters(ours), parameters(theirs), rtol=1e-12)


@pytest.mark.parametrize("backward", [False, True], ids=["step", "update"])
def test_scalar_that_is_no_share_is_refused_before_anything_changes(backward):
    trainer = make(loss=None, shards=2)
    batch = trainer.batch(X[:20].astype(np.float32), LABELS[:20])
    loss = (trainer.model(batch.x) ** 2).mean() ** 2
    if backward:
        loss.backward()
    with pytest.raises(ValueError, match=r"on several shards a loss must be .* got .*Power"):
        (trainer.update if backward else trainer.step)(loss)


# ---- metrics


def evaluated(metric, **options):
    return make(metrics={"mine": metric}, **options).evaluate(DATA)["mine"]


@pytest.mark.parametrize(
    ("metric", "got"),
    [
        (lambda p, y: np.abs(p - y[:, np.newaxis]), r"got shape \(20, 3\) of float64"),
        (lambda p, y: (p.argmax(axis=1) == y)[:-1], r"got shape \(19,\) of bool"),
        (lambda p, y: (p.argmax(axis=1) == y).mean(), r"got shape \(\) of float64"),
        (lambda p, y: (p[:, 0], np.ones(1)), r"got shape \(1,\) of float64"),
        (lambda p, y: None, r"got shape \(\) of object"),
    ],
    ids=["a matrix", "one less", "one number", "one weight", "nothing"],
)
def test_metric_must_return_a_number_for_each_sample(metric, got):
    said = r"metric 'mine' must return a number for each of the 20 samples, \(20,\); "
    with pytest.raises(ValueError, match=said + got):
        evaluated(metric)


def test_negative_weights_of_a_metric_are_refused():
    with pytest.raises(ValueError, match="weights of metric 'mine' must be at least 0; got -1"):
        evaluated(lambda p, y: (p[:, 0], -np.ones(len(y))))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("batch_size", [7, 83])
def test_values_and_weights_of_a_metric_are_summed_separately(shards, batch_size):
    def metric(prediction, target):
        return np.where(target == 2, np.nan, target + 1.0), np.array([1.0, 2.0, 0.0])[target]

    expected = np.average(LABELS[LABELS < 2] + 1.0, weights=LABELS[LABELS < 2] + 1.0)
    found = evaluated(metric, shards=shards, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_weights_of_the_data_are_those_of_losses_and_metrics():
    weights = RNG.random((8, 5)) * (TOKENS >= 0)
    labels = np.maximum(TOKENS, 0)
    trainer = make(network(), batch_size=3, shards=2)
    measured = trainer.evaluate(ddbp.ArrayDataset(SEQUENCES, labels, weights=weights))
    logits = trainer.predict(SEQUENCES.astype(np.float32))
    hits = logits.argmax(axis=-1) == labels
    loss = SoftmaxCrossEntropy()(logits, labels, weights)
    np.testing.assert_allclose(measured["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(measured["accuracy"], np.average(hits, weights=weights), rtol=1e-6)


def test_metric_that_takes_no_weights_is_refused_where_the_data_have_them():
    trainer = make(metrics={"mine": lambda p, y: y})
    with pytest.raises(TypeError, match=r"metric 'mine' must take \(prediction, target, weights\)"):
        trainer.evaluate(ddbp.ArrayDataset(X, LABELS, weights=np.ones(len(X))))


class Reader(Composite):
    """Says a label or nothing in each frame, and how many frames there are."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.recurrent, self.head = GRU(4, 16, rng=rng), Linear(16, 5, rng=rng)

    def __call__(self, frames, lengths):
        return self.head(self.recurrent(frames, lengths)), lengths

    def __repr__(self):
        return "Reader()"


def test_ragged_sequences_are_learnt_without_places_in_time():
    rng = np.random.default_rng(0)
    words = [np.cumsum(rng.integers(1, 4, rng.integers(1, 4))) % 4 + 1 for _ in range(40)]
    spoken = [np.repeat(np.eye(4)[word - 1], rng.integers(2, 5), axis=0) for word in words]
    data = ddbp.ArrayDataset(ddbp.Ragged(spoken), ddbp.Ragged(words, padding=-1))
    options = {"loss": CTC(), "optimizer": ddbp.Adam(0.02), "batch_size": 10, "shards": 3}
    history = make(Reader(), **options).fit(data, epochs=6, validation=data)
    assert history[-1]["validation_loss"] < history[0]["loss"] / 3


def test_a_metric_of_the_name_of_the_loss_is_refused():
    with pytest.raises(ValueError, match="named as what is reported beside it; got 'loss'"):
        make(metrics={"loss": ddbp.accuracy})


def test_ratios_of_sums_are_metrics():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((50, 4)), rng.integers(0, 2, (50, 2))
    names = ("precision", "recall", "f1_score")
    model = Sequential(Linear(4, 2, rng=rng))
    trainer = make(
        model,
        loss=MeanSquaredError(),
        metrics={name: getattr(ddbp, name) for name in names},
        batch_size=8,
        shards=3,
    )
    measured = trainer.evaluate(ddbp.ArrayDataset(x, y))
    found, true = trainer.predict(x) > 0, y == 1
    precision, recall = (found & true).sum() / found.sum(), (found & true).sum() / true.sum()
    expected = [precision, recall, 2 * precision * recall / (precision + recall)]
    np.testing.assert_allclose([measured[name] for name in names], expected, rtol=1e-12)


def test_several_guesses_are_a_metric():
    top = make(metrics={"top 2": partial(ddbp.top_k_accuracy, 2)})
    order = np.argsort(-top.predict(X), axis=1)[:, :2]
    expected = (order == LABELS[:, np.newaxis]).any(axis=1).mean()
    np.testing.assert_allclose(top.evaluate(DATA)["top 2"], expected, rtol=1e-12)
