"""The mistakes in pooling."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, distinct, real
from layers.kernels import pool
from layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAveragePool, MaxPool2d
from layers.types import Array

from .mutant import Gradients, Mutant, of


class _EveryoneWins(MaxPool2d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        x = call.saved[0]
        dx = np.empty_like(x)
        pool.mean_backward(dx, dy, *self.windows(x))
        return (dx,)


class _CountedOnce(MaxPool2d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        (dx,) = super().backward(call, dy)
        (counts,) = super().backward(call, np.ones_like(dy))
        return (None if dx is None or counts is None else dx / np.maximum(counts, 1),)


class _PaddingForgotten(MaxPool2d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        x, y = call.saved
        dx = np.zeros_like(x)
        rows, columns, cover = self.windows(x)
        for table, length in ((rows, x.shape[1]), (columns, x.shape[2])):
            table[:, 0] = np.arange(len(table)) * self.stride[0]
            table[:, 1] = np.minimum(self.kernel_size[0], length - table[:, 0])
        pool.maximum_backward(dx, dy, y, x, rows, columns, cover, False)
        return (dx,)


class _LeftOverNotCleared(MaxPool2d):
    def backward(self, call: Any, dy: Array, rectified: bool = False) -> Gradients:
        (dx,) = super().backward(call, dy)
        assert dx is not None
        dx[:, self.kernel_size[0] * dy.shape[1] :] = 1
        return (dx,)


class _GateForgotten(MaxPool2d):
    def forward(self, call: Any, x: Array, rectified: bool = True) -> Array:
        return super().forward(call, x, rectified)

    def backward(self, call: Any, dy: Array, rectified: bool = True) -> Gradients:
        x, y = call.saved
        dx = np.empty_like(x)
        pool.maximum_backward(dx, dy, y, np.maximum(x, 0), *self.windows(x), False)
        return (dx,)


class _PaddingCounted(AvgPool2d):
    def backward(self, call: Any, dy: Array) -> Gradients:
        shape, _ = call.saved
        dx, other = np.empty(shape), AvgPool2d(self.kernel_size, self.stride, self.padding, False)
        pool.mean_backward(dx, dy, *other.windows(dx))
        return (dx,)


class _OverlapNotSummed(AvgPool2d):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx = np.zeros(call.saved[0])
        (kh, kw), (sh, sw) = self.kernel_size, self.stride
        for i, j in np.ndindex(dy.shape[1:3]):
            dx[:, i * sh : i * sh + kh, j * sw : j * sw + kw] = dy[
                :, i, j, np.newaxis, np.newaxis
            ] / (kh * kw)
        return (dx,)


class _AreaForgotten(GlobalAveragePool):
    def backward(self, call: Any, dy: Array) -> Gradients:
        return (np.broadcast_to(dy[:, np.newaxis, np.newaxis], call.saved[0]),)


class _EqualBins(AdaptiveAvgPool2d):
    def backward(self, call: Any, dy: Array) -> Gradients:
        for table in call.saved[1][:2]:
            table[:, 2] = max(table[:, 2])
        return super().backward(call, dy)


_IMAGES = (BATCH, 5, 5, 2)

MUTANTS = (
    Mutant("gradient of a pooled maximum to all", of(_EveryoneWins, 2), distinct(_IMAGES)),
    Mutant("maximum of several windows counted once", of(_CountedOnce, 3, 1), distinct(_IMAGES)),
    Mutant("padding forgotten in backward", of(_PaddingForgotten, 3, 2, 1), distinct(_IMAGES)),
    Mutant("pixels under no window not cleared", of(_LeftOverNotCleared, 2), distinct(_IMAGES)),
    Mutant(
        "gate of a joined ReLU forgotten",
        of(_GateForgotten, 2),
        distinct(_IMAGES),
    ),
    Mutant("padding counted in one direction only", of(_PaddingCounted, 3, 2, 1), real(_IMAGES)),
    Mutant("overlapping windows not summed", of(_OverlapNotSummed, 3, 1), real(_IMAGES)),
    Mutant("1/(H W) forgotten", of(_AreaForgotten), real(_IMAGES)),
    Mutant("all bins divided by the size of the largest", of(_EqualBins, 3), real(_IMAGES)),
)
