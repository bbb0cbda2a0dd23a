"""The mistakes in layers that join several inputs."""

from typing import Any

from layers.engine.merge import Add, Concatenate, Multiply
from layers.gradient_check.cases.case import BATCH, real
from layers.types import Array

from .mutant import Gradients, Mutant, of

_ROWS = (BATCH, 5)


class _BroadcastNotSummed(Add):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return dy, dy[0]


class _OneFactorOnly(Multiply):
    def backward(self, call: Any, dy: Array) -> Gradients:
        a, b, c = call.saved
        return dy * b * c, dy * a * c, dy * a


class _PartsSwapped(Concatenate):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return super().backward(call, dy)[::-1]


MUTANTS = (
    Mutant("broadcast not summed", of(_BroadcastNotSummed), real(_ROWS, (5,))),
    Mutant("one factor of a product forgotten", of(_OneFactorOnly), real(_ROWS, _ROWS, _ROWS)),
    Mutant("parts of a concatenation swapped", of(_PartsSwapped), real(_ROWS, _ROWS)),
)
