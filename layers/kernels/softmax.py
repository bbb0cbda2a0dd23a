"""Softmax along rows, and the losses on logits."""

import numpy as np

from .jit import inlined, kernel
from .reduce import sum_shards
from .vmath import constant, exp


@inlined
def _row_softmax(p, x):
    """Write p = softmax(x) for one row; return its maximum and the sum of e^(x - maximum)."""
    highest = x[0]
    for j in range(1, x.size):
        highest = x[j] if x[j].real > highest.real else highest
    total = exp(x[0] - highest)
    p[0] = total
    for j in range(1, x.size):
        p[j] = exp(x[j] - highest)
    for j in range(1, x.size):
        total += p[j]
    for j in range(x.size):
        p[j] /= total
    return highest, total


@kernel
def softmax(y, x):
    """Writes y_ij = e^x_ij / sum_k e^x_ik; y, x (R, C)."""
    for i in range(len(x)):
        _row_softmax(y[i], x[i])


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
def cross_entropy(sums, loss, dx, invalid, logits, labels, smoothing, scale, bounds):
    """Writes loss_i = -sum_j t_ij log p_ij, dx = scale (p - t) and the sums of each shard's losses; p = softmax(logits).

    t is 1 - smoothing + smoothing/C at the label and smoothing/C elsewhere; log p_ij = x_ij - max - log sum e^(x - max). loss (R,),
    dx and logits (R, C), labels (R,), sums (S,), bounds (S + 1,); invalid[0] becomes 1 + the first row whose label is not in
    0..C-1, 0 if there is none.
    """
    invalid[0] = 0
    classes = logits.shape[1]
    spread = smoothing / classes
    peak = constant(dx, "one") - smoothing
    for i in range(len(logits)):
        row = dx[i]
        highest, total = _row_softmax(row, logits[i])
        label = labels[i]
        if label < 0 or label >= classes:
            if invalid[0] == 0:
                invalid[0] = i + 1
            continue
        log_total = np.log(total)
        value = peak * (log_total - (logits[i, label] - highest))
        if smoothing > 0:
            rest = constant(dx, "zero") * log_total
            for j in range(classes):
                rest += log_total - (logits[i, j] - highest)
            value += rest * spread
        loss[i] = value
        for j in range(classes):
            row[j] = scale * (row[j] - spread)
        row[label] -= scale * peak
    sum_shards(sums, loss, bounds)


@kernel
def soft_cross_entropy(sums, loss, dx, logits, targets, scale, bounds):
    """Writes loss_i = -sum_j t_ij log p_ij, dx_ij = scale (p_ij sum_k t_ik - t_ij) and the sums of each shard's losses.

    Arguments as of `cross_entropy`, but targets t (R, C).
    """
    for i in range(len(logits)):
        row = dx[i]
        highest, total = _row_softmax(row, logits[i])
        log_total = np.log(total)
        value = constant(dx, "zero") * log_total
        mass = constant(dx, "zero")
        for j in range(logits.shape[1]):
            value += targets[i, j] * (log_total - (logits[i, j] - highest))
            mass += targets[i, j]
        loss[i] = value
        for j in range(logits.shape[1]):
            row[j] = scale * (row[j] * mass - targets[i, j])
    sum_shards(sums, loss, bounds)
