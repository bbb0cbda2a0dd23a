"""The mistakes in all layers but those of a family that has a file of its own."""

from itertools import pairwise
from typing import Any

import numpy as np

from layers.activation import LeakyReLU, SiLU, Softmax, Tanh
from layers.dropout import Dropout
from layers.engine import operators
from layers.engine.layer import Layer
from layers.engine.merge import Add, Concatenate, Multiply
from layers.engine.operators import Index, Reduce
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import (
    BATCH,
    Apply,
    Generator,
    dense,
    distinct,
    off_zero,
    real,
    values,
    with_labels,
    with_targets,
)
from layers.linear import Linear
from layers.loss import MeanSquaredError, SoftmaxCrossEntropy
from layers.residual import Residual
from layers.shortcut import PaddedShortcut
from layers.types import Array

from .mutant import Gradients, Mutant, of

# ---- a layer written with NumPy alone, that the mistakes of dense layers are made in


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
        self.x = x
        return super().forward(call, x)

    def add_weight(self, call: Any, dy: Array, x: Array) -> None:
        super().add_weight(call, dy, self.x)


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


class _MaskForgotten(Dropout):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (dy,)


class _ScaleForgotten(Dropout):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.where(call.saved[0] > 0, dy, 0),)


class _HalvedSquaredError(MeanSquaredError):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, dt = super().backward(call, dy)
        return (None if dx is None else 0.5 * dx, None if dt is None else 0.5 * dt)


class _BatchSizeForgotten(SoftmaxCrossEntropy):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, dt = super().backward(call, dy)
        return (None if dx is None else dx * len(dx), dt)


class _SmoothingForgotten(SoftmaxCrossEntropy):
    def __init__(self) -> None:
        super().__init__(0.1)

    def backward(self, call: Any, dy: Array) -> Gradients:
        logits, labels = call.inputs[0].array, call.inputs[1]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return dy * (p - np.eye(logits.shape[1])[labels]) / len(logits), None


class _SignOfSecond(Layer):
    def forward(self, call: Any, a: Array, b: Array) -> Array:
        return np.asarray(a - b)

    def backward(self, call: Any, dy: Array) -> Gradients:
        return dy, dy


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


class _OneNaN(Tanh):
    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        last = np.arange(dy.size).reshape(dy.shape) == dy.size - 1
        return (None if dx is None else np.where(last, np.nan, dx),)


class _StrideForgotten(PaddedShortcut):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx = np.zeros(call.saved[0])
        dx[:, : dy.shape[1], : dy.shape[2]] = dy[..., : self.in_channels]
        return (dx,)


def _truncated(cell: Linear, x: Any) -> Any:
    """Backpropagation through time that forgets what lies before the last step."""
    h = operators.tanh(cell(x[:, 0]))
    for t in range(1, 3):
        h = operators.tanh(cell(x[:, t]) + h.detach())
    return h


_ROWS, _SQUARE = (BATCH, 5), real((BATCH, 4))

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
    Mutant("dy ignored", of(_IgnoresDy), real(_ROWS)),
    Mutant("derivative at the output instead of the input", of(_DerivativeAtOutput), real(_ROWS)),
    Mutant("derivative at the input instead of the output", of(_DerivativeOfInput), real(_ROWS)),
    Mutant("slope below 0 forgotten", of(_SlopeForgotten), off_zero(_ROWS)),
    Mutant("relative error of 1e-7", of(_RoughConstant), real(_ROWS)),
    Mutant("softmax without its coupling", of(_NoCoupling), real(_ROWS)),
    Mutant("mask not applied", of(_MaskForgotten, 0.4), real(_ROWS)),
    Mutant("scale of the mask forgotten", of(_ScaleForgotten, 0.4), real(_ROWS)),
    Mutant("factor 2 forgotten", of(_HalvedSquaredError), with_targets(*_ROWS)),
    Mutant("1/N forgotten", of(_BatchSizeForgotten), with_labels(4, BATCH)),
    Mutant("label smoothing forgotten", of(_SmoothingForgotten), with_labels(4, BATCH)),
    Mutant("wrong sign", of(_SignOfSecond), real(_ROWS, _ROWS)),
    Mutant("broadcast not summed", of(_BroadcastNotSummed), real(_ROWS, (5,))),
    Mutant("one factor of a product forgotten", of(_OneFactorOnly), real(_ROWS, _ROWS, _ROWS)),
    Mutant("parts of a concatenation swapped", of(_PartsSwapped), real(_ROWS, _ROWS)),
    Mutant("length of a mean forgotten", of(_LengthForgotten, "mean", 1, True), real(_ROWS)),
    Mutant("gradient of a maximum to all", of(_EveryoneWins, "max", 1, True), distinct(_ROWS)),
    Mutant("buffer not cleared", of(_BufferNotCleared, (slice(None), slice(1, 3))), real(_ROWS)),
    Mutant("repeated index counted once", of(_RepeatsLost, (slice(None), [3, 3, 0])), real(_ROWS)),
    Mutant(
        "pixels of a shortcut taken without the stride",
        of(_StrideForgotten, 2, 3, 2),
        real((BATCH, 4, 4, 2)),
    ),
    Mutant("one NaN", of(_OneNaN), real(_ROWS)),
    Mutant(
        "gradient detached in a residual branch",
        lambda rng: Residual(dense(5, 5)(rng), values(lambda x: x.detach())(rng)),
        real(_ROWS),
    ),
    Mutant(
        "backpropagation through time cut short",
        lambda rng: Apply(_truncated, dense(4, 4)(rng)),
        real((BATCH, 3, 4)),
    ),
)
