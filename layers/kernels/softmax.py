"""Softmax along rows, and the losses on logits."""

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import overload

from .jit import OPTIONS, inlined, kernel
from .llvm.simd_math import exp_of_nonpositive_row
from .llvm.simd_rows import row_max, row_sum
from .llvm.vmath import constant, number
from .loss import log, log_from_one

# Rows that are taken together.
ROWS = 32
# By how much the sum of target probabilities may differ from 1.
TOLERANCE = 1e-3


def _greatest(x: Any) -> Any:
    """Return the element of x (n,) with the greatest real part."""
    raise NotImplementedError("for kernels only")


def _sum(x: Any) -> Any:
    """Return the sum of x (n,)."""
    raise NotImplementedError("for kernels only")


@overload(_greatest, jit_options=OPTIONS)
def _greatest_of(x):
    def complex_greatest(x):
        highest = x[0]
        for j in range(1, x.size):
            highest = x[j] if x[j].real > highest.real else highest
        return highest

    return complex_greatest if isinstance(x.dtype, types.Complex) else lambda x: row_max(x, x.size)


@overload(_sum, jit_options=OPTIONS)
def _sum_of(x):
    return (lambda x: x.sum()) if isinstance(x.dtype, types.Complex) else (lambda x: row_sum(x))


@inlined
def below(x, greatest):
    """Return x - greatest, which is 0 where both are the same infinity."""
    return constant(x, "zero") if x == greatest else x - greatest


@inlined
def exponentials(e, highest, totals, x):
    """Write e = e^(x - maximum of the row), the rows' maxima and the sums of e; e, x (R, C), a
    block of rows.

    A single inf is all of its row, as in the limit; with several, or nothing but -inf, there is no
    limit, and the sum is NaN. Each step is done for all rows before the next: those of one row
    alone would wait for each other.
    """
    for i in range(len(x)):
        to, of = e[i], x[i]
        greatest = _greatest(of)
        highest[i] = greatest
        for j in range(to.size):
            to[j] = below(of[j], greatest)
    flat = e.reshape(e.size)
    exp_of_nonpositive_row(flat, flat)
    for i in range(len(x)):
        total = _sum(e[i])
        totals[i] = total if total == 1 or not np.isinf(highest[i]) else number(total, np.nan)


@kernel
def softmax(y, x):
    """Writes y_ij = e^x_ij / sum_k e^x_ik; y, x (R, C)."""
    highest, totals = np.empty(ROWS, x.dtype), np.empty(ROWS, x.dtype)
    for start in range(0, len(x), ROWS):
        block = y[start : start + ROWS]
        exponentials(block, highest, totals, x[start : start + ROWS])
        for i in range(len(block)):
            row, share = block[i], constant(x, "one") / totals[i]
            for j in range(row.size):
                row[j] *= share


@kernel
def softmax_backward(dx, dy, y):
    """Writes dx_ij = y_ij (dy_ij - sum_k dy_ik y_ik); all (R, C)."""
    for i in range(len(dx)):
        dot = constant(dx, "zero")
        for k in range(dx.shape[1]):
            dot += dy[i, k] * y[i, k]
        for j in range(dx.shape[1]):
            dx[i, j] = y[i, j] * (dy[i, j] - dot)


@kernel
def log_softmax(y, x):
    """Writes y_ij = x_ij - max - log sum_k e^(x_ik - max); y, x (R, C)."""
    highest, totals = np.empty(ROWS, x.dtype), np.empty(ROWS, x.dtype)
    for start in range(0, len(x), ROWS):
        block, of = y[start : start + ROWS], x[start : start + ROWS]
        exponentials(block, highest, totals, of)
        for i in range(len(block)):
            row, seen, log_total = block[i], of[i], log_from_one(totals[i])
            for j in range(row.size):
                row[j] = below(seen[j], highest[i]) - log_total


@kernel
def log_softmax_backward(dx, dy, y):
    """Writes dx_ij = dy_ij - e^y_ij sum_k dy_ik; all (R, C)."""
    exp_of_nonpositive_row(dx.reshape(dx.size), y.reshape(y.size))
    for i in range(len(dx)):
        to, given = dx[i], dy[i]
        total = row_sum(given)
        for j in range(to.size):
            to[j] = given[j] - to[j] * total


@kernel
def cross_entropy(sums, dx, logits, labels, weights, smoothing, scale, bounds):
    """Writes dx = scale (p - t) and the sums of each shard's losses -sum_j t_ij log p_ij; p =
    softmax(logits).

    t is 1 - smoothing + smoothing/C at the label and smoothing/C elsewhere; log p_ij = x_ij - max -
    log sum e^(x - max). sums (S,), dx and logits (R, C), labels (R,), bounds (S + 1,). The loss of
    a row whose label is not in 0..C-1 is NaN. weights (R,) multiply losses and gradients of rows,
    unless empty; what a row of weight 0 holds does not matter.
    """
    classes = logits.shape[1]
    smoothing, scale = number(dx, smoothing), number(dx, scale)
    spread = smoothing / classes
    peak = constant(dx, "one") - smoothing
    highest, totals = np.empty(ROWS, dx.dtype), np.empty(ROWS, dx.dtype)
    for s in range(sums.size):
        shard = constant(sums, "zero")
        for i in range(bounds[s], bounds[s + 1]):
            r = (i - bounds[s]) % ROWS
            if r == 0:
                stop = min(i + ROWS, bounds[s + 1])
                exponentials(dx[i:stop], highest, totals, logits[i:stop])
            row, label = dx[i], labels[i]
            if weights.size and weights[i] == 0:
                row[:] = 0
                continue
            if label < 0 or label >= classes:
                shard += np.nan
                continue
            log_total = log_from_one(totals[r])
            loss = peak * (log_total - below(logits[i, label], highest[r]))
            if smoothing > 0:
                rest = constant(dx, "zero") * log_total
                for j in range(classes):
                    rest += log_total - below(logits[i, j], highest[r])
                loss += rest * spread
            factor = scale
            if weights.size:
                factor, loss = scale * weights[i], loss * weights[i]
            shard += loss
            share = constant(dx, "one") / totals[r]
            for j in range(classes):
                row[j] = factor * (row[j] * share - spread)
            row[label] -= factor * peak
        sums[s] = shard


@kernel
def soft_cross_entropy(sums, dx, logits, targets, class_weights, weights, relative, scale, bounds):
    """Writes dx_ij = scale (p_ij sum_k c_k t_ik - c_j t_ij) and the sums of each shard's losses
    -sum_j c_j t_ij log p_ij; with `relative`, sum_j c_j t_ij (log t_ij - log p_ij).

    Arguments as of `cross_entropy`, but targets t (R, C) and class weights c (C,), all 1 if empty.
    The loss of a row is NaN where a target is negative or their sum is not 1, by more than
    TOLERANCE.
    """
    scale, tolerance = number(dx, scale), number(dx, TOLERANCE)
    highest, totals = np.empty(ROWS, dx.dtype), np.empty(ROWS, dx.dtype)
    for s in range(sums.size):
        shard = constant(sums, "zero")
        for i in range(bounds[s], bounds[s + 1]):
            r = (i - bounds[s]) % ROWS
            if r == 0:
                stop = min(i + ROWS, bounds[s + 1])
                exponentials(dx[i:stop], highest, totals, logits[i:stop])
            row = dx[i]
            if weights.size and weights[i] == 0:
                row[:] = 0
                continue
            log_total = log_from_one(totals[r])
            loss = constant(dx, "zero") * log_total
            mass = constant(dx, "zero")
            least, whole = mass, mass
            for j in range(logits.shape[1]):
                target = targets[i, j]
                least = min(least, target)
                whole += target
                if class_weights.size:
                    target *= class_weights[j]
                if target != 0:
                    loss += target * (log_total - below(logits[i, j], highest[r]))
                if relative and target > 0:
                    loss += target * log(targets[i, j])
                mass += target
            factor = scale
            if weights.size:
                factor, loss = scale * weights[i], loss * weights[i]
            if not (least >= 0 and abs(whole - constant(dx, "one")) <= tolerance):
                loss *= number(dx, np.nan)
            shard += loss
            share = constant(dx, "one") / totals[r]
            for j in range(logits.shape[1]):
                target = targets[i, j]
                if class_weights.size:
                    target *= class_weights[j]
                row[j] = factor * (row[j] * share * mass - target)
        sums[s] = shard
