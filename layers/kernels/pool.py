"""Pooling of images x (N, H, W, C) to y (N, Ho, Wo, C), channels-last.

A window is (kh, kw, sh, sw, ph, pw): its height and width, the strides and the padding of the two
axes. Pixel (i, j) of y is made from rows i sh - ph .. i sh - ph + kh of x and from the columns
likewise, as far as they are inside the image.
"""

from .jit import inlined, kernel
from .llvm.memory import address_of
from .llvm.windows import route_to_maximum, spread, window_maximum, window_mean
from .machine import VECTOR_BYTES


@inlined
def _span(i, size, stride, padding, limit):
    """Return the first row (column) of x under window i and how many there are."""
    start = i * stride - padding
    stop = min(start + size, limit)
    start = max(start, 0)
    return start, stop - start


@inlined
def _overlaps(window):
    kh, kw, sh, sw, _, _ = window
    return 1 if sh < kh or sw < kw else 0


@inlined
def _tiles(window, x, y):
    """Return whether each pixel of x is under exactly one window."""
    kh, kw, sh, sw, ph, pw = window
    return (
        kh == sh
        and kw == sw
        and ph == 0
        and pw == 0
        and y.shape[1] * kh == x.shape[1]
        and y.shape[2] * kw == x.shape[2]
    )


@inlined
def _clear(dx, start, stop):
    """Write zeros to rows start..stop, shortly before windows add to them: they are then still in a
    near cache; return stop.
    """
    for i in range(start, stop):
        dx[i] = 0
    return max(start, stop)


@kernel
def maximum(y, x, window, rectified):
    """Writes y = the maximum of x in each window, or 0 where that is less and `rectified` is 1; NaN
    if the window holds one.
    """
    kh, kw, sh, sw, ph, pw = window
    _, rows, columns, channels = x.shape
    column, vector = channels * x.itemsize, VECTOR_BYTES // x.itemsize
    row = columns * column
    to = address_of(y)
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            top, height = _span(i, kh, sh, ph, rows)
            for j in range(y.shape[2]):
                left, width = _span(j, kw, sw, pw, columns)
                of = address_of(x) + (n * rows + top) * row + left * column
                for c in range(0, channels, vector):
                    at, lanes = c * x.itemsize, min(vector, channels - c)
                    window_maximum(
                        y, to + at, of + at, row, column, height, width, lanes, rectified
                    )
                to += column


@kernel
def maximum_backward(dx, dy, y, x, window, rectified):
    """Writes dx = for each window of y = max(x in it), dy at its first maximum in row order, summed
    over windows.

    If `rectified` is 1, y = max(x in it, 0), and dy counts as 0 where y is 0. A NaN among x is a
    maximum.
    """
    kh, kw, sh, sw, ph, pw = window
    overlaps, tiles = _overlaps(window), _tiles(window, x, y)
    _, rows, columns, channels = x.shape
    column, vector = channels * x.itemsize, VECTOR_BYTES // x.itemsize
    row = columns * column
    of = 0
    for n in range(y.shape[0]):
        cleared = rows if tiles else 0
        for i in range(y.shape[1]):
            top, height = _span(i, kh, sh, ph, rows)
            cleared = _clear(dx[n], cleared, top + height)
            for j in range(y.shape[2]):
                left, width = _span(j, kw, sw, pw, columns)
                at = (n * rows + top) * row + left * column
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
                        height,
                        width,
                        lanes,
                        rectified,
                        overlaps,
                    )
                of += column
        _clear(dx[n], cleared, rows)


@kernel
def mean(y, x, window, count_padding):
    """Writes y = the sum of x in each window over kh kw, or over the pixels inside the image if not
    `count_padding`.
    """
    kh, kw, sh, sw, ph, pw = window
    _, rows, columns, channels = x.shape
    column, vector = channels * x.itemsize, VECTOR_BYTES // x.itemsize
    row = columns * column
    to = address_of(y)
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            top, height = _span(i, kh, sh, ph, rows)
            for j in range(y.shape[2]):
                left, width = _span(j, kw, sw, pw, columns)
                count = kh * kw if count_padding else height * width
                of = address_of(x) + (n * rows + top) * row + left * column
                for c in range(0, channels, vector):
                    at, lanes = c * x.itemsize, min(vector, channels - c)
                    window_mean(y, to + at, of + at, row, column, height, width, lanes, count)
                to += column


@kernel
def mean_backward(dx, dy, window, count_padding):
    """Writes dx = the sum over windows of dy over kh kw, or over the number of pixels inside the
    image.
    """
    kh, kw, sh, sw, ph, pw = window
    overlaps, tiles = _overlaps(window), _tiles(window, dx, dy)
    _, rows, columns, channels = dx.shape
    column, vector = channels * dx.itemsize, VECTOR_BYTES // dx.itemsize
    row = columns * column
    of = address_of(dy)
    for n in range(dy.shape[0]):
        cleared = rows if tiles else 0
        for i in range(dy.shape[1]):
            top, height = _span(i, kh, sh, ph, rows)
            cleared = _clear(dx[n], cleared, top + height)
            for j in range(dy.shape[2]):
                left, width = _span(j, kw, sw, pw, columns)
                count = kh * kw if count_padding else height * width
                to = address_of(dx) + (n * rows + top) * row + left * column
                for c in range(0, channels, vector):
                    at, lanes = c * dx.itemsize, min(vector, channels - c)
                    spread(dx, to + at, of + at, row, column, height, width, lanes, count, overlaps)
                of += column
        _clear(dx[n], cleared, rows)
