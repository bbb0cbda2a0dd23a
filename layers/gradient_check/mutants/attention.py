"""The mistakes in attention and positions."""

from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import BATCH, Generator, real
from layers.types import Array

from .mutant import Gradients, Mutant


class _Attention(Layer):
    """Causal attention of one head, y = softmax(q kᵀ / √D) v, right: the mutants override a part of
    it.
    """

    def __init__(self, rng: Generator) -> None:
        """The generator is not needed."""

    def forward(self, call: Any, q: Array, k: Array, v: Array) -> Array:
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
        scores = np.where(np.tri(q.shape[1], dtype=bool), scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        call.save(q, k, v, p)
        return np.asarray(p @ v)

    def backward(self, call: Any, dy: Array) -> Gradients:
        q, k, v, p = call.saved
        ds = self.through_softmax(dy @ v.transpose(0, 2, 1), p, q, k) / self.scale(q)
        return self.of_queries(ds, k), self.of_keys(ds, q), self.of_values(p, dy)

    def through_softmax(self, dp: Array, p: Array, q: Array, k: Array) -> Array:
        return np.asarray(p * (dp - (dp * p).sum(axis=-1, keepdims=True)))

    def scale(self, q: Array) -> float:
        return float(np.sqrt(q.shape[-1]))

    def of_queries(self, ds: Array, k: Array) -> Array:
        return ds @ k

    def of_keys(self, ds: Array, q: Array) -> Array:
        return ds.transpose(0, 2, 1) @ q

    def of_values(self, p: Array, dy: Array) -> Array:
        return p.transpose(0, 2, 1) @ dy


class _SumForgotten(_Attention):
    def through_softmax(self, dp: Array, p: Array, q: Array, k: Array) -> Array:
        return p * dp


class _SumOverQueries(_Attention):
    def through_softmax(self, dp: Array, p: Array, q: Array, k: Array) -> Array:
        return np.asarray(p * (dp - (dp * p).sum(axis=1, keepdims=True)))


class _ScaleForgotten(_Attention):
    def scale(self, q: Array) -> float:
        return 1.0


class _ScaleSquared(_Attention):
    def scale(self, q: Array) -> float:
        return float(q.shape[-1])


class _KeysNotTransposed(_Attention):
    def of_keys(self, ds: Array, q: Array) -> Array:
        return ds @ q


class _ValuesNotTransposed(_Attention):
    def of_values(self, p: Array, dy: Array) -> Array:
        return p @ dy


class _QueriesForKeys(_Attention):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dq, dk, dv = super().backward(call, dy)
        return dk, dq, dv


class _MaskForgottenBackwards(_Attention):
    def through_softmax(self, dp: Array, p: Array, q: Array, k: Array) -> Array:
        whole = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
        return super().through_softmax(dp, whole / whole.sum(axis=-1, keepdims=True), q, k)


class _FirstBlockOnly(_Attention):
    """What forgets to add up over blocks of keys does."""

    def of_queries(self, ds: Array, k: Array) -> Array:
        return ds[:, :, :2] @ k[:, :2]


class _Positions(Layer):
    """y[n, t] = x[n, t] + w[t]."""

    def __init__(self, rng: Generator) -> None:
        self.weight = Parameter(rng.standard_normal((4, 3)))

    def forward(self, call: Any, x: Array) -> Array:
        return np.asarray(x + self.weight.value)

    def backward(self, call: Any, dy: Array) -> Gradients:
        for gradient, rows in call.shards(self.weight, dy):
            gradient += self.shifted(dy[rows]).sum(axis=0)
        return (dy,)

    def shifted(self, dy: Array) -> Array:
        return dy


class _NextPosition(_Positions):
    def shifted(self, dy: Array) -> Array:
        return np.roll(dy, 1, axis=1)


_SEQUENCES = real((BATCH, 4, 3), (BATCH, 4, 3), (BATCH, 4, 3))

MUTANTS = (
    *(
        Mutant(name, make, _SEQUENCES)
        for name, make in (
            ("sum over keys forgotten in the gradient of attention", _SumForgotten),
            ("sum over queries instead of keys in the gradient of attention", _SumOverQueries),
            ("scale forgotten in the gradient of attention", _ScaleForgotten),
            ("scale taken twice in the gradient of attention", _ScaleSquared),
            ("keys' gradient not transposed", _KeysNotTransposed),
            ("values' gradient not transposed", _ValuesNotTransposed),
            ("queries and keys exchanged", _QueriesForKeys),
            ("causal mask forgotten backwards", _MaskForgottenBackwards),
            ("only the first block of keys backwards", _FirstBlockOnly),
        )
    ),
    Mutant("gradient of the next position", _NextPosition, real((BATCH, 4, 3))),
)

RIGHT = ((_Attention, _SEQUENCES), (_Positions, real((BATCH, 4, 3))))
"""What the mistakes are made in: the tests show that it passes without them."""
