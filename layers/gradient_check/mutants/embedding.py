"""The mistakes in embeddings."""

from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import BATCH, Generator
from layers.gradient_check.cases.embedding import ids
from layers.types import Array

from .mutant import Gradients, Mutant


class _Embedding(Layer):
    """y = W[ids], right: the mutants override a part of it. Token 0 is padding."""

    def __init__(self, rng: Generator) -> None:
        self.weight = Parameter(rng.standard_normal((5, 3)))

    def forward(self, call: Any, x: Array) -> Array:
        call.save(x)
        return np.where((x == 0)[..., np.newaxis], 0, self.weight.value[x])

    def backward(self, call: Any, dy: Array) -> Gradients:
        (x,) = call.saved
        for gradient, rows in call.shards(self.weight, dy):
            self.add(gradient, x[rows].reshape(-1), dy[rows].reshape(-1, dy.shape[-1]))
        return (None,)

    def add(self, gradient: Array, x: Array, dy: Array) -> None:
        np.add.at(gradient, x, np.where((x == 0)[:, np.newaxis], 0, dy))


class _RepeatedForgotten(_Embedding):
    def add(self, gradient: Array, x: Array, dy: Array) -> None:
        gradient[x] += np.where((x == 0)[:, np.newaxis], 0, dy)


class _PaddingLearns(_Embedding):
    def add(self, gradient: Array, x: Array, dy: Array) -> None:
        np.add.at(gradient, x, dy)


class _NextToken(_Embedding):
    def add(self, gradient: Array, x: Array, dy: Array) -> None:
        super().add(gradient, np.roll(x, 1), dy)


class _Overwriting(_Embedding):
    def add(self, gradient: Array, x: Array, dy: Array) -> None:
        gradient[...] = 0
        super().add(gradient, x, dy)


MUTANTS = tuple(
    Mutant(name, make, ids(5, BATCH, 3))
    for name, make in (
        ("only the last of repeated tokens counts", _RepeatedForgotten),
        ("padding has a gradient", _PaddingLearns),
        ("gradients of the tokens one position off", _NextToken),
        ("gradient of a table is overwritten", _Overwriting),
    )
)

RIGHT = (_Embedding,)
"""What the mistakes are made in: the tests show that it passes without them."""
