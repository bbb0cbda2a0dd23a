"""Losses that compare predictions x with targets t element by element, flat (N D,).

Each writes the losses of the samples (N,), the gradient dx (N D,) and the sums of each shard's losses, sums (S,), bounds (S + 1,).
"""

import numpy as np

from .jit import kernel
from .reduce import sum_shards
from .vmath import sigmoid


@kernel
def squared_error(sums, losses, dx, x, t, scale, bounds):
    """Writes losses_i = mean_j (x_ij - t_ij)^2 and dx = 2 scale (x - t)."""
    zero = losses.dtype.type(0)
    features = x.size // max(1, losses.size)
    twice = scale + scale
    for i in range(losses.size):
        total = zero
        for j in range(i * features, (i + 1) * features):
            difference = x[j] - t[j]
            total += difference * difference
            dx[j] = twice * difference
        losses[i] = total / features
    sum_shards(sums, losses, bounds)


@kernel
def binary_cross_entropy(sums, losses, dx, x, t, scale, bounds):
    """Writes losses_i = mean_j max(x_ij, 0) - x_ij t_ij + log(1 + e^-|x_ij|) and dx = scale (s(x) - t), s the logistic function."""
    zero = losses.dtype.type(0)
    features = x.size // max(1, losses.size)
    for i in range(losses.size):
        total = zero
        for j in range(i * features, (i + 1) * features):
            positive = x[j] if x[j].real > 0 else -x[j]
            total += (positive + x[j]) / 2 - x[j] * t[j] + np.log(1 + np.exp(-positive))
            dx[j] = scale * (sigmoid(x[j]) - t[j])
        losses[i] = total / features
    sum_shards(sums, losses, bounds)
