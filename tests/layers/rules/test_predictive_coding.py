"""Predictive coding: the errors that relaxation comes to, step by step in NumPy."""

import numpy as np
import pytest

from layers import (
    GRU,
    Composite,
    Conv2d,
    Linear,
    MeanSquaredError,
    Recompute,
    Residual,
    Sequential,
    Tanh,
    Tape,
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


def test_shortcuts_and_recurrences_are_refused_by_name(rng):
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
    with pytest.raises(ValueError, match="GRURecurrence"):
        rule.bind(Sequential(GRU(3, 3, last=True, rng=rng)))


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
