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
def cross_entropy(sums, loss, p, invalid, logits, labels, smoothing, bounds):
    """Writes loss_i = -sum_j t_ij log p_ij and p = softmax(logits).

    Writes also the sums of each shard's losses, sums (S,) and bounds (S + 1,). t is 1 - smoothing + smoothing/C at the label and
    smoothing/C elsewhere. loss (R,), p and logits (R, C), labels (R,); invalid[0]
    becomes 1 + the first row whose label is not in 0..C-1, 0 if there is none. log p_ij = x_ij - max - log sum e^(x - max).
    """
    invalid[0] = 0
    classes = logits.shape[1]
    for i in range(len(logits)):
        highest, total = _row_softmax(p[i], logits[i])
        label = labels[i]
        if label < 0 or label >= classes:
            if invalid[0] == 0:
                invalid[0] = i + 1
            continue
        log_total = np.log(total)
        value = log_total - (logits[i, label] - highest)
        if smoothing > 0:
            value *= 1 - smoothing
            rest = constant(p, "zero") * log_total
            for j in range(classes):
                rest += log_total - (logits[i, j] - highest)
            value += rest * (smoothing / classes)
        loss[i] = value
    sum_shards(sums, loss, bounds)


@kernel
def cross_entropy_backward(dx, p, labels, smoothing, scale):
    """Writes dx_ij = scale (p_ij - t_ij), t as in `cross_entropy`."""
    classes = dx.shape[1]
    one = constant(dx, "one")
    spread = smoothing / classes
    for i in range(len(dx)):
        for j in range(classes):
            dx[i, j] = scale * (p[i, j] - spread)
        dx[i, labels[i]] -= scale * (one - smoothing)


@kernel
def soft_cross_entropy(sums, loss, p, logits, targets, bounds):
    """Writes loss_i = -sum_j t_ij log p_ij and p = softmax(logits) for targets t (R, C), and the sums of each shard's losses."""
    for i in range(len(logits)):
        highest, total = _row_softmax(p[i], logits[i])
        log_total = np.log(total)
        value = constant(p, "zero") * log_total
        for j in range(logits.shape[1]):
            value += targets[i, j] * (log_total - (logits[i, j] - highest))
        loss[i] = value
    sum_shards(sums, loss, bounds)


@kernel
def soft_cross_entropy_backward(dx, p, targets, scale):
    """Writes dx_ij = scale (p_ij sum_k t_ik - t_ij)."""
    for i in range(len(dx)):
        mass = constant(dx, "zero")
        for j in range(dx.shape[1]):
            mass += targets[i, j]
        for j in range(dx.shape[1]):
            dx[i, j] = scale * (p[i, j] * mass - targets[i, j])
