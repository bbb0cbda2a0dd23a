"""The mistakes in pooling of volumes."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, distinct, layer, real
from layers.kernels import pool
from layers.pool_volume import AvgPool3d, MaxPool3d
from layers.types import Array

from .mutant import Gradients, Mutant


class _SlicesExchanged(MaxPool3d):
    """Gives the gradient of each slice to the one after it."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        (dx,) = super().backward(call, dy)
        return (None if dx is None else np.roll(dx, 1, axis=1),)


class _EverySliceServed(MaxPool3d):
    """Gives the gradient to the maximum of each slice under a window."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        x, slices, _, y = call.saved
        of_slice, _ = self.windows(x)
        dslices = np.repeat(dy.reshape(y.shape), self.kernel_size[0], axis=1).reshape(slices.shape)
        dx = np.empty_like(x)
        images = (part.reshape(-1, *x.shape[2:]) for part in (dx, x))
        to, of = images
        pool.maximum_backward(to, dslices, slices, of, *of_slice, False)
        return (dx,)


class _DepthNotCounted(AvgPool3d):
    """Divides by the size of a slice's window alone."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        return super().backward(call, dy * self.kernel_size[0])


_VOLUME = (BATCH, 4, 2, 4, 2)

MUTANTS = (
    Mutant("slices of a pooled volume exchanged", layer(_SlicesExchanged, 2), distinct(_VOLUME)),
    Mutant("maximum of every slice served", layer(_EverySliceServed, 2), distinct(_VOLUME)),
    Mutant("depth of a window not counted", layer(_DepthNotCounted, 2), real(_VOLUME)),
)
