"""The mistakes in activations."""

from typing import Any

import numpy as np

from layers.activation import ELU, LeakyReLU, LogSoftmax, PReLU, SiLU, Softmax, Softplus, Tanh
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


class _AlphaForgotten(ELU):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x = call.saved[0].reshape(dy.shape)
        return (dy * np.where(x > 0, 1, np.exp(np.minimum(x, 0))),)


class _BetaTwice(Softplus):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        return (None if dx is None else dx * self.beta,)


class _SlopeOfAll(PReLU):
    def backward(self, call: Any, dy: Array) -> Gradients:
        gradients = super().backward(call, dy)
        x = call.saved[0].reshape(dy.shape)
        call.gradient(self.weight)[0] += (dy * np.maximum(x, 0)).sum()
        return gradients


class _LastShardOnly(PReLU):
    def backward(self, call: Any, dy: Array) -> Gradients:
        gradients = super().backward(call, dy)
        call.gradient(self.weight)[:-1] = 0
        return gradients


class _NoTotal(LogSoftmax):
    def backward(self, call: Any, dy: Array) -> Gradients:
        y = call.saved[0].reshape(dy.shape)
        return (dy * (1 - np.exp(y)),)


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
    Mutant("alpha forgotten in backward", of(_AlphaForgotten, 0.5), off_zero(_ROWS)),
    Mutant("beta applied twice", of(_BetaTwice, 2), real(_ROWS)),
    Mutant("slope's gradient of positive elements, too", of(_SlopeOfAll), off_zero(_ROWS)),
    Mutant("slope's gradient of the last shard only", of(_LastShardOnly), off_zero(_ROWS)),
    Mutant("log softmax without its coupling", of(_NoTotal), real(_ROWS)),
    Mutant("one NaN", of(_OneNaN), real(_ROWS)),
)
