"""A layer whose gradients are given, so that an optimizer can be fed the same as its oracle: what
tests of optimizers share.
"""

from typing import Any

import numpy as np

import ddbp
from layers import Layer, Parameter

STEPS = 10
WEIGHT, BIAS = (60, 50), (70,)


class Given(Layer):
    """A layer whose gradients are given, so that an optimizer can be fed the same as its oracle."""

    def __init__(self, dtype: type) -> None:
        rng = np.random.default_rng(0)
        self.weight = Parameter(rng.standard_normal(WEIGHT).astype(dtype))
        self.bias = Parameter(rng.standard_normal(BIAS).astype(dtype), regularized=False)
        self.gradients: list[np.ndarray] = []

    def forward(self, call, x):
        return np.zeros((), self.weight.dtype)

    def backward(self, call, dy):
        for parameter, gradient in zip((self.weight, self.bias), self.gradients, strict=True):
            call.gradient(parameter)[...] += gradient
        return (None,)


def gradients(step: int, dtype: type) -> list[np.ndarray]:
    """Return the gradients of a step, of different sizes, with exact zeros among them."""
    rng = np.random.default_rng(100 + step)
    weight, bias = rng.standard_normal(WEIGHT), 0.01 * rng.standard_normal(BIAS)
    weight[rng.random(WEIGHT) < 0.1] = 0
    return [weight.astype(dtype), bias.astype(dtype)]


def ours(optimizer: ddbp.Optimizer, dtype: type, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias after ten steps."""
    layer = Given(dtype)
    trainer = ddbp.Trainer(
        layer, optimizer=optimizer, batch_size=1, shards=1, quiet=True, **options
    )
    x = np.zeros((1, 1), dtype)
    for step in range(STEPS):
        layer.gradients = gradients(step, dtype)
        trainer.step(layer(trainer.batch(x, x).x))
    return layer.weight.value, layer.bias.value


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare, allowing ten steps of a few roundings each of the largest element."""
    tolerance = 4 * STEPS * np.finfo(found.dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
