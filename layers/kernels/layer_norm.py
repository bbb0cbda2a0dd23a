"""Normalisation of every row: y = g (x - mean) / sqrt(variance + epsilon) + b. x, y, dx, dy (R, C);
gain and bias (C,), or empty: 1 and 0.

Layer normalisation (Ba et al. 2016, arXiv 1607.06450, eq. 4) if `centred`; else the mean counts as
0 (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4). `saved` (2, R) holds of each row the mean and
1 / sqrt(variance + epsilon).
"""

import numpy as np

from .jit import kernel
from .llvm.halves import wide
from .llvm.simd_rows import row_dot, row_squares, row_sum
from .llvm.vmath import constant, fma, number


@kernel
def normalize_rows(y, saved, x, gain, bias, epsilon, centred):
    """Writes y = g (x - mean) / sqrt(variance + epsilon) + b, and what is saved of each row."""
    one, zero = constant(x, "one"), constant(x, "zero")
    size, epsilon = number(x, x.shape[1]), number(x, epsilon)
    for i in range(len(x)):
        row, to = x[i], y[i]
        mean = row_sum(row) / size if centred else zero
        inverse = one / np.sqrt(row_squares(row, mean) / size + epsilon)
        # Squares that overflow would make 0 of the whole row.
        inverse = inverse if inverse > zero else number(x, np.nan)
        saved[0, i], saved[1, i] = mean, inverse
        if bias.size:
            for j in range(to.size):
                to[j] = fma((row[j] - mean) * inverse, gain[j], bias[j])
        elif gain.size:
            for j in range(to.size):
                to[j] = (row[j] - mean) * inverse * gain[j]
        else:
            for j in range(to.size):
                to[j] = (row[j] - mean) * inverse


@kernel
def normalize_rows_backward(
    dx, dw, db, work, held, dy, x, saved, feedback, bounds, centred, add_weight, add_bias
):
    """Writes dx and writes (adds, if so said) for each shard dw = sum of dy h and db = sum of dy, h
    = (x - mean) / deviation.

    dx = (u - mean of u - h mean of u h) / deviation + `held` with u = g dy; without a centre the
    mean of u is left out. `feedback` (C,) stands for g; empty: 1. work (2, C), dw and db (S, C) or
    (S, 0), bounds (S + 1,); dx (R, C), or empty if it is not wanted; held as dx, or empty for
    nothing. x may be words.
    """
    zero, size = constant(dy, "zero"), number(dy, x.shape[1])
    u, h = work[0], work[1]
    for s in range(len(dw)):
        of_gain = dw[s]
        if not add_weight:
            of_gain[:] = 0
        if not add_bias:
            db[s, :] = 0
        of_bias = db[s]
        for i in range(bounds[s], bounds[s + 1]):
            row, gradient = x[i], dy[i]
            mean, inverse = saved[0, i], saved[1, i]
            if of_gain.size:
                for j in range(h.size):
                    centred_and_scaled = (wide(row[j]) - mean) * inverse
                    h[j] = centred_and_scaled
                    u[j] = gradient[j] * feedback[j]
                    of_gain[j] = fma(gradient[j], centred_and_scaled, of_gain[j])
            else:
                for j in range(h.size):
                    h[j] = (wide(row[j]) - mean) * inverse
                    u[j] = gradient[j]
            for j in range(of_bias.size):
                of_bias[j] += gradient[j]
            if dx.size:
                to = dx[i]
                mean_of_u = row_sum(u) / size if centred else zero
                along = row_dot(u, h) / size
                for j in range(to.size):
                    to[j] = inverse * (fma(-along, h[j], u[j]) - mean_of_u)
                if held.size:
                    before = held[i]
                    for j in range(to.size):
                        to[j] += before[j]
