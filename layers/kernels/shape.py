"""Changes of the order of axes."""

from .jit import kernel
from .llvm.memory import address_of
from .llvm.simd import transpose_block
from .machine import VECTOR_BYTES


@kernel
def swap_axes(y, x):
    """Writes the transposes of matrices, y[n, q, p] = x[n, p, q]; x (N, P, Q), y (N, Q, P)."""
    _, rows, columns = x.shape
    size = x.itemsize
    lanes = VECTOR_BYTES // size
    whole_rows, whole_columns = rows - rows % lanes, columns - columns % lanes
    for n in range(len(x)):
        of, to = (
            address_of(x) + n * rows * columns * size,
            address_of(y) + n * rows * columns * size,
        )
        for q in range(0, whole_columns, lanes):
            for p in range(0, whole_rows, lanes):
                transpose_block(
                    x,
                    to + (q * rows + p) * size,
                    rows * size,
                    of + (p * columns + q) * size,
                    columns * size,
                )
        # What is left over: columns beyond the whole blocks, and rows under them.
        source, target = x[n], y[n]
        for q in range(whole_columns, columns):
            for p in range(rows):
                target[q, p] = source[p, q]
        for p in range(whole_rows, rows):
            for q in range(whole_columns):
                target[q, p] = source[p, q]
