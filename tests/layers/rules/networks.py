"""What tests of rules share: networks in float64, and passes on their own tapes."""

from itertools import pairwise

import numpy as np

import layers
from layers import (
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tape,
)

WIDTHS = (7, 9, 6, 4)


def dense(rng, *widths, activation=None, bias=True):
    """Return dense layers of these widths in float64, with an activation between them."""
    parts = []
    for inputs, outputs in pairwise(widths):
        init = {"bias_init": layers.init.normal(1)} if bias else {"bias": False}
        parts += [Linear(inputs, outputs, rng=rng, dtype=np.float64, **init)]
        parts += [activation()] if activation else []
    return Sequential(*(parts[:-1] if activation else parts))


def convolutional(rng):
    """Return convolutions, of which one runs as one call with its pooling, and a dense layer."""
    return Sequential(
        Conv2d(2, 3, 3, rng=rng, padding=1),
        ReLU(),
        MaxPool2d(2),
        Conv2d(3, 4, 2, rng=rng),
        ReLU(),
        Flatten(),
        Linear(16, 4, rng=rng),
    ).astype(np.float64)


def gradients(model, x, target, rule=None, loss=None, **options):
    """Return the gradients of all parameters, of a batch on a new tape."""
    for parameter in model.parameters():
        parameter.forget_gradients()
    if loss is None:
        loss = SoftmaxCrossEntropy() if target.dtype.kind == "i" else MeanSquaredError()
    value = Tape(training=True, **options).input(x, gradient=False)
    own = None if rule is None else rule.losses(model, loss, value, target)
    (loss(model(value), target) if own is None else own[1]).backward(rule=rule)
    return [parameter.gradient.copy() for parameter in model.parameters()]


def angle(a, b):
    """Return the angle in degrees between two arrays."""
    cosine = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    return np.degrees(np.arccos(cosine))
