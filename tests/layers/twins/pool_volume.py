"""The twins of `layers.gradient_check.cases.pool_volume`."""

import itertools

import numpy as np


def axis_windows(length, size, stride, padding, ceil):
    """Return for each window of an axis the elements inside, and how many places count."""
    found, start = [], -padding
    while start + size <= length + padding or (ceil and start < length):
        inside = [i for i in range(start, start + size) if 0 <= i < length]
        found.append((inside, min(start + size, length + padding) - start))
        start += stride
    return found


def pooled(function, size, stride, padding=(0, 0, 0), ceil=False):
    """Return the twin that applies a function to the numbers inside each window, and to how many
    places of the padded volume are under it.
    """

    def twin(_, x):
        axes = [
            axis_windows(*numbers, ceil)
            for numbers in zip(x.shape[1:4], size, stride, padding, strict=True)
        ]
        y = np.empty((len(x), *map(len, axes), x.shape[4]))
        for n, i, j, k, c in np.ndindex(*y.shape):
            (rows, a), (columns, b), (depths, d) = axes[1][j], axes[2][k], axes[0][i]
            inside = [float(x[n, *at, c]) for at in itertools.product(depths, rows, columns)]
            y[n, i, j, k, c] = function(inside, a * b * d)
        return y

    return twin


def maximum(inside, _):
    return max(inside)


def mean(inside, places):
    return sum(inside) / places


def mean_inside(inside, _):
    return sum(inside) / len(inside)


TWO = (2, 2, 2), (2, 2, 2)
OVERLAPPING = (3, 3, 3), (2, 2, 2), (1, 1, 1)
UNEVEN = (3, 1, 2), (1, 2, 3), (1, 0, 0)
LEFT_OVER = *TWO, (1, 1, 1), True

TWINS = {
    "MaxPool3d": pooled(maximum, *TWO),
    "MaxPool3d of overlapping windows": pooled(maximum, *OVERLAPPING),
    "MaxPool3d of oblong windows": pooled(maximum, *UNEVEN),
    "MaxPool3d of many channels": pooled(maximum, (2, 2, 2), (1, 1, 1)),
    "MaxPool3d of what is left over, too": pooled(maximum, *LEFT_OVER),
    "AvgPool3d": pooled(mean, *TWO),
    "AvgPool3d of overlapping windows": pooled(mean, *OVERLAPPING),
    "AvgPool3d without counting the padding": pooled(mean_inside, *OVERLAPPING),
    "AvgPool3d of oblong windows": pooled(mean, *UNEVEN),
    "AvgPool3d of what is left over, too": pooled(mean, *LEFT_OVER),
}
