"""The one memory layout that kernels are compiled for: adjacent elements, writable."""

import numpy as np

from .types import Array


def contiguous(x: Array) -> Array:
    """Return x, copied only if its memory is laid out otherwise."""
    return x if x.flags.carray else np.array(x, order="C")


def matrix(x: Array) -> Array:
    """Return x (…, D) as rows (R, D), copied only if its memory is laid out otherwise."""
    x = contiguous(x)
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def flat(x: Array) -> Array:
    """Return x as (n,), copied only if its memory is laid out otherwise."""
    x = contiguous(x)
    return x if x.ndim == 1 else x.reshape(-1)


_EMPTY = {ndim: {np.dtype(dtype): np.empty((0,) * ndim, dtype) for dtype in (np.float32, np.float64)} for ndim in (1, 2)}


def empty(like: Array, ndim: int) -> Array:
    """Return an array without elements that stands for "none" where a kernel expects one of this type."""
    return _EMPTY[ndim][like.dtype]
