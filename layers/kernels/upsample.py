"""Bilinear interpolation of images x (N, H, W, C) to y (N, Ho, Wo, C).

For each row of y, `rows` (Ho, 2) holds the two rows of x that it lies between, and `row_shares`
(Ho,) the share of the second; `columns` and `column_shares` likewise.
"""

from .jit import kernel
from .llvm.vmath import constant, fma


@kernel
def bilinear(y, between, x, rows, row_shares, columns, column_shares):
    """Writes y: the rows are interpolated first, in `between` (W C,), then the columns.

    Each as a + share (b - a).
    """
    _, height, width, channels = x.shape
    images = x.reshape(len(x), height, width * channels)
    for n in range(len(y)):
        for i in range(y.shape[1]):
            above, below = images[n, rows[i, 0]], images[n, rows[i, 1]]
            share, to = row_shares[i], y[n, i]
            for k in range(between.size):
                between[k] = fma(share, below[k] - above[k], above[k])
            for j in range(y.shape[2]):
                first, last = columns[j, 0] * channels, columns[j, 1] * channels
                left, right = between[first : first + channels], between[last : last + channels]
                portion, pixel = column_shares[j], to[j]
                for c in range(channels):
                    pixel[c] = fma(portion, right[c] - left[c], left[c])


@kernel
def bilinear_backward(dx, between, dy, rows, row_shares, columns, column_shares):
    """Writes dx = for each pixel the sum of dy times its share in it, row after row of dy."""
    _, height, width, channels = dx.shape
    images, one = dx.reshape(len(dx), height, width * channels), constant(dx, "one")
    for n in range(len(dy)):
        for h in range(height):
            images[n, h, :] = 0
        for i in range(dy.shape[1]):
            between[:] = 0
            given = dy[n, i]
            for j in range(dy.shape[2]):
                first, last = columns[j, 0] * channels, columns[j, 1] * channels
                left, right = between[first : first + channels], between[last : last + channels]
                portion, pixel = column_shares[j], given[j]
                for c in range(channels):
                    left[c] = fma(one - portion, pixel[c], left[c])
                for c in range(channels):
                    right[c] = fma(portion, pixel[c], right[c])
            above, below = images[n, rows[i, 0]], images[n, rows[i, 1]]
            share = row_shares[i]
            for k in range(between.size):
                above[k] = fma(one - share, between[k], above[k])
            for k in range(between.size):
                below[k] = fma(share, between[k], below[k])
