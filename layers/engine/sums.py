"""Sums of arrays over axes, in an order that depends on their shapes alone."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.kernels import reduce
from layers.types import Array

from .memory import contiguous

if TYPE_CHECKING:
    from .call import Call


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return an axis, several, or None for all, as ascending numbers from 0."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(np.lib.array_utils.normalize_axis_tuple(axis, ndim)))


def sum_over(x: Array, axes: tuple[int, ...]) -> Array:
    """Return x summed over axes (ascending, from 0), which it then lacks.

    Numbers are added in float64, each sum by itself: it does not depend on what else is summed.
    """
    if x.dtype not in (np.float32, np.float64):
        return np.asarray(x.sum(axis=axes))
    kept = tuple(size for i, size in enumerate(x.shape) if i not in axes)
    if not axes:
        return x
    if axes[-1] - axes[0] != len(axes) - 1:
        x = x.transpose(*(i for i in range(x.ndim) if i not in axes), *axes)
        axes = tuple(range(len(kept), x.ndim))
    parts = x.shape[: axes[0]], [x.shape[i] for i in axes], x.shape[axes[-1] + 1 :]
    outer, reduced, inner = map(math.prod, parts)
    y = np.empty(kept, x.dtype)
    if inner == 1:
        reduce.row_sums(y.reshape(-1), contiguous(x).reshape(outer, reduced))
    else:
        reduce.middle_sums(y.reshape(outer, inner), contiguous(x).reshape(outer, reduced, inner))
    return y


def unbroadcast(dx: Array, shape: tuple[int, ...]) -> Array:
    """Return dx summed over the axes along which an array of `shape` was broadcast."""
    if dx.shape == shape:
        return dx
    more = dx.ndim - len(shape)
    stretched = (i + more for i, n in enumerate(shape) if n == 1 and dx.shape[i + more] != 1)
    return sum_over(dx, (*range(more), *stretched)).reshape(shape)


def unbroadcast_buffer(call: "Call", name: str, dx: Array, shape: tuple[int, ...]) -> Array:
    """Return what `unbroadcast` does, in memory of a call where anything is to be summed."""
    if dx.shape == shape:
        return dx
    y = call.pooled(f"{name} summed", shape, dx.dtype)
    call.run(_write_unbroadcast, y, dx)
    return y


def _write_unbroadcast(y: Array, dx: Array) -> None:
    y[...] = unbroadcast(dx, y.shape)
