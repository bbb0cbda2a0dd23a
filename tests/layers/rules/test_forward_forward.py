"""Forward-forward: losses of layers' own, labels in inputs, and what it predicts by."""

import numpy as np
import pytest

from layers import (
    Conv2d,
    Flatten,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tape,
)
from layers.rules import ForwardForward

from .networks import convolutional, dense


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def normalised(h):
    return h / np.sqrt(np.mean(h**2, axis=1, keepdims=True) + 1e-6)


def softplus(z):
    return np.log1p(np.exp(z))


def test_losses_are_those_of_goodness_and_of_the_classifier(rng):
    model = dense(rng, 7, 9, 6, 4, activation=ReLU)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    rule = ForwardForward(0.7, seed=2)
    rule.bind(model)
    value = Tape(training=True, step=3).input(x)
    loss, start = rule.losses(model, SoftmaxCrossEntropy(), value, labels)
    wrong = rule._wrong(value, labels, 4)

    def outputs(columns):
        h = np.concatenate([columns, x[:, 4:]], axis=1)
        for layer in (model[0], model[2]):
            h = np.maximum(layer(normalised(h)), 0)
            yield h

    total = loss.item()
    for columns, sign in ((np.eye(4)[labels], 1), (np.eye(4)[wrong], -1)):
        for h in outputs(columns):
            total += softplus(sign * (0.7 - np.mean(h**2, axis=1))).mean()
    assert np.isclose(start.item(), total, rtol=1e-12)
    *_, last = outputs(np.full((5, 4), 0.25))
    logits = model[4](normalised(last))
    assert np.isclose(loss.item(), SoftmaxCrossEntropy()(logits, labels), rtol=1e-12)
    assert np.allclose(rule.predictor(model)(x), logits, rtol=1e-12)


def test_layers_learn_by_their_own_losses_alone(rng):
    model = dense(rng, 7, 9, 6, 4, activation=ReLU)
    x, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 5)
    rule = ForwardForward()
    rule.bind(model)

    def first():
        for parameter in model.parameters():
            parameter.forget_gradients()
        tape = Tape(training=True)
        _, start = rule.losses(model, SoftmaxCrossEntropy(), tape.input(x), labels)
        start.backward(rule=rule)
        return [model[n].weight.gradient.copy() for n in (0, 2, 4)]

    before = first()
    assert all(each.any() for each in before)
    for layer in (model[2], model[4]):
        layer.weight.value = layer.weight.value * 2 + 0.1
    after = first()
    assert (before[0] == after[0]).all()
    assert not np.allclose(before[1], after[1])


def test_wrong_labels_are_wrong_alike_likely_and_those_of_the_sample(rng):
    rule, model = ForwardForward(seed=1), dense(rng, 7, 9, 4)
    rule.bind(model)
    labels = np.repeat(np.arange(4), 3000)
    x = np.zeros((len(labels), 7))
    wrong = rule._wrong(Tape(step=2, first_sample=5).input(x), labels, 4)
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (labels, wrong), 1)
    assert (np.diag(counts) == 0).all()
    others = counts[~np.eye(4, dtype=bool)]
    assert (abs(others - 1000) < 120).all()
    part = rule._wrong(Tape(step=2, first_sample=15).input(x[10:]), labels[10:], 4)
    assert (part == wrong[10:]).all()


def test_what_predicts_can_be_followed_on_a_tape_but_for_the_label(rng):
    model = convolutional(rng)
    rule = ForwardForward()
    rule.bind(model)
    predictor = rule.predictor(model)
    array = rng.standard_normal((3, 6, 6, 2))
    x = Tape().input(array)
    y = predictor(x)
    assert np.allclose(y.array, predictor(array), rtol=1e-12)
    y.sum().backward()
    gradient = x.grad.reshape(3, -1)
    assert not gradient[:, :4].any()
    assert (gradient[:, 4:] != 0).mean() > 0.2
    named = [name for name, _ in predictor.named_parameters()]
    assert named == [name for name, _ in model.named_parameters()]


def test_convolutions_learn(rng):
    model = convolutional(rng)
    rule = ForwardForward()
    rule.bind(model)
    x, labels = rng.standard_normal((4, 6, 6, 2)), rng.integers(0, 4, 4)
    _, start = rule.losses(model, SoftmaxCrossEntropy(), Tape(training=True).input(x), labels)
    start.backward(rule=rule)
    assert all(parameter.gradient.any() for parameter in model.parameters())


def test_what_it_does_not_define_is_refused(rng):
    with pytest.raises(
        ValueError, match="ForwardForward: the last layer must be Linear; got Conv2d"
    ):
        ForwardForward().bind(
            Sequential(Conv2d(1, 2, 3, rng=rng), ReLU(), Conv2d(2, 2, 3, rng=rng), Flatten())
        )
    rule, model = ForwardForward(), dense(rng, 7, 9, 4)
    rule.bind(model)
    value = Tape(training=True).input(rng.standard_normal((2, 7)))
    with pytest.raises(ValueError, match=r"targets must be labels \(N,\); got \(2, 4\)"):
        rule.losses(model, MeanSquaredError(), value, np.zeros((2, 4)))
    narrow = dense(rng, 4, 9, 4)
    rule.bind(narrow)
    value = Tape(training=True).input(rng.standard_normal((2, 4)))
    with pytest.raises(ValueError, match="a sample must have more than 4 numbers"):
        rule.losses(narrow, SoftmaxCrossEntropy(), value, np.array([0, 1]))
    with pytest.raises(ValueError, match="threshold must be"):
        ForwardForward(0.0)
