"""Losses of margins and angles, row by row; each writes the losses (R,) and their gradients."""

import numpy as np

from .jit import kernel
from .llvm.vmath import constant, number


@kernel
def multi_class_hinge(losses, dx, x, labels, margin):
    """Writes sum_(j != y) max(0, margin - x_iy + x_ij) / C and its gradient; x, dx (R, C), labels y
    (R,). NaN where y is not in 0..C-1.
    """
    classes = x.shape[1]
    zero = constant(x, "zero")
    share = constant(x, "one") / x.dtype.type(classes)
    margin = number(x, margin)
    for i in range(len(x)):
        label, row = labels[i], dx[i]
        if label < 0 or label >= classes:
            losses[i] = np.nan
            continue
        bar = margin - x[i, label]
        total, violations = zero, zero
        for j in range(classes):
            excess = bar + x[i, j]
            # NaN stays NaN.
            counts = not (excess <= 0) and j != label
            total += excess if counts else zero
            violations += share if counts else zero
            row[j] = share if counts else zero
        row[label] = -violations
        losses[i] = total * share


@kernel
def cosine_distance(losses, dx, dt, x, t, least):
    """Writes 1 - c for the cosine c = x t / (|x| |t|) of the rows, and its gradients dx = (c x /
    |x| - t / |t|) / |x| and dt likewise; all (R, D). Norms are at least `least`.
    """
    zero, one = constant(x, "zero"), constant(x, "one")
    least = number(x, least)
    for i in range(len(x)):
        dot, xx, tt = zero, zero, zero
        for j in range(x.shape[1]):
            dot += x[i, j] * t[i, j]
            xx += x[i, j] * x[i, j]
            tt += t[i, j] * t[i, j]
        of_x, of_t = np.sqrt(xx), np.sqrt(tt)
        # Where a norm is too small it is a constant.
        bounded_x, bounded_t = of_x < least, of_t < least
        over_x = one / (least if bounded_x else of_x)
        over_t = one / (least if bounded_t else of_t)
        cosine = dot * over_x * over_t
        losses[i] = one - cosine
        along_x = zero if bounded_x else cosine * over_x * over_x
        along_t = zero if bounded_t else cosine * over_t * over_t
        across = over_x * over_t
        for j in range(x.shape[1]):
            dx[i, j] = along_x * x[i, j] - across * t[i, j]
            dt[i, j] = along_t * t[i, j] - across * x[i, j]


@kernel
def cosine_embedding(losses, da, db, labels, margin):
    """Writes, over what `cosine_distance` wrote, the losses of pairs: 1 - c for the label 1 and
    max(0, c - margin) for -1, NaN for others; and their gradients da, db (R, D). losses, labels
    (R,).
    """
    one, zero = constant(losses, "one"), constant(losses, "zero")
    margin = number(losses, margin)
    for i in range(len(da)):
        if labels[i] == 1:
            continue
        excess = one - losses[i] - margin
        factor = zero if excess <= 0 else -one
        losses[i] = (zero if excess <= 0 else excess) if labels[i] == -1 else number(losses, np.nan)
        for j in range(da.shape[1]):
            da[i, j] *= factor
            db[i, j] *= factor
