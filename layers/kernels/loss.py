"""What losses of rows share: their sums over shards, and gradients brought to scale."""

from .jit import kernel
from .llvm.vmath import constant, number


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
