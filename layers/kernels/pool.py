"""Pooling of images x (N, H, W, C) to y (N, Ho, Wo, C), channels-last.

Tables say which windows: `rows` (Ho, 3) holds for each row of y the first row of x under it, how
many there are, and the row's part of the divisor of a mean; `columns` (Wo, 3) likewise. `cover`
says how windows cover the image.
"""

from .jit import inlined, kernel
from .llvm.memory import address_of
from .llvm.windows import route_to_maximum, spread, window_maximum, window_mean
from .machine import VECTOR_BYTES

# Each pixel is under one window; under one at most; under any number of them.
TILING, APART, OVERLAPPING = 0, 1, 2


@inlined
def _clear(dx, start, stop):
    """Write zeros to rows start..stop, shortly before windows add to them: they are then still in a
    near cache; return stop.
    """
    for i in range(start, stop):
        dx[i] = 0
    return max(start, stop)


@kernel
def maximum(y, x, rows, columns, rectified):
    """Writes y = the maximum of x in each window, or 0 where that is less and `rectified` is 1; NaN
    if the window holds one.
    """
    _, height, width, channels = x.shape
    column, vector = channels * x.itemsize, VECTOR_BYTES // x.itemsize
    row = width * column
    to = address_of(y)
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            top, high = rows[i, 0], rows[i, 1]
            for j in range(y.shape[2]):
                left, wide = columns[j, 0], columns[j, 1]
                of = address_of(x) + (n * height + top) * row + left * column
                for c in range(0, channels, vector):
                    at, lanes = c * x.itemsize, min(vector, channels - c)
                    window_maximum(y, to + at, of + at, row, column, high, wide, lanes, rectified)
                to += column


@kernel
def maximum_backward(dx, dy, y, x, rows, columns, cover, rectified):
    """Writes dx = for each window of y = max(x in it), dy at its first maximum in row order, summed
    over windows.

    If `rectified` is 1, y = max(x in it, 0), and dy counts as 0 where y is 0. A NaN among x is a
    maximum.
    """
    _, height, width, channels = x.shape
    column, vector = channels * x.itemsize, VECTOR_BYTES // x.itemsize
    row, overlaps = width * column, cover // OVERLAPPING
    of = 0
    for n in range(y.shape[0]):
        cleared = height if cover == TILING else 0
        for i in range(y.shape[1]):
            top, high = rows[i, 0], rows[i, 1]
            cleared = _clear(dx[n], cleared, top + high)
            for j in range(y.shape[2]):
                left, wide = columns[j, 0], columns[j, 1]
                at = (n * height + top) * row + left * column
                for c in range(0, channels, vector):
                    here, lanes = c * x.itemsize, min(vector, channels - c)
                    to, given = address_of(dx) + at + here, address_of(dy) + of + here
                    best, seen = address_of(y) + of + here, address_of(x) + at + here
                    route_to_maximum(
                        x,
                        to,
                        given,
                        best,
                        seen,
                        row,
                        column,
                        high,
                        wide,
                        lanes,
                        rectified,
                        overlaps,
                    )
                of += column
        _clear(dx[n], cleared, height)


@kernel
def mean(y, x, rows, columns):
    """Writes y = the sum of x in each window over its divisor."""
    _, height, width, channels = x.shape
    column, vector = channels * x.itemsize, VECTOR_BYTES // x.itemsize
    row = width * column
    to = address_of(y)
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            top, high = rows[i, 0], rows[i, 1]
            for j in range(y.shape[2]):
                left, wide = columns[j, 0], columns[j, 1]
                count = rows[i, 2] * columns[j, 2]
                of = address_of(x) + (n * height + top) * row + left * column
                for c in range(0, channels, vector):
                    at, lanes = c * x.itemsize, min(vector, channels - c)
                    window_mean(y, to + at, of + at, row, column, high, wide, lanes, count)
                to += column


@kernel
def mean_backward(dx, dy, rows, columns, cover):
    """Writes dx = the sum over windows of dy over their divisors."""
    _, height, width, channels = dx.shape
    column, vector = channels * dx.itemsize, VECTOR_BYTES // dx.itemsize
    row, overlaps = width * column, cover // OVERLAPPING
    of = address_of(dy)
    for n in range(dy.shape[0]):
        cleared = height if cover == TILING else 0
        for i in range(dy.shape[1]):
            top, high = rows[i, 0], rows[i, 1]
            cleared = _clear(dx[n], cleared, top + high)
            for j in range(dy.shape[2]):
                left, wide = columns[j, 0], columns[j, 1]
                count = rows[i, 2] * columns[j, 2]
                to = address_of(dx) + (n * height + top) * row + left * column
                for c in range(0, channels, vector):
                    at, lanes = c * dx.itemsize, min(vector, channels - c)
                    spread(dx, to + at, of + at, row, column, high, wide, lanes, count, overlaps)
                of += column
        _clear(dx[n], cleared, height)
