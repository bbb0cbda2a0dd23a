"""The mistakes in activations."""

from typing import Any

import numpy as np

from layers.activation import LeakyReLU, SiLU, Softmax, Tanh
from layers.gradient_check.cases.case import BATCH, off_zero, real
from layers.types import Array

from .mutant import Gradients, Mutant, of

_ROWS = (BATCH, 5)


class _IgnoresDy(Tanh):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return super().backward(call, np.ones_like(dy))


class _DerivativeAtOutput(SiLU):
    def forward(self, call: Any, x: Array) -> Array:
        y = super().forward(call, x)
        call.save(y.reshape(-1))
        return y


class _DerivativeOfInput(Tanh):
    saves_output = False


class _SlopeForgotten(LeakyReLU):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.where(call.saved[0].reshape(dy.shape) > 0, dy, 0),)


class _RoughConstant(Tanh):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        return (None if dx is None else dx * (1 + 1e-7),)


class _NoCoupling(Softmax):
    def backward(self, call: Any, dy: Array) -> Gradients:
        y = call.saved[0].reshape(dy.shape)
        return (dy * y * (1 - y),)


class _OneNaN(Tanh):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        last = np.arange(dy.size).reshape(dy.shape) == dy.size - 1
        return (None if dx is None else np.where(last, np.nan, dx),)


MUTANTS = (
    Mutant("dy ignored", of(_IgnoresDy), real(_ROWS)),
    Mutant("derivative at the output instead of the input", of(_DerivativeAtOutput), real(_ROWS)),
    Mutant("derivative at the input instead of the output", of(_DerivativeOfInput), real(_ROWS)),
    Mutant("slope below 0 forgotten", of(_SlopeForgotten), off_zero(_ROWS)),
    Mutant("relative error of 1e-7", of(_RoughConstant), real(_ROWS)),
    Mutant("softmax without its coupling", of(_NoCoupling), real(_ROWS)),
    Mutant("one NaN", of(_OneNaN), real(_ROWS)),
)
