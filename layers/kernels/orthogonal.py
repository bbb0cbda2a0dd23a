"""Matrices with orthonormal rows: the nearest one, by products alone, and one of the same span."""

import numpy as np

from .gemm import product
from .jit import kernel
from .llvm.simd_rows import row_dot
from .llvm.vmath import fma, number


@kernel
def gram_schmidt(x):
    """Writes x with orthonormal rows, the first i of which span what the first i of x did; x (M,
    N), M at most N.

    What lies along the rows before is taken from each row in turn (modified Gram-Schmidt). They are
    orthogonal to rounding times the condition of x; those of a second call, to rounding.
    """
    for i in range(len(x)):
        row = x[i]
        for j in range(i):
            before = x[j]
            along = -row_dot(row, before)
            for k in range(row.size):
                row[k] = fma(along, before[k], row[k])
        norm = np.sqrt(row_dot(row, row))
        for k in range(row.size):
            row[k] /= norm


@kernel
def newton_schulz(x, work, gram, polynomial, no_bias, scale, a, b, c, iterations):
    """Writes x = scale x, and then x = a x + b (x xᵀ) x + c (x xᵀ)² x so many times.

    x, work (M, N), M at most N is cheapest; gram, polynomial (M, M); no_bias (0,). It drives the
    singular values of x, which must begin in (0, 1], to 1 (Björck and Bowie 1971); coefficients
    that drive them to about 1 sooner are those of Jordan et al. 2024.
    """
    scale, a, b, c = number(x, scale), number(x, a), number(x, b), number(x, c)
    for i in range(len(x)):
        for j in range(x.shape[1]):
            x[i, j] *= scale
    for _ in range(iterations):
        product(gram, x, False, x, True, no_bias, False)
        product(polynomial, gram, False, gram, False, no_bias, False)
        for i in range(len(x)):
            for j in range(len(x)):
                polynomial[i, j] = fma(c, polynomial[i, j], b * gram[i, j])
            polynomial[i, i] += a
        product(work, polynomial, False, x, False, no_bias, False)
        for i in range(len(x)):
            for j in range(x.shape[1]):
                x[i, j] = work[i, j]
