"""The mistakes in operators and functions on values."""

from typing import Any

import numpy as np

from layers.engine import operators
from layers.engine.layer import Layer
from layers.engine.operators.arithmetic import Where
from layers.engine.operators.elementary import Function
from layers.engine.operators.products import MatMul
from layers.engine.operators.reductions import CumulativeSum, Extreme, Mean, Norm, Product
from layers.engine.operators.shaping import BroadcastTo, Index, Pad
from layers.gradient_check.cases.case import BATCH, Apply, Generator, distinct, real
from layers.types import Array

from .mutant import Gradients, Mutant, of

_ROWS = (BATCH, 5)
_SQUARES = (BATCH, 4, 4)


class _SignOfSecond(Layer):
    def forward(self, call: Any, a: Array, b: Array) -> Array:
        return np.asarray(a - b)

    def backward(self, call: Any, dy: Array) -> Gradients:
        return dy, dy


class _LengthForgotten(Mean):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        return (None if dx is None else dx * dx.shape[1],)


class _EveryoneWins(Extreme):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.broadcast_to(dy, call.saved[0]),)


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


class _RootForgotten(Norm):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x = call.saved[0]
        return (dy.reshape(self.spread(x.shape)) * x,)


class _DividedByFactor(Product):
    def backward(self, call: Any, dy: Array) -> Gradients:
        shape, factors, before = call.saved
        dx = dy.reshape(factors.shape[1:]) * before[-1] / np.where(factors == 0, 1, factors)
        return (self.uncolumned(dx, shape),)


class _SumsFromTheStart(CumulativeSum):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.add.accumulate(dy, self.axis),)


class _PaddedOnTheOtherSide(Pad):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (cut,) = call.saved
        return (dy[tuple(slice(0, part.stop - part.start) for part in cut)],)


class _BroadcastTakenOnce(BroadcastTo):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (dy[0].reshape(call.saved[0]),)


class _SidesSwapped(Where):
    def backward(self, call: Any, dy: Array) -> Gradients:
        _, da, db = super().backward(call, dy)
        return None, db, da


class _NotTransposed(MatMul):
    def backward(self, call: Any, dy: Array) -> Gradients:
        a, b = call.saved
        return dy @ b, np.swapaxes(a, -1, -2) @ dy


def _erf_without_its_factor() -> Function:
    def erf(x: Array, y: Array) -> None:
        y[...] = operators.erf(x)

    return Function(erf, lambda x, y: np.exp(-x * x), name="erf", analytic=False)


def _chosen() -> Apply:
    choose = _SidesSwapped()
    return Apply(lambda a, b: choose(np.arange(5) > 2, a, b))


def _with_a_zero(rng: Generator) -> tuple[Array, ...]:
    x = rng.uniform(0.5, 2, _ROWS)
    x[3, 1] = 0
    return (x,)


MUTANTS = (
    Mutant("wrong sign", of(_SignOfSecond), real(_ROWS, _ROWS)),
    Mutant("length of a mean forgotten", of(_LengthForgotten, 1, True), real(_ROWS)),
    Mutant("gradient of a maximum to all", of(_EveryoneWins, 1, 1, True), distinct(_ROWS)),
    Mutant("buffer not cleared", of(_BufferNotCleared, (slice(None), slice(1, 3))), real(_ROWS)),
    Mutant("repeated index counted once", of(_RepeatsLost, (slice(None), [3, 3, 0])), real(_ROWS)),
    Mutant("root of a norm forgotten", of(_RootForgotten, 1), real(_ROWS)),
    Mutant("product divided by a factor of 0", of(_DividedByFactor, 0), _with_a_zero),
    Mutant("sums up to each, not from each on", of(_SumsFromTheStart, 1), real(_ROWS)),
    Mutant(
        "margin cut off on the other side",
        of(_PaddedOnTheOtherSide, ((0, 0), (2, 1)), 0),
        real(_ROWS),
    ),
    Mutant("broadcast taken once", of(_BroadcastTakenOnce, (3, 5)), real((1, 5))),
    Mutant("sides of a choice swapped", of(_chosen), real(_ROWS, _ROWS)),
    Mutant(
        "factor of a product not transposed", of(_NotTransposed), real((BATCH, 4, 4), (BATCH, 4, 4))
    ),
    Mutant("factor of a derivative forgotten", of(_erf_without_its_factor), real(_ROWS)),
)
