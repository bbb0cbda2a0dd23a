"""What losses share: logarithms, sums of rows over shards, and gradients brought to scale."""

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import overload

from .elementary import log_of, log_parts
from .jit import OPTIONS, inlined, kernel
from .llvm.vmath import constant, exp, number


def log(x: Any) -> Any:
    """Return the natural logarithm, of complex numbers, too."""
    raise NotImplementedError("for kernels only")


def log_from_one(x: Any) -> Any:
    """Return the natural logarithm of a finite number of at least 1, or a complex one, without
    branches; NaN stays NaN.
    """
    raise NotImplementedError("for kernels only")


def log_of_one_plus_exp(x: Any) -> Any:
    """Return log(1 + e^x) for x whose real part is at most 0."""
    raise NotImplementedError("for kernels only")


@inlined
def _log_from_one(x):
    high, _ = log_parts(x)
    return high if x == x else x


@overload(log, jit_options=OPTIONS)
def _log(x):
    if isinstance(x, types.Complex):
        return lambda x: np.log(x)
    return lambda x: number(x, log_of(np.float64(x))[0])


@overload(log_from_one, jit_options=OPTIONS)
def _log_of_at_least_one(x):
    if isinstance(x, types.Complex):
        return lambda x: np.log(x)
    return lambda x: number(x, _log_from_one(np.float64(x)))


@overload(log_of_one_plus_exp, jit_options=OPTIONS)
def _log_of_one_plus_exp(x):
    if isinstance(x, types.Complex):
        return lambda x: np.log(1 + np.exp(x))
    return lambda x: number(x, _log_from_one(1.0 + np.float64(exp(x))))


@kernel
def average_rows(sums, dx, losses, weights, scale, bounds):
    """Writes sums_s = sum_i w_i mean_k losses_ik over the rows i of each shard, in order, and dx_ij
    scale w_i into dx.

    sums (S,), dx (R, D), losses (R, K), weights (R,), all 1 if empty, bounds (S + 1,). What a row
    of weight 0 holds does not matter.
    """
    terms = max(1, losses.shape[1])
    scale = number(dx, scale)
    for s in range(sums.size):
        shard = constant(sums, "zero")
        for i in range(bounds[s], bounds[s + 1]):
            row, factor = dx[i], scale
            if weights.size:
                if weights[i] == 0:
                    row[:] = 0
                    continue
                factor = scale * weights[i]
            total = losses.dtype.type(0)
            for k in range(losses.shape[1]):
                total += losses[i, k]
            mean = total / terms
            shard += mean * weights[i] if weights.size else mean
            for j in range(row.size):
                row[j] *= factor
        sums[s] = shard


@kernel
def scale_rows(dx, weights, scale):
    """Writes dx_ij scale w_i into dx; dx (R, D), weights (R,), all 1 if empty."""
    scale = number(dx, scale)
    for i in range(len(dx)):
        row, factor = dx[i], scale
        if weights.size:
            if weights[i] == 0:
                row[:] = 0
                continue
            factor = scale * weights[i]
        for j in range(row.size):
            row[j] *= factor
