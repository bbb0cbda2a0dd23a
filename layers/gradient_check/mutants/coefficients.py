"""The mistakes in trained numbers."""

from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import BATCH, Generator, real
from layers.types import Array

from .mutant import Gradients, Mutant


class _Coefficients(Layer):
    """y[n] = w, right: the mutants override a part of it."""

    def __init__(self, rng: Generator) -> None:
        self.values = Parameter(rng.standard_normal((3, 5)))

    def forward(self, call: Any, x: Array) -> Array:
        return np.repeat(self.values.value[np.newaxis], len(x), axis=0)

    def backward(self, call: Any, dy: Array) -> Gradients:
        for gradient, rows in call.shards(self.values, dy):
            self.add(gradient, dy[rows])
        return (None,)

    def add(self, gradient: Array, dy: Array) -> None:
        gradient += dy.sum(axis=0)


class _Mean(_Coefficients):
    def add(self, gradient: Array, dy: Array) -> None:
        gradient += dy.mean(axis=0)


class _FirstSample(_Coefficients):
    def add(self, gradient: Array, dy: Array) -> None:
        gradient += dy[0]


class _Overwriting(_Coefficients):
    def add(self, gradient: Array, dy: Array) -> None:
        gradient[...] = dy.sum(axis=0)


MUTANTS = tuple(
    Mutant(name, make, real((BATCH, 2)))
    for name, make in (
        ("mean over samples in place of the sum", _Mean),
        ("only the first sample counts", _FirstSample),
        ("gradient of coefficients is overwritten", _Overwriting),
    )
)

RIGHT = (_Coefficients,)
"""What the mistakes are made in: the tests show that it passes without them."""
