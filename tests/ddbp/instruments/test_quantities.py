"""What instruments measure, against NumPy."""

from itertools import pairwise

import numpy as np
import pytest

import ddbp
from ddbp.comm.current import communicator
from ddbp.instruments.calls import named
from ddbp.instruments.clock import StepClock
from ddbp.instruments.layer_gauge import LayerGauge, bin_edges
from ddbp.instruments.noise import noise_scale
from ddbp.instruments.recording import QUANTITIES
from ddbp.observers.observer import StepPhase
from layers import (
    GRU,
    LSTM,
    RNN,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
)
from layers.recurrent.recurrence import Recurrence

from .small import CLASSES, FEATURES, SAMPLES, X, Y, make, network, recorded


class FirstBatch(ddbp.Callback):
    """Keeps the samples of the first step."""

    def on_step_end(self, trainer, step, loss):
        if step == 1:
            self.after = [each.value.astype(np.float64) for each in trainer.model.parameters()]


def by_hand(weights, x, y):
    """Return outputs, gradients of these and of parameters of the network of two layers."""
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1.T + b1, 0)
    logits = hidden @ w2.T + b2
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dlogits = (p - np.eye(CLASSES)[y]) / len(x)
    dhidden = dlogits @ w2
    dz = dhidden * (hidden > 0)
    gradients = [dz.T @ x, dz.sum(axis=0), dlogits.T @ hidden, dlogits.sum(axis=0)]
    return (hidden, logits), (dhidden, dlogits), gradients


def rms(array):
    return np.sqrt(np.mean(np.square(array)))


def norms(arrays):
    return [np.linalg.norm(array) for array in arrays]


def shares(array):
    edges = bin_edges()
    found = np.abs(array).reshape(-1)
    counts = [np.sum((found >= a) & (found < b)) for a, b in pairwise(edges)]
    return np.array(counts) / found.size


@pytest.fixture(scope="module")
def first_step():
    """Return the recording of a step with all of 48 samples in order of the data, and by hand what
    it must hold.
    """
    before = [each.value.astype(np.float64) for each in network().parameters()]
    kept, instruments = FirstBatch(), ddbp.Instruments()
    trainer = make(None, instruments, callbacks=[kept], batch_size=SAMPLES)
    trainer.train_step(X, Y)
    return instruments.recording, before, kept.after


def test_names_are_those_that_the_user_wrote(first_step):
    recording, _, _ = first_step
    assert recording.layers == ["layers.1", "layers.2"], "Linear and ReLU run as one call"
    assert recording.parameters == [name for name, _ in network().named_parameters()]
    assert recording.steps.tolist() == [0]
    assert recording.values.keys() == QUANTITIES.keys()


def test_outputs_and_their_gradients_are_those_of_numpy(first_step):
    recording, before, _ = first_step
    outputs, gradients, _ = by_hand(before, X, Y)
    found = {name: array[0] for name, array in recording.values.items()}
    np.testing.assert_allclose(found["activation_norm"], [*map(rms, outputs)], rtol=1e-5)
    np.testing.assert_allclose(found["activation_gradient_norm"], [*map(rms, gradients)], rtol=1e-5)
    zeros = [np.mean(each == 0) for each in outputs]
    np.testing.assert_allclose(found["activation_zeros"], zeros, rtol=1e-6)
    silent = [(each == 0).all(axis=0).mean() for each in outputs]
    np.testing.assert_allclose(found["activation_silent"], silent, rtol=1e-6)
    np.testing.assert_allclose(found["activation_histogram"], [*map(shares, outputs)], atol=1e-6)
    found = found["activation_gradient_histogram"]
    np.testing.assert_allclose(found, [*map(shares, gradients)], atol=1e-6)


def test_layers_that_do_not_saturate_have_no_share(first_step):
    recording, _, _ = first_step
    assert np.isnan(recording.values["activation_saturated"]).all(), "neither layer saturates"


def test_parameters_gradients_and_updates_are_those_of_numpy(first_step):
    recording, before, after = first_step
    _, _, gradients = by_hand(before, X, Y)
    found = {name: array[0] for name, array in recording.values.items()}
    steps = [b - a for a, b in zip(before, after, strict=True)]
    np.testing.assert_allclose(found["parameter_norm"], norms(before), rtol=1e-6)
    np.testing.assert_allclose(found["gradient_norm"], norms(gradients), rtol=1e-5)
    np.testing.assert_allclose(found["update_norm"], norms(steps), rtol=1e-3)
    ratios = [s / w if w else np.nan for s, w in zip(norms(steps), norms(before), strict=True)]
    np.testing.assert_allclose(found["update_ratio"], ratios, rtol=1e-3)
    np.testing.assert_allclose(found["update_cosine"], -1, rtol=1e-5)
    np.testing.assert_allclose(found["gradient_histogram"], [*map(shares, gradients)], atol=1e-6)
    np.testing.assert_allclose(found["update_histogram"], [*map(shares, steps)], atol=1e-6)


def test_norms_of_shards_and_the_noise_scale_are_those_of_numpy(first_step):
    recording, before, _ = first_step
    squares = []
    for x, y in zip(np.split(X, 4), np.split(Y, 4), strict=True):
        _, _, gradients = by_hand(before, x, y)
        squares.append(sum(np.sum(each**2) for each in gradients))
    _, _, gradients = by_hand(before, X, Y)
    total = sum(np.sum(each**2) for each in gradients)
    found = {name: array[0] for name, array in recording.values.items()}
    np.testing.assert_allclose(found["shard_gradient_norm"], np.sqrt(squares), rtol=1e-5)
    small, b = np.mean(squares), SAMPLES / 4
    noise = (small - total) / (1 / b - 1 / SAMPLES)
    signal = (SAMPLES * total - b * small) / (SAMPLES - b)
    np.testing.assert_allclose(found["noise_scale"], noise / signal, rtol=1e-4)


def test_the_noise_scale_of_known_noise_is_found():
    # Of gradients G + noise / √b, over many steps: numerator and denominator have no bias.
    rng = np.random.default_rng(0)
    dimension, samples, count = 400, 64, 8
    g = np.full(dimension, 0.5)
    found = []
    for _ in range(200):
        shards = g + rng.standard_normal((count, dimension)) * 3 / np.sqrt(samples / count)
        total = np.sum(shards.mean(axis=0) ** 2)
        found.append(noise_scale(np.linalg.norm(shards, axis=1), total, samples))
    assert np.median(found) == pytest.approx(9 * dimension / np.sum(g**2), rel=0.1)
    assert np.isnan(noise_scale(np.ones(1), 1.0, 64)), "one shard does not tell"


def test_saturated_and_silent_units_are_shares():
    rng = np.random.default_rng(0)
    first = Linear(FEATURES, 4, rng=rng)
    first.weight.value[...] = 0
    first.bias.value[...] = [-1.0, 3.0, 0.5, -2.0]
    model = Sequential(
        first,
        ReLU(),
        Linear(4, 4, rng=rng),
        Tanh(),
        Linear(4, 4, rng=rng),
        Sigmoid(),
        Linear(4, CLASSES, rng=rng),
        fuse=False,
    )
    model[2].weight.value[...] = 0
    model[2].bias.value[...] = [5, -5, 0, 0.1]
    model[4].weight.value[...] = 0
    model[4].bias.value[...] = [9, -9, 9, 0]
    recording, _ = recorded(model)
    column = {name: i for i, name in enumerate(recording.layers)}
    values = {name: array[0] for name, array in recording.values.items()}
    assert values["activation_silent"][column["layers.1"]] == 0.5
    assert values["activation_zeros"][column["layers.1"]] == 0.5
    assert values["activation_saturated"][column["layers.3"]] == 0.5
    assert values["activation_saturated"][column["layers.5"]] == 0.75


def test_a_unit_that_fired_in_the_step_before_may_be_silent_now():
    instruments = ddbp.Instruments(1)
    trainer = make(None, instruments, optimizer=ddbp.SGD(0.0))
    trainer.train_step(X[:16], Y[:16])
    trainer.train_step(np.zeros_like(X[:16]), Y[:16])
    silent = instruments.recording.values["activation_silent"][:, 0]
    assert silent[0] < 1
    assert silent[1] == 1


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def beyond(x, low, high):
    return float(np.mean((x <= low) | (x >= high)))


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_gates_and_cells_that_are_saturated_are_those_of_numpy(kind):
    # One step from a state of zeros: what the inputs contribute is all there is.
    size = 6
    layer = kind(FEATURES, size, last=True, rng=np.random.default_rng(4))
    ((name, core),) = [each for each in named(layer) if isinstance(each[1], Recurrence)]
    core.weight_ih.value *= 6
    model = Sequential(layer, Linear(size, CLASSES, rng=np.random.default_rng(5)))
    instruments = ddbp.Instruments(1)
    trainer = make(model, instruments, batch_size=SAMPLES)
    sums = X.astype(np.float64) @ core.weight_ih.value.T.astype(np.float64)
    sums += core.bias_ih.value + core.bias_hh.value
    trainer.train_step(X[:, np.newaxis], Y)
    if kind is LSTM:
        i, f, g, o = np.split(sums, 4, axis=1)
        gates = sigmoid(np.stack([i, f, o]))
        cells = np.tanh(sigmoid(i) * np.tanh(g))
    elif kind is GRU:
        r, z, n = np.split(sums, 3, axis=1)
        gates, cells = sigmoid(np.stack([r, z])), np.tanh(n)
    else:
        gates, cells = np.full(1, np.nan), np.tanh(sums)
    values = instruments.recording.values
    column = instruments.recording.layers.index(f"layers.0.{name}")
    share = values["gates_saturated"][0, column]
    assert share == pytest.approx(beyond(gates, 0.02, 0.98)) if kind is not RNN else np.isnan(share)
    found = values["activation_saturated"][0, column]
    assert found == pytest.approx(beyond(cells, -0.98, 0.98))


def test_steps_that_a_sequence_does_not_have_are_not_counted():
    layer = LSTM(FEATURES, 4, last=True, rng=np.random.default_rng(4))
    x = 9 * np.random.default_rng(2).standard_normal((8, 5, FEATURES)).astype(np.float32)
    found = []
    for lengths, steps in ((np.full(8, 2), 5), (None, 2)):
        rows = x[:, :steps].copy()
        rows[:, 2:] = 0
        gauge = LayerGauge(layer, np.float32, StepClock(communicator()))
        tape = Tape(training=True, shards=(0, 3, 4, 8), hooks=[gauge])
        layer(tape.input(rows), *([] if lengths is None else [lengths]))
        total = gauge.numbers.sum(axis=0)
        found.append(gauge.row(total, np.zeros(len(total)))["gates_saturated"][0])
    assert found[0] == found[1] > 0


class Keep:
    """A transform that keeps what there was."""

    def __init__(self, share):
        self.share, self.sums = share, {}

    def __call__(self, gradient, step):
        for part in gradient.parts():
            part.gradient[...] += self.share * self.sums.get(part.name, 0)
            self.sums[part.name] = part.gradient.copy()


class Scaled:
    """A loss times a number."""

    def __init__(self, loss, factor):
        self.loss, self.factor = loss, factor

    def __call__(self, prediction, target):
        return self.loss(prediction, target) * self.factor


def scale(gradient, step):
    for part in gradient.parts():
        part.gradient[...] *= 0.5


def to_half(gradient, step):
    for part in gradient.parts():
        part.gradient[...] = part.gradient.astype(np.float16)


def largest_only(gradient, step):
    for part in gradient.parts():
        part.gradient[np.abs(part.gradient) < np.abs(part.gradient).mean()] = 0


@pytest.mark.parametrize("every", [1, 2])
def test_what_transforms_keep_and_lose_is_told(every):
    found = {}
    for name, transforms in {
        "all": [Keep(1.0)],
        "some": [Keep(0.9)],
        "scaled": [scale],
        "half": [to_half],
        "largest": [largest_only],
        "none": [],
    }.items():
        factor = 1e-7 if name == "half" else 1.0
        loss = Scaled(SoftmaxCrossEntropy(), factor)
        recording, _ = recorded(epochs=2, every=every, transforms=transforms, loss=loss)
        values = recording.values
        found[name] = values["gradient_kept"][1:, 0], values["gradient_lost"][1:, 0]
    np.testing.assert_allclose(found["all"][0], 1, rtol=1e-4)
    np.testing.assert_allclose(found["some"][0], 0.9, rtol=1e-4)
    for name in ("scaled", "half", "largest", "none"):
        assert np.isnan(found[name][0]).all(), name
    for name in ("all", "some", "scaled", "largest"):
        assert (found[name][1] == 0).all(), name
    assert (found["half"][1] > 0).all()
    assert np.isnan(found["none"][1]).all()


def test_mean_and_deviation_of_labels_and_numbers_are_those_of_numpy(first_step):
    recording, _, _ = first_step
    rng = np.random.default_rng(3)
    numbers = rng.standard_normal((SAMPLES, 1)).astype(np.float32)
    model = Linear(FEATURES, 1, rng=rng)
    data = ddbp.ArrayDataset(X, numbers)
    options = {"loss": MeanSquaredError(), "data": data, "batch_size": SAMPLES}
    for found, y in ((recording, Y), (recorded(model, **options)[0], numbers)):
        assert found.values["target_mean"][0, 0] == pytest.approx(y.mean(), rel=1e-5)
        assert found.values["target_std"][0, 0] == pytest.approx(y.std(), rel=1e-5)
    vectors = ddbp.ArrayDataset(X, np.zeros((SAMPLES, 2), np.float32))
    other, _ = recorded(Linear(FEATURES, 2, rng=rng), **options | {"data": vectors})
    assert np.isnan(other.values["target_mean"]).all(), "of a target with several numbers"


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"shards": 1}, {"shards": 16}], ids=str)
def test_the_last_gradient_is_the_sum_that_it_must_be(options):
    recording, _ = recorded(epochs=2, **options)
    assert (recording.values["gradient_excess"] < 1e-5).all()


def test_a_gradient_that_is_not_cleared_is_not_that_sum():
    class Keep(ddbp.Callback):
        def on_phase(self, trainer, phase):
            if phase is StepPhase.UPDATE:
                for each in trainer.model.parameters():
                    each.store.stale = False

    recording, _ = recorded(epochs=2, callbacks=[Keep()], shards=1)
    excess = recording.values["gradient_excess"][:, 0]
    assert excess[0] < 1e-5
    assert (excess[1:] > 0.1).all()
