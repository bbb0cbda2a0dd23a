"""The mistakes in operators and functions on values."""

from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.operators import Index, Reduce
from layers.gradient_check.cases.case import BATCH, distinct, real
from layers.types import Array

from .mutant import Gradients, Mutant, of

_ROWS = (BATCH, 5)


class _SignOfSecond(Layer):
    def forward(self, call: Any, a: Array, b: Array) -> Array:
        return np.asarray(a - b)

    def backward(self, call: Any, dy: Array) -> Gradients:
        return dy, dy


class _LengthForgotten(Reduce):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        return (None if dx is None else dx * dx.shape[1],)


class _EveryoneWins(Reduce):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.broadcast_to(dy, call.saved[0].shape),)


class _BufferNotCleared(Index):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx = call.buffer("dx", call.saved[0], dy.dtype)
        np.add.at(dx, self.key, dy)
        return (dx,)


class _RepeatsLost(Index):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx = np.zeros(call.saved[0], dy.dtype)
        dx[self.key] += dy
        return (dx,)


MUTANTS = (
    Mutant("wrong sign", of(_SignOfSecond), real(_ROWS, _ROWS)),
    Mutant("length of a mean forgotten", of(_LengthForgotten, "mean", 1, True), real(_ROWS)),
    Mutant("gradient of a maximum to all", of(_EveryoneWins, "max", 1, True), distinct(_ROWS)),
    Mutant("buffer not cleared", of(_BufferNotCleared, (slice(None), slice(1, 3))), real(_ROWS)),
    Mutant("repeated index counted once", of(_RepeatsLost, (slice(None), [3, 3, 0])), real(_ROWS)),
)
