"""The mistakes in pooling over time."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, Generator, distinct
from layers.time_pool import PoolOverTime
from layers.types import Array

from .mutant import Gradients, Mutant, of


class _WholeLength(PoolOverTime):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, y, valid, inputs = call.saved
        call.save(x, y, np.full_like(valid, x.shape[1]), inputs)
        return super().backward(call, dy)


class _LengthForgotten(PoolOverTime):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, *rest = super().backward(call, dy)
        steps = call.saved[2][:, np.newaxis, np.newaxis] / dy.dtype.type(4)
        return (None if dx is None else (dx * steps).astype(dy.dtype), *rest)


class _EveryMaximum(PoolOverTime):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, _, _, inputs = call.saved
        return (np.broadcast_to(dy[:, np.newaxis], x.shape), None)[:inputs]


def _ragged(rng: Generator) -> tuple[Array, ...]:
    return (*distinct((BATCH, 4, 3))(rng), np.array([4, 1, 2, 3, 4, 1, 3]))


MUTANTS = (
    Mutant("mean over the padding in backward", of(_WholeLength), _ragged),
    Mutant("last step of the padding in backward", of(_WholeLength, "last"), _ragged),
    Mutant("length of a sequence forgotten in backward", of(_LengthForgotten), _ragged),
    Mutant("gradient of a maximum over time to all", of(_EveryMaximum, "max"), _ragged),
)
