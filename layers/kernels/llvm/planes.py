"""Products of rows with a panel of whole vectors, without bias or tails: what the transforms and
columns of convolutions need.
"""

import numpy as np

from layers.kernels.jit import inlined

from .simd_conv import plane_product


def _rows_of(vectors, unroll):
    """Return the helper that multiplies n rows of a with a panel of `vectors` vectors; the length k
    is a multiple of `unroll`.
    """

    six, four, one = (plane_product(unroll, rows, vectors) for rows in (6, 4, 1))

    @inlined
    def tiles(like, n, c, c_row, a, a_row, *rest):
        i = np.int64(0)
        while n - i >= 6 and n - i != 8:
            six(like, c + i * c_row, c_row, a + i * a_row, a_row, *rest)
            i += 6
        while n - i >= 4:
            four(like, c + i * c_row, c_row, a + i * a_row, a_row, *rest)
            i += 4
        while n - i >= 1:
            one(like, c + i * c_row, c_row, a + i * a_row, a_row, *rest)
            i += 1

    return tiles


# By the vectors of the panel, 1 or 2; the first two take inner lengths that are multiples of 4.
# The arguments after `like` and n are those of what `plane_product` returns.
rows_by_4_1, rows_by_4_2 = _rows_of(1, 4), _rows_of(2, 4)
rows_of_1, rows_of_2 = _rows_of(1, 1), _rows_of(2, 1)
