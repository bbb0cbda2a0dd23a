"""Losses that compare predictions with targets element by element. losses (N,); x predictions and t targets, flat (N D,).

sums (S,) becomes the sums of each shard's losses, bounds (S + 1,)."""

import numpy as np

from .jit import kernel
from .reduce import sum_shards
from .vmath import sigmoid


@kernel
def squared_error(sums, losses, x, t, bounds):
    """Writes losses_i = mean_j (x_ij - t_ij)^2."""
    features = x.size // max(1, losses.size)
    for i in range(losses.size):
        total = x[0] * 0
        for j in range(i * features, (i + 1) * features):
            total += (x[j] - t[j]) * (x[j] - t[j])
        losses[i] = total / features
    sum_shards(sums, losses, bounds)


@kernel
def squared_error_backward(dx, x, t, scale):
    """Writes dx = 2 scale (x - t)."""
    twice = scale + scale
    for i in range(dx.size):
        dx[i] = twice * (x[i] - t[i])


@kernel
def binary_cross_entropy(sums, losses, x, t, bounds):
    """Writes losses_i = mean_j max(x_ij, 0) - x_ij t_ij + log(1 + e^-|x_ij|)."""
    features = x.size // max(1, losses.size)
    for i in range(losses.size):
        total = x[0] * 0
        for j in range(i * features, (i + 1) * features):
            positive = x[j] if x[j].real > 0 else -x[j]
            total += (positive + x[j]) / 2 - x[j] * t[j] + np.log(1 + np.exp(-positive))
        losses[i] = total / features
    sum_shards(sums, losses, bounds)


@kernel
def binary_cross_entropy_backward(dx, x, t, scale):
    """Writes dx = scale (s(x) - t), s the logistic function."""
    for i in range(dx.size):
        dx[i] = scale * (sigmoid(x[i]) - t[i])
