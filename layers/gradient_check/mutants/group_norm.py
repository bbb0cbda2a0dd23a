"""The mistakes in normalisation by groups of channels."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, Generator, real
from layers.gradient_check.cases.group_norm import normalising
from layers.group_norm import GroupNorm
from layers.types import Array

from .mutant import Gradients, Mutant, having


class _GroupsOfOne(GroupNorm):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        right = super().backward
        result: Gradients = having(
            self, "groups", self.features, lambda: right(call, dy, rectified)
        )
        return result


class _GainAfterwards(GroupNorm):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        assert self.weight is not None
        gain = self.weight.value.copy()
        self.weight.value = np.ones(self.features)
        (dx,) = super().backward(call, dy, rectified)
        self.weight.value = gain
        return (None if dx is None else dx * gain,)


class _StatisticsConstant(GroupNorm):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        assert self.weight is not None
        super().backward(call, dy, rectified)
        _, _, moments, _ = call.saved
        variance = moments[:, 1 + self.features :] / moments[:, :1]
        scale = self.weight.value / np.sqrt(variance + self.epsilon)
        return (dy * scale[:, np.newaxis, np.newaxis],)


class _FirstSampleOnly(GroupNorm):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        assert self.bias is not None
        gradients = super().backward(call, dy, rectified)
        for gradient, rows in call.shards(self.bias, dy):
            gradient -= dy[rows][1:].sum(axis=(0, 1, 2))
        return gradients


def _of(mutant: type[GroupNorm]) -> Any:
    def make(rng: Generator) -> GroupNorm:
        return normalising(mutant, 2, 6)(rng)

    return make


_IMAGES = real((BATCH, 3, 2, 6))

MUTANTS = (
    Mutant("groups of one channel in backward", _of(_GroupsOfOne), _IMAGES),
    Mutant("gain of a group applied after its means", _of(_GainAfterwards), _IMAGES),
    Mutant("statistics of a group taken for constants", _of(_StatisticsConstant), _IMAGES),
    Mutant("bias's gradient of the first sample of a shard only", _of(_FirstSampleOnly), _IMAGES),
)
