"""The mistakes in batch normalisation."""

from itertools import pairwise
from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.engine.state import State
from layers.gradient_check.cases.case import BATCH, Generator, real
from layers.types import Array

from .mutant import Gradients, Mutant


class _Normalisation(Layer):
    """y = g x̂ + b with the statistics of each shard, right: the mutants override a part of it."""

    def __init__(self, rng: Generator, features: int = 4) -> None:
        self.gain = Parameter(rng.uniform(0.5, 1.5, features))
        self.bias = Parameter(rng.standard_normal(features))
        self.running_mean = State(np.zeros(features))

    def forward(self, call: Any, x: Array) -> Array:
        normalised, inverse = np.empty_like(x), np.empty_like(x)
        for start, stop in pairwise(call.bounds(len(x))):
            part = x[start:stop]
            inverse[start:stop] = 1 / np.sqrt(part.var(axis=0) + 1e-5)
            normalised[start:stop] = (part - part.mean(axis=0)) * inverse[start:stop]
        call.save(normalised, inverse, x)
        return np.asarray(self.gain.value * normalised + self.bias.value)

    def backward(self, call: Any, dy: Array) -> Gradients:
        normalised, inverse, x = call.saved
        for gradient, rows in call.shards(self.gain, dy):
            gradient += self.of_gain(dy[rows], normalised[rows], x[rows])
        for gradient, rows in call.shards(self.bias, dy):
            gradient += dy[rows].sum(axis=0)
        dx = np.empty_like(dy)
        for start, stop in pairwise(self.groups(call, dy)):
            dx[start:stop] = self.of_input(
                dy[start:stop], normalised[start:stop], inverse[start:stop]
            )
        return (dx,)

    def groups(self, call: Any, dy: Array) -> Array:
        """Return the bounds of the rows that share statistics."""
        return np.asarray(call.bounds(len(dy)))

    def of_gain(self, dy: Array, normalised: Array, x: Array) -> Array:
        return np.asarray((dy * normalised).sum(axis=0))

    def of_input(self, dy: Array, normalised: Array, inverse: Array) -> Array:
        return np.asarray(
            self.gain.value
            * inverse
            * (dy - self.through_mean(dy) - self.through_variance(dy, normalised))
        )

    def through_mean(self, dy: Array) -> Array:
        return np.asarray(dy.mean(axis=0))

    def through_variance(self, dy: Array, normalised: Array) -> Array:
        return np.asarray(normalised * (dy * normalised).mean(axis=0))


class _MeanForgotten(_Normalisation):
    def through_mean(self, dy: Array) -> Array:
        return np.zeros_like(dy)


class _VarianceForgotten(_Normalisation):
    def through_variance(self, dy: Array, normalised: Array) -> Array:
        return np.zeros_like(dy)


class _SizeForgotten(_Normalisation):
    def through_mean(self, dy: Array) -> Array:
        return np.asarray(dy.sum(axis=0))


class _UnbiasedVariance(_Normalisation):
    def through_variance(self, dy: Array, normalised: Array) -> Array:
        return super().through_variance(dy, normalised) * len(dy) / (len(dy) - 1)


class _GainForgotten(_Normalisation):
    def of_input(self, dy: Array, normalised: Array, inverse: Array) -> Array:
        return super().of_input(dy, normalised, inverse) / self.gain.value


class _ScaleForgotten(_Normalisation):
    def of_input(self, dy: Array, normalised: Array, inverse: Array) -> Array:
        return super().of_input(dy, normalised, inverse) / inverse


class _GainOfInput(_Normalisation):
    def of_gain(self, dy: Array, normalised: Array, x: Array) -> Array:
        return np.asarray((dy * x).sum(axis=0))


class _WholeBatchBackwards(_Normalisation):
    def groups(self, call: Any, dy: Array) -> Array:
        return np.array((0, len(dy)))


class _OwnShardBackwards(_Normalisation):
    """The synchronised one: statistics over all shards, but sums of the own shard backwards."""

    def forward(self, call: Any, x: Array) -> Array:
        inverse = np.broadcast_to(1 / np.sqrt(x.var(axis=0) + 1e-5), x.shape)
        normalised = (x - x.mean(axis=0)) * inverse
        call.save(normalised, inverse, x)
        return np.asarray(self.gain.value * normalised + self.bias.value)


class _OneMeanForAllShards(_Normalisation):
    def forward(self, call: Any, x: Array) -> Array:
        y = super().forward(call, x)
        return np.asarray(y + x.mean(axis=0) - x[: call.bounds(len(x))[1]].mean(axis=0))


class _Rectified(_Normalisation):
    """The right one with a ReLU in the same call."""

    def forward(self, call: Any, x: Array) -> Array:
        y = np.maximum(super().forward(call, x), 0)
        call.save(*call.saved, y)
        return np.asarray(y)

    def backward(self, call: Any, dy: Array) -> Gradients:
        *saved, y = call.saved
        call.saved = tuple(saved)
        try:
            return super().backward(call, self.gated(dy, y))
        finally:
            call.saved = (*saved, y)

    def gated(self, dy: Array, y: Array) -> Array:
        return np.where(y > 0, dy, 0)


class _GateIgnored(_Rectified):
    def gated(self, dy: Array, y: Array) -> Array:
        return dy


class _OutputDependsOnState(_Normalisation):
    def forward(self, call: Any, x: Array) -> Array:
        self.running_mean.value = 0.9 * self.running_mean.value + 0.1 * x.mean(axis=0)
        return np.asarray(super().forward(call, x) + self.running_mean.value)


_ROWS = real((BATCH, 4))

MUTANTS = (
    Mutant("gradient through the mean forgotten", _MeanForgotten, _ROWS),
    Mutant("gradient through the variance forgotten", _VarianceForgotten, _ROWS),
    Mutant("1/N of the mean's gradient forgotten", _SizeForgotten, _ROWS),
    Mutant("unbiased variance in the gradient of the biased one", _UnbiasedVariance, _ROWS),
    Mutant("gain forgotten in the input's gradient", _GainForgotten, _ROWS),
    Mutant("deviation forgotten in the input's gradient", _ScaleForgotten, _ROWS),
    Mutant("gain's gradient with the input instead of the normalised one", _GainOfInput, _ROWS),
    Mutant("sums of the whole batch in the gradient of a shard", _WholeBatchBackwards, _ROWS),
    Mutant("sums of a shard in the gradient of synchronised statistics", _OwnShardBackwards, _ROWS),
    Mutant("mean of one shard taken for all", _OneMeanForAllShards, _ROWS),
    Mutant("gate of the joined ReLU ignored", _GateIgnored, _ROWS),
    Mutant("output that depends on running statistics", _OutputDependsOnState, _ROWS),
)

RIGHT = (_Normalisation, _Rectified)
"""What the mistakes are made in: the tests show that it passes without them."""
