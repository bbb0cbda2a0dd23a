"""Sums of two inputs and what follows them. Arrays are flat (n,)."""

from .jit import kernel
from .llvm.vmath import constant


@kernel
def rectified_sum(y, a, b):
    """Writes y = max(a + b, 0); NaN stays NaN."""
    zero = constant(y, "zero")
    for i in range(y.size):
        total = a[i] + b[i]
        y[i] = zero if total <= zero else total
