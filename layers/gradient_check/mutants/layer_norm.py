"""The mistakes in layer normalisation."""

from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import BATCH, Generator, real
from layers.types import Array

from .mutant import Gradients, Mutant


class _LayerNorm(Layer):
    """y = g h + b, right: the mutants override a part of it."""

    def __init__(self, rng: Generator, features: int = 5) -> None:
        self.gain = Parameter(rng.uniform(0.5, 1.5, features))
        self.bias = Parameter(rng.standard_normal(features))

    def forward(self, call: Any, x: Array) -> Array:
        inverse = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        h = (x - x.mean(axis=-1, keepdims=True)) * inverse
        call.save(h, inverse, x)
        return np.asarray(self.gain.value * h + self.bias.value)

    def backward(self, call: Any, dy: Array) -> Gradients:
        h, inverse, x = call.saved
        for gradient, rows in call.shards(self.gain, dy):
            gradient += self.of_gain(dy[rows], h[rows], x[rows]).sum(axis=0)
        for gradient, rows in call.shards(self.bias, dy):
            gradient += dy[rows].sum(axis=0)
        u = self.through_gain(dy)
        return (self.of_input(u, h, inverse),)

    def of_gain(self, dy: Array, h: Array, x: Array) -> Array:
        return dy * h

    def through_gain(self, dy: Array) -> Array:
        return dy * self.gain.value

    def of_input(self, u: Array, h: Array, inverse: Array) -> Array:
        return np.asarray(
            (u - self.of_mean(u) - h * (u * h).mean(axis=-1, keepdims=True)) * inverse
        )

    def of_mean(self, u: Array) -> Array:
        return np.asarray(u.mean(axis=-1, keepdims=True))


class _MeanForgotten(_LayerNorm):
    def of_mean(self, u: Array) -> Array:
        return np.zeros_like(u)


class _VarianceForgotten(_LayerNorm):
    def of_input(self, u: Array, h: Array, inverse: Array) -> Array:
        return np.asarray((u - self.of_mean(u)) * inverse)


class _OverTheBatch(_LayerNorm):
    def of_mean(self, u: Array) -> Array:
        return np.asarray(u.mean(axis=0))


class _GainForgotten(_LayerNorm):
    def through_gain(self, dy: Array) -> Array:
        return dy


class _GainOfInput(_LayerNorm):
    def of_gain(self, dy: Array, h: Array, x: Array) -> Array:
        return dy * x


class _ScaleForgotten(_LayerNorm):
    def of_input(self, u: Array, h: Array, inverse: Array) -> Array:
        return super().of_input(u, h, np.ones_like(inverse))


_ROWS = real((BATCH, 5))

MUTANTS = (
    Mutant("gradient through a row's mean forgotten", _MeanForgotten, _ROWS),
    Mutant("gradient through a row's variance forgotten", _VarianceForgotten, _ROWS),
    Mutant("mean over the batch instead of the features", _OverTheBatch, _ROWS),
    Mutant("gain of a row forgotten in the input's gradient", _GainForgotten, _ROWS),
    Mutant("gain's gradient with the input instead of the normalised row", _GainOfInput, _ROWS),
    Mutant("deviation of a row forgotten in the input's gradient", _ScaleForgotten, _ROWS),
)

RIGHT = (_LayerNorm,)
"""What the mistakes are made in: the tests show that it passes without them."""
