"""Rows of pixels, and rows of a weight's gradient, in tiles as high as the registers allow."""

import numpy as np

from .jit import inlined
from .llvm.simd_conv import row_product, tap_product

# Output channels of a panel, in vectors: 6 x 2 accumulators, 2 loads of b and a broadcast are 15
# registers of 16.
PANEL = 2
# Pixels of the tiles of a row, by the vectors of the panel. More sums than these and the registers
# spill, with the row of b and what is being broadcast.
SIZES = {1: (12, 7, 6, 4, 1), 2: (6, 5, 4, 2, 1)}


def best_sizes(vectors, sizes):
    """Return for each number of pixels left, up to 64, which of the sizes of tiles comes next so
    that all take least time.

    A step of the inner loop takes half a cycle per multiply-add or load, and four at least: a sum
    waits for its last term. Of what takes as long, tiles of like sizes are best: some processors
    take a whole cycle.
    """

    def cycles(rows):
        return max(4.0, rows * vectors / 2, (rows + vectors) / 2) + 0.5 + rows * rows / 1024

    least, best = [0.0], [0]
    for left in range(1, 65):
        costs = {size: cycles(size) + least[left - size] for size in sizes if size <= left}
        best.append(min(costs, key=costs.__getitem__))
        least.append(costs[best[-1]])
    return np.array(best)


def _tiles_of(vectors, sizes):
    """Return the helper that computes a row of `n` pixels of a panel of `vectors` vectors, in tiles
    of these five sizes.
    """
    largest, larger, large, small, _ = sizes
    by_largest, by_larger, by_large, by_small, by_one = (
        tap_product(size, vectors) for size in sizes
    )
    best = best_sizes(vectors, sizes)

    @inlined
    def tiles(like, n, c, c_row, a, a_row, *rest):
        i = np.int64(0)
        while i < n:
            size = best[min(n - i, best.size - 1)]
            to, of = c + i * c_row, a + i * a_row
            if size == largest:
                by_largest(like, to, c_row, of, a_row, *rest)
            elif size == larger:
                by_larger(like, to, c_row, of, a_row, *rest)
            elif size == large:
                by_large(like, to, c_row, of, a_row, *rest)
            elif size == small:
                by_small(like, to, c_row, of, a_row, *rest)
            else:
                by_one(like, to, c_row, of, a_row, *rest)
            i += size

    return tiles


_tiles_1, _tiles_2 = (_tiles_of(vectors, sizes) for vectors, sizes in SIZES.items())


@inlined
def tiles_of_row(like, vectors, n, *rest):
    """Compute a row of `n` pixels of a panel; the rest are the arguments of `tap_product`."""
    if vectors == 2:
        _tiles_2(like, n, *rest)
    else:
        _tiles_1(like, n, *rest)


def _gradient_tiles_of(vectors, sizes):
    """Return the helper that adds to `n` rows of the weight's gradient, in tiles of these four
    sizes.
    """
    largest, large, small, smallest = sizes
    by_largest, by_large, by_small, by_smallest = (row_product(size, vectors) for size in sizes)

    @inlined
    def tiles(like, n, c, c_row, a_rows, *rest):
        i = np.int64(0)
        while n - i >= largest:
            by_largest(like, c + i * c_row, c_row, a_rows + 8 * i, *rest)
            i += largest
        if n - i >= large:
            by_large(like, c + i * c_row, c_row, a_rows + 8 * i, *rest)
            i += large
        if n - i >= small:
            by_small(like, c + i * c_row, c_row, a_rows + 8 * i, *rest)
            i += small
        while n - i >= smallest:
            by_smallest(like, c + i * c_row, c_row, a_rows + 8 * i, *rest)
            i += smallest

    return tiles


_gradient_tiles_1 = _gradient_tiles_of(1, (8, 4, 2, 1))
_gradient_tiles_2 = _gradient_tiles_of(2, (6, 4, 3, 1))


@inlined
def gradient_tiles(like, vectors, n, *rest):
    """Add to `n` rows of the gradient's panel; the rest are the arguments of `row_product`."""
    if vectors == 2:
        _gradient_tiles_2(like, n, *rest)
    else:
        _gradient_tiles_1(like, n, *rest)
