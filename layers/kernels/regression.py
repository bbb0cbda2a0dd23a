"""Losses that compare predictions x with targets t element by element, flat (N D,).

Each writes the sums of each shard's losses (S,) and the gradient dx (N D,); bounds (S + 1,) count
samples.
"""

import numpy as np

from .jit import kernel
from .llvm.vmath import constant, number, sigmoid


@kernel
def squared_error(sums, dx, x, t, scale, bounds):
    """Writes the sums of mean_j (x_ij - t_ij)^2 and dx = 2 scale (x - t)."""
    features = x.size // max(1, bounds[-1])
    twice = 2 * number(dx, scale)
    for s in range(sums.size):
        shard = constant(sums, "zero")
        for i in range(bounds[s], bounds[s + 1]):
            total = x.dtype.type(0)
            for j in range(i * features, (i + 1) * features):
                difference = x[j] - t[j]
                total += difference * difference
                dx[j] = twice * difference
            shard += total / features
        sums[s] = shard


@kernel
def binary_cross_entropy(sums, dx, x, t, scale, bounds):
    """Writes the sums of mean_j max(x_ij, 0) - x_ij t_ij + log(1 + e^-|x_ij|) and dx = scale (s(x)
    - t), s = logistic function. Where x is infinite and t agrees with it the loss is 0.
    """
    features = x.size // max(1, bounds[-1])
    scale, zero = number(dx, scale), x.dtype.type(0)
    for s in range(sums.size):
        shard = constant(sums, "zero")
        for i in range(bounds[s], bounds[s + 1]):
            total = zero
            for j in range(i * features, (i + 1) * features):
                above = x[j].real > 0
                rest = np.log(1 + np.exp(-x[j] if above else x[j]))
                # What is left of an infinite x is 0 where t agrees. Quotients are in float64.
                if t[j] != (1 if above else 0):
                    rest += (x[j] if above else zero) / 1 - (x[j] * t[j] if t[j] != 0 else zero)
                total += rest
                dx[j] = scale * (sigmoid(x[j]) - t[j])
            shard += total / features
        sums[s] = shard
