"""The one memory layout that kernels are compiled for: adjacent elements, aligned, writable. They
refuse any other (`layers.kernels.linking`).
"""

import math
from typing import Any

import numpy as np

from layers.checks import without_room
from layers.kernels.machine import CACHE_LINE
from layers.types import Array


def allocated(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an uninitialised array.

    Raises
    ------
    MemoryError
        There is no room for it.
    """
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise without_room("layers", shape) from error


def room(size: int) -> Array:
    """Return so many uninitialised bytes that begin at a cache line, as an array that its views
    refer to.
    """
    owner = allocated((size + CACHE_LINE,), np.uint8)
    start = -owner.ctypes.data % CACHE_LINE
    # By way of its buffer, or views of the result would refer to `owner`.
    return np.frombuffer(owner[start : start + size].data, np.uint8) if size else owner[:0]


def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros that begin at a cache line."""
    result: Array = room(math.prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    result[...] = 0
    return result


def contiguous(x: Any, dtype: Any = None) -> Array:
    """Return x (in a dtype, if one is given), copied only if its memory is laid out otherwise."""
    if dtype is not None and x.dtype != dtype:
        return np.array(x, dtype, order="C")
    return x if x.flags.carray else np.array(x, order="C")


def matrix(x: Array) -> Array:
    """Return x (…, D) as rows (R, D), copied only if its memory is laid out otherwise; a vector is
    one row.
    """
    if x.ndim == 2 and x.flags.carray:
        return x
    return contiguous(x).reshape(-1, x.shape[-1])


def flat(x: Array) -> Array:
    """Return x as (n,), copied only if its memory is laid out otherwise."""
    if x.ndim == 1 and x.flags.carray:
        return x
    return contiguous(x).reshape(-1)


_EMPTY = {
    ndim: {np.dtype(dtype): np.empty((0,) * ndim, dtype) for dtype in (np.float32, np.float64)}
    for ndim in (1, 2, 3)
}


def empty(like: Array, ndim: int) -> Array:
    """Return an array without elements that stands for "none" where a kernel expects one of this
    type.
    """
    return _EMPTY[ndim][like.dtype]
