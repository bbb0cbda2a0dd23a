"""What tables of rules have: ranks without samples, which add nothing, and what is refused."""

import numpy as np
import pytest

from ddbp.training import learning
from layers import (
    LSTM,
    Conv2d,
    Flatten,
    Linear,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
    Tape,
)
from layers.recurrent.recurrence import Recurrence
from layers.rules import MeProp, PredictiveCoding, SignSymmetry

from .networks import convolutional, dense, gradients

RULES = {
    **{name: lambda kind=kind: kind() for name, kind in learning.names().items()},
    "sign symmetry, batchwise": lambda: SignSymmetry("batchwise"),
    "sign symmetry, fixed": lambda: SignSymmetry("fixed"),
    "meProp, of shards": lambda: MeProp(0.1, per="batch"),
    "meProp, by whole products": lambda: MeProp(0.9),
    "predictive coding, one step": lambda: PredictiveCoding(1, 1.0),
}
NETWORKS = {
    "one hidden layer": lambda rng: dense(rng, 7, 9, 4, activation=Tanh),
    "three hidden layers": lambda rng: dense(rng, 7, 9, 6, 8, 4, activation=Tanh),
    "images": convolutional,
    "an image, flat": lambda rng: Sequential(
        Flatten(), Linear(72, 9, rng=rng), ReLU(), Linear(9, 4, rng=rng)
    ).astype(np.float64),
    "sequences": lambda rng: Sequential(
        LSTM(7, 9, layers=2, last=True, rng=rng), Linear(9, 4, rng=rng)
    ).astype(np.float64),
}

PROPAGATES_TARGETS = ("target_propagation", "difference_target_propagation")


def learned(model, own, rule, x, y, rows):
    """Return the gradients that a rule gives for these rows of a batch."""
    parameters = [*model.parameters(), *(own.parameters() if own else ())]
    for parameter in parameters:
        parameter.zero_gradient()
    tape = Tape(training=True, samples=len(x), first_sample=rows.start, step=3)
    value = tape.input(x[rows], gradient=False)
    losses = rule.losses(model, SoftmaxCrossEntropy(), value, y[rows])
    if losses is None:
        losses = (SoftmaxCrossEntropy()(model(value), y[rows]),) * 2
    losses[1].backward(rule=rule)
    return [parameter.gradient.copy() for parameter in parameters]


@pytest.mark.filterwarnings("ignore:.*this is backpropagation")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", RULES)
def test_a_rank_without_samples_adds_nothing_and_draws_what_the_others_do(name, network):
    rng = np.random.default_rng(3)
    images = "image" in network
    shape = (5, 3, 7) if network == "sequences" else (5, 7)
    x = rng.standard_normal((5, 6, 6, 2) if images else shape)
    y = rng.integers(0, 4, 5)
    rules = []
    for _ in range(2):
        model, rule = NETWORKS[network](np.random.default_rng(1)), RULES[name]()
        for _, layer in model.named_layers():
            if isinstance(layer, Conv2d | Recurrence) and not isinstance(layer, rule.defined):
                pytest.skip(f"not defined for {layer!r}")
        rules.append((model, rule.bind(model), rule))
    full = learned(*rules[0], x, y, slice(0, 5))
    none = learned(*rules[1], x, y, slice(5, 5))
    assert not any(gradient.any() for gradient in none)
    assert all(map(np.array_equal, learned(*rules[1], x, y, slice(0, 5)), full))
    drawn, same = (rule.state() for _, _, rule in rules)
    assert drawn.keys() == same.keys()
    assert all(np.array_equal(drawn[key], same[key]) for key in drawn)
    model, _, rule = rules[1]
    assert rule.predictor(model)(x[5:]).shape == (0, 4)


@pytest.mark.parametrize("name", ["forward_forward", *PROPAGATES_TARGETS])
def test_a_backward_pass_from_another_loss_than_the_rules_own_is_refused(name):
    rng = np.random.default_rng(3)
    model, rule = dense(rng, 7, 9, 6, 4, activation=Tanh), learning.names()[name]()
    x, labels, criterion = rng.standard_normal((5, 7)), rng.integers(0, 4, 5), SoftmaxCrossEntropy()
    kind = type(rule).__name__
    with pytest.raises(ValueError, match=f"{kind}: the rule must be bound to the model; got none"):
        criterion(model(Tape(training=True).input(x)), labels).backward(rule=rule)
    rule.bind(model)
    for _ in range(2):
        value = Tape(training=True).input(x, gradient=False)
        other = criterion(model(value), labels)
        with pytest.raises(ValueError, match=rf"{kind}: .* begin from the losses of the rule's "):
            other.backward(rule=rule)
        _, start = rule.losses(model, criterion, value, labels)
        start.backward(rule=rule)


@pytest.mark.parametrize(
    ("criterion", "labels", "weights"),
    [
        (SoftmaxCrossEntropy(), [0, 1, 2, 3, 1], (np.arange(5.0),)),
        (SoftmaxCrossEntropy(ignore=-1), [0, -1, 2, -1, 1], ()),
        (SoftmaxCrossEntropy(ignore=100), [0, 100, 2, 3, 1], ()),
        (SoftmaxCrossEntropy(class_weights=[1, 2, 0, 1]), [0, 1, 2, 3, 1], ()),
    ],
    ids=["weights", "ignore -1", "ignore 100", "classes"],
)
@pytest.mark.parametrize("name", ["forward_forward", "direct_random_target_projection"])
def test_samples_that_do_not_count_alike_are_refused_where_they_would(
    name, criterion, labels, weights
):
    rng = np.random.default_rng(3)
    model, rule = dense(rng, 7, 9, 6, 4, activation=Tanh), learning.names()[name]()
    rule.bind(model)
    x, kind = rng.standard_normal((5, 7)), type(rule).__name__
    with pytest.raises(ValueError, match=rf"^{kind}: samples must have no weights.*; got Softmax"):
        gradients(model, x, np.array(labels), rule, lambda y, t: criterion(y, t, *weights))


def kinds(rule):
    """Return the kinds of layers that a rule defines, one of them for each kind of convolution."""
    return [Conv2d if each is not Linear else Linear for each in rule.defined]
