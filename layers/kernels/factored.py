"""Squares of a matrix, added up by rows and by columns in an order that does not matter: they are
added as integers. A rank has elements g (n,) of the flattened matrix, from number `start` on; so
columns of it lie on several ranks, and parts of rows.
"""

import numpy as np

from .jit import kernel
from .llvm.vmath import number


@kernel
def factor_maxima(rows, columns, g, start):
    """Writes to rows (R,) and columns (C,), float64, the largest |g| there if they are less; NaN is
    larger than all numbers.
    """
    width, at = columns.size, 0
    while at < g.size:
        row, first = divmod(start + at, width)
        count = min(width - first, g.size - at)
        most = rows[row]
        for k in range(count):
            x = abs(np.float64(g[at + k]))
            most = x if x > most or x != x else most
            held = columns[first + k]
            columns[first + k] = x if x > held or x != x else held
        rows[row] = most
        at += count


@kernel
def factor_sums(rows, columns, g, start, row_scales, column_scales):
    """Adds to rows (R,) and columns (C,), int64, the integer parts of the squares of g times the
    scales (R,), (C,) of their rows and columns, powers of two.
    """
    width, at = columns.size, 0
    while at < g.size:
        row, first = divmod(start + at, width)
        count = min(width - first, g.size - at)
        by, total = row_scales[row], 0
        for k in range(count):
            x = np.float64(g[at + k])
            a, b = by * x, column_scales[first + k] * x
            total += np.int64(a * a)
            columns[first + k] += np.int64(b * b)
        rows[row] += total
        at += count


@kernel
def factored_direction(g, start, rows, columns, least):
    """Writes g = g / max(sqrt(v), least), v_ij = rows_i columns_j; rows (R,) and columns (C,) have
    the type of g. Shazeer and Stern 2018, algorithm 4.
    """
    least = number(g, least)
    width, at = columns.size, 0
    while at < g.size:
        row, first = divmod(start + at, width)
        count = min(width - first, g.size - at)
        by = rows[row]
        for k in range(count):
            root = np.sqrt(by * columns[first + k])
            g[at + k] /= least if root < least else root
        at += count
