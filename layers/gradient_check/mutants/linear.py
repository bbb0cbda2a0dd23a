"""The mistakes in dense layers."""

from itertools import pairwise
from typing import Any

import numpy as np

from layers.engine import operators
from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import BATCH, Apply, Generator, dense, real
from layers.linear import Linear
from layers.types import Array

from .mutant import Gradients, Mutant

_SQUARE = real((BATCH, 4))


class _Dense(Layer):
    """y = x Wᵀ + b, right: the mutants override one method each."""

    def __init__(self, rng: Generator, inputs: int = 4, outputs: int = 4) -> None:
        self.weight = Parameter(rng.standard_normal((outputs, inputs)))
        self.bias = Parameter(rng.standard_normal(outputs))

    def forward(self, call: Any, x: Array) -> Array:
        call.save(x)
        return np.asarray(x @ self.weight.value.T + self.bias.value)

    def backward(self, call: Any, dy: Array) -> Gradients:
        self.add_weight(call, dy, call.saved[0])
        self.add_bias(call, dy)
        return (self.dx(dy),)

    def dx(self, dy: Array) -> Array:
        return np.asarray(dy @ self.weight.value)

    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        for gradient, rows in call.shards(self.weight, dy):
            gradient += dy[rows].T @ x[rows]

    def add_bias(self, call: Any, dy: Array) -> None:
        for gradient, rows in call.shards(self.bias, dy):
            gradient += dy[rows].sum(axis=0)


class _MissingTranspose(_Dense):
    def dx(self, dy: Array) -> Array:
        return np.asarray(dy @ self.weight.value.T)


class _TransposedWeight(_Dense):
    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        super().add_weight(call, x, dy)


class _DroppedBias(_Dense):
    def add_bias(self, call: Any, dy: Array) -> None:
        pass


class _OneWrongBias(_Dense):
    def add_bias(self, call: Any, dy: Array) -> None:
        super().add_bias(call, dy * np.where(np.arange(dy.shape[1]) == 37, 1.001, 1))


class _Overwriting(_Dense):
    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        for gradient, rows in call.shards(self.weight, dy):
            gradient[...] = dy[rows].T @ x[rows]


class _WrongShard(_Dense):
    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        gradients, bounds = call.gradient(self.weight), call.bounds(len(dy))
        for s, (start, stop) in enumerate(pairwise(bounds)):
            gradients[(s + 1) % len(gradients)] += dy[start:stop].T @ x[start:stop]


class _WholeBatchInEveryShard(_Dense):
    def add_bias(self, call: Any, dy: Array) -> None:
        call.gradient(self.bias)[...] += dy.sum(axis=0)


class _OffByOneRow(_Dense):
    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        super().add_weight(call, dy, np.roll(x, 1, axis=0))


class _LastRowForgotten(_Dense):
    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        super().add_weight(
            call, np.where(np.arange(len(dy))[:, np.newaxis] < len(dy) - 1, dy, 0), x
        )


class _StaleInput(_Dense):
    def forward(self, call: Any, x: Array) -> Array:
        self._x = x
        return super().forward(call, x)

    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        super().add_weight(call, dy, self._x)


class _NoInputGradient(_Dense):
    def backward(self, call: Any, dy: Array) -> Gradients:
        super().backward(call, dy)
        return (None,)


class _WritesIntoDy(_Dense):
    def backward(self, call: Any, dy: Array) -> Gradients:
        gradients = super().backward(call, dy)
        dy *= 0.5
        return gradients


class _Noisy(_Dense):
    def dx(self, dy: Array) -> Array:
        return super().dx(dy) * (1 + 1e-14 * np.random.default_rng().random(len(dy)))[:, np.newaxis]


def _truncated(cell: Linear, x: Any) -> Any:
    """Backpropagation through time that forgets what lies before the last step."""
    h = operators.tanh(cell(x[:, 0]))
    for t in range(1, 3):
        h = operators.tanh(cell(x[:, t]) + h.detach())
    return h


MUTANTS = (
    Mutant("missing transpose in the input's gradient", _MissingTranspose, _SQUARE),
    Mutant("transposed weight gradient", _TransposedWeight, _SQUARE),
    Mutant("dropped bias gradient", _DroppedBias, _SQUARE),
    Mutant("one of 60 biases off by 0.1 %", lambda rng: _OneWrongBias(rng, 4, 60), _SQUARE),
    Mutant(
        "one of 600 biases off by 0.1 %, not sampled",
        lambda rng: _OneWrongBias(rng, 1, 600),
        real((2, 1)),
    ),
    Mutant("gradient overwritten instead of added", _Overwriting, _SQUARE),
    Mutant("shard written into the wrong shard", _WrongShard, _SQUARE),
    Mutant("whole batch added to every shard", _WholeBatchInEveryShard, _SQUARE),
    Mutant("off by one row", _OffByOneRow, _SQUARE),
    Mutant("last row forgotten", _LastRowForgotten, _SQUARE),
    Mutant("input kept on the layer, stale after another call", _StaleInput, _SQUARE),
    Mutant("input's gradient not returned", _NoInputGradient, _SQUARE),
    Mutant("dy written to", _WritesIntoDy, _SQUARE),
    Mutant("random numbers in backward", _Noisy, _SQUARE),
    Mutant(
        "backpropagation through time cut short",
        lambda rng: Apply(_truncated, dense(4, 4)(rng)),
        real((BATCH, 3, 4)),
    ),
)
