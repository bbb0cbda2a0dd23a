"""Predictive coding: the errors that relaxation comes to, step by step in NumPy."""

import numpy as np
import pytest

from layers import (
    GRU,
    LSTM,
    RNN,
    Composite,
    Conv2d,
    Linear,
    LSTMCell,
    MeanSquaredError,
    Recompute,
    Residual,
    Sequential,
    Tanh,
    Tape,
    TreeLSTM,
)
from layers.rules import PredictiveCoding

from .networks import convolutional, dense, gradients


class Doubled(Composite):
    """A shortcut of a user's own."""

    def __init__(self, body):
        self.body = body

    def __call__(self, x):
        return x + self.body(x)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def relaxed(model, x, y, steps, rate):
    """Return the gradients of weights after explicit relaxation with fixed predictions."""
    v = [x]
    for layer in model:
        v.append(layer(v[-1]))
    heads = [i for i, layer in enumerate(model) if isinstance(layer, Linear)]
    # Predictions of the layers with weights, after their activations, and of the output.
    ends = [*heads[1:], len(model)]
    predictions = [v[end] for end in ends]
    beliefs = [each.copy() for each in predictions[:-1]]
    slopes = [1 - predictions[n] ** 2 for n in range(len(heads) - 1)] + [1.0]
    output = 2 * (predictions[-1] - y) / y.size
    for _ in range(steps):
        errors = [p - b for p, b in zip(predictions[:-1], beliefs, strict=True)] + [output]
        for n in range(len(beliefs)):
            down = (errors[n + 1] * slopes[n + 1]) @ model[heads[n + 1]].weight.value
            beliefs[n] += rate * (errors[n] - down)
    errors = [p - b for p, b in zip(predictions[:-1], beliefs, strict=True)] + [output]
    return [(errors[n] * slopes[n]).T @ v[head] for n, head in enumerate(heads)]


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.3), (2, 1.0), (3, 0.5), (9, 0.2), (40, 0.9)])
def test_errors_are_those_of_explicit_relaxation(steps, rate, rng):
    model = dense(rng, 7, 9, 6, 5, 4, activation=Tanh)
    x, y = rng.standard_normal((5, 7)), rng.standard_normal((5, 4))
    rule = PredictiveCoding(steps, rate)
    rule.bind(model)
    found = gradients(model, x, y, rule)[::2]
    for ours, expected in zip(found, relaxed(model, x, y, steps, rate), strict=True):
        assert np.allclose(ours, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    "make", [convolutional, lambda rng: dense(rng, 7, 9, 6, 4, activation=Tanh)]
)
def test_as_many_steps_as_layers_at_a_rate_of_1_are_backpropagation_bit_for_bit(make, rng):
    model = make(rng).astype(np.float32)
    image = isinstance(model[0], Conv2d)
    x = rng.standard_normal((5, 6, 6, 2) if image else (5, 7)).astype(np.float32)
    labels = rng.integers(0, 4, 5)
    rule = PredictiveCoding(2, 1.0)
    rule.bind(model)
    found, exact = gradients(model, x, labels, rule), gradients(model, x, labels)
    assert [each.tobytes() for each in found] == [each.tobytes() for each in exact]
    # With a step less the first layer has not heard of the error.
    rule = PredictiveCoding(1, 1.0)
    rule.bind(model)
    assert not gradients(model, x, labels, rule)[0].any()


def test_many_steps_come_to_backpropagation(rng):
    model = dense(rng, 7, 9, 6, 4, activation=Tanh)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    rule = PredictiveCoding(400, 0.2)
    rule.bind(model)
    for ours, exact in zip(
        gradients(model, x, labels, rule), gradients(model, x, labels), strict=True
    ):
        assert np.allclose(ours, exact, rtol=1e-12, atol=0)


def through(layer, x, dy):
    """Return the gradients of the input and of the parameters of a layer, by backpropagation."""
    for parameter in layer.parameters():
        parameter.forget_gradients()
    value = Tape().input(x)
    layer(value).backward(dy)
    return value.grad.copy(), [parameter.gradient.copy() for parameter in layer.parameters()]


def sequences(rng):
    """Return recurrent layers of three kinds, one of them in both directions, and a dense one."""
    return Sequential(
        LSTM(5, 4, bidirectional=True, rng=rng),
        GRU(8, 6, rng=rng),
        RNN(6, 3, last=True, rng=rng),
        Linear(3, 2, rng=rng),
    ).astype(np.float64)


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.3), (2, 1.0), (3, 0.5), (40, 0.9)])
def test_a_recurrent_layer_is_one_vertex_of_the_graph(steps, rate, rng):
    model = sequences(rng)
    x, y = rng.standard_normal((5, 7, 5)), rng.standard_normal((5, 2))
    v = [x]
    for layer in model:
        v.append(layer(v[-1]))
    errors = [np.zeros_like(each) for each in v[1:-1]] + [2 * (v[-1] - y) / y.size]
    for _ in range(steps):
        down = [through(model[n + 1], v[n + 1], errors[n + 1])[0] for n in range(3)]
        for error, from_above in zip(errors, down, strict=False):
            error += rate * (from_above - error)
    expected = [
        gradient for n, layer in enumerate(model) for gradient in through(layer, v[n], errors[n])[1]
    ]
    rule = PredictiveCoding(steps, rate)
    rule.bind(model)
    for ours, theirs in zip(gradients(model, x, y, rule), expected, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-13)


def test_recurrent_layers_in_as_many_steps_at_a_rate_of_1_are_backpropagation_bit_for_bit(rng):
    model = sequences(rng).astype(np.float32)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 7, 5), (5, 2)))
    rule = PredictiveCoding(3, 1.0)
    rule.bind(model)
    found, exact = gradients(model, x, y, rule), gradients(model, x, y)
    assert [each.tobytes() for each in found] == [each.tobytes() for each in exact]


def test_states_on_paths_of_several_lengths_are_refused(rng):
    rule, cell = PredictiveCoding(), LSTMCell(4, 3, rng=rng, dtype=np.float64)
    x = Tape().input(np.ones((2, 3, 4)), gradient=False)
    rule.bind(cell)
    h, c = cell(x[:, 0])
    h, c = cell(x[:, 1], (h, c))
    h.sum().backward(rule=rule)
    h, c = cell(x[:, 0])
    both = h + cell(x[:, 1], (h, c))[0]
    with pytest.raises(ValueError, match=r"as many layers with weights; got LSTM\(4, 3\)"):
        both.sum().backward(rule=rule)
    y, ((h, _),) = cell.layer.run(x)
    with pytest.raises(ValueError, match="whose outputs have paths of several lengths"):
        (Linear(3, 3, rng=rng, dtype=np.float64)(y).sum() + h.sum()).backward(rule=rule)


def test_shortcuts_and_trees_are_refused_by_name(rng):
    rule, unequal = PredictiveCoding(), "all paths to the output must pass as many layers"
    block = Residual(Sequential(Linear(4, 4, rng=rng), Tanh()))
    model = Sequential(Linear(4, 4, rng=rng), Sequential(Tanh(), block), Linear(4, 2, rng=rng))
    with pytest.raises(ValueError, match=rf"{unequal}.*; got layers\.1\.layers\.1: Residual\("):
        rule.bind(model)
    model = Sequential(model[0], Doubled(Linear(4, 4, rng=rng)), model[2])
    rule.bind(model)
    loss = MeanSquaredError()(
        model(Tape().input(np.ones((2, 4), np.float32))), np.ones((2, 2), np.float32)
    )
    with pytest.raises(ValueError, match=unequal):
        loss.backward(rule=rule)
    segment = Sequential(Recompute(Sequential(*model[:1], Tanh())), model[2])
    with pytest.raises(ValueError, match="must have no segments that are computed again; got lay"):
        rule.bind(segment)
    with pytest.raises(ValueError, match=r"Linear, convolutions or recurrent layers; got .*Tree"):
        rule.bind(Sequential(TreeLSTM(3, 3, rng=rng)))


@pytest.mark.parametrize("shortcut", ["as long", "of the input", "of what is frozen"])
def test_shortcuts_that_errors_do_not_take_or_that_are_as_long_are_learned(shortcut, rng):
    def layer():
        return Linear(4, 4, rng=rng)

    body, first = Sequential(layer(), Tanh()), layer()
    first.trainable = shortcut == "as long"
    block = Residual(body, layer() if shortcut == "as long" else None)
    model = Sequential(*([] if shortcut == "of the input" else [first]), block, layer())
    rule = PredictiveCoding(2, 1.0)
    rule.bind(model)
    x, y = rng.standard_normal((2, 3, 4)).astype(np.float32)
    loss = MeanSquaredError()(model(Tape(training=True).input(x, gradient=False)), y)
    loss.backward(rule=rule)
    assert body[0].weight.gradient.any()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [((0,), "steps"), ((5, 0.0), "rate"), ((5, 1.5), "rate"), ((5, True), "rate")],
)
def test_arguments_out_of_range_are_refused(arguments, match):
    with pytest.raises(ValueError, match=f"PredictiveCoding: {match} must be"):
        PredictiveCoding(*arguments)
