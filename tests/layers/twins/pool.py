"""The twins of `layers.gradient_check.cases.pool`."""

import math

import numpy as np


def windows(x, size, stride, padding):
    """Yield for each output (n, i, j, c) the numbers of x under its window, in row order."""
    n_samples, height, width, channels = x.shape
    rows = (height + 2 * padding[0] - size[0]) // stride[0] + 1
    columns = (width + 2 * padding[1] - size[1]) // stride[1] + 1
    for n, i, j, c in np.ndindex(n_samples, rows, columns, channels):
        inside = []
        for a in range(size[0]):
            for b in range(size[1]):
                h, w = i * stride[0] - padding[0] + a, j * stride[1] - padding[1] + b
                if 0 <= h < height and 0 <= w < width:
                    inside.append(float(x[n, h, w, c]))
        yield (n, i, j, c), inside


def pooled(function, size, stride, padding=(0, 0)):
    """Return the twin that applies a function to the list of numbers inside each window."""

    def twin(_, x):
        found = dict(windows(x, size, stride, padding))
        y = np.empty([1 + max((index[axis] for index in found), default=-1) for axis in range(4)])
        for index, inside in found.items():
            y[index] = function(inside)
        return y

    return twin


def adaptive(function, *outputs):
    """Return the twin that applies a function to what lies between the bounds of each bin."""

    def twin(_, x):
        y = np.empty((len(x), *outputs, x.shape[3]))
        for n, i, j, c in np.ndindex(y.shape):
            (top, bottom), (left, right) = (
                (math.floor(k * size / count), math.ceil((k + 1) * size / count))
                for k, size, count in zip((i, j), x.shape[1:3], outputs, strict=True)
            )
            y[n, i, j, c] = function([float(v) for v in x[n, top:bottom, left:right, c].flat])
        return y

    return twin


def left_over_too(function, x):
    """Return what windows of 2 x 2, two apart, give of images of even size that are padded by one:
    as many as begin within the image, the last of them over one row or column of it.
    """
    n, height, width, channels = x.shape
    y = np.empty((n, height // 2 + 1, width // 2 + 1, channels))
    for s, i, j, c in np.ndindex(y.shape):
        rows = [r for r in (2 * i - 1, 2 * i) if 0 <= r < height]
        columns = [r for r in (2 * j - 1, 2 * j) if 0 <= r < width]
        y[s, i, j, c] = function([float(x[s, r, q, c]) for r in rows for q in columns])
    return y


def sequence(twin):
    """Return the twin for sequences of one for images."""
    return lambda p, x: twin(p, x[:, np.newaxis])[:, 0]


def in_line(function):
    """Return what `left_over_too` is for sequences, windows of 2 with a padding of one."""

    def twin(_, x):
        y = np.empty((len(x), x.shape[1] // 2 + 1, x.shape[2]))
        for n, i, c in np.ndindex(y.shape):
            inside = [r for r in (2 * i - 1, 2 * i) if 0 <= r < x.shape[1]]
            y[n, i, c] = function([float(x[n, r, c]) for r in inside])
        return y

    return twin


def three_steps(_, x):
    """Means of three steps, two apart, of a sequence of 8 that is padded by one."""
    bounds = ((0, 2), (1, 4), (3, 6), (5, 8), (7, 8))
    return np.stack([x[:, a:b].mean(axis=1) for a, b in bounds], axis=1)


def over(count):
    return lambda inside: sum(inside) / count


def mean(inside):
    return sum(inside) / len(inside)


def rectified_maximum(inside):
    return max(0, *inside)


def channel_means(_, x):
    y = np.zeros((len(x), x.shape[3]))
    for n, i, j, c in np.ndindex(x.shape):
        y[n, c] += x[n, i, j, c] / (x.shape[1] * x.shape[2])
    return y


TWO = (2, 2), (2, 2)
RESNET = (3, 3), (2, 2), (1, 1)
UNEVEN = (3, 2), (1, 3), (1, 0)
LARGE = (4, 4), (1, 1), (2, 2)

TWINS = {
    "MaxPool2d": pooled(max, *TWO),
    "MaxPool2d that leaves pixels over": pooled(max, *TWO),
    "MaxPool2d of overlapping windows": pooled(max, *RESNET),
    "MaxPool2d of oblong windows": pooled(max, *UNEVEN),
    "MaxPool2d of large windows": pooled(max, *LARGE),
    "MaxPool2d of many channels": pooled(max, (2, 2), (1, 1)),
    "ReLU and MaxPool2d": pooled(rectified_maximum, *TWO),
    "ReLU and MaxPool2d of overlapping windows": pooled(rectified_maximum, *RESNET),
    "MaxPool2d of what is left over, too": lambda _, x: left_over_too(max, x),
    "MaxPool1d": sequence(pooled(max, (1, 2), (1, 2))),
    "MaxPool1d of overlapping windows": sequence(pooled(max, (1, 3), (1, 2), (0, 1))),
    "MaxPool1d of what is left over, too": in_line(max),
    "ReLU and MaxPool1d": sequence(pooled(rectified_maximum, (1, 3), (1, 2))),
    "AdaptiveMaxPool2d": adaptive(max, 3, 2),
    "AdaptiveMaxPool1d": sequence(adaptive(max, 1, 4)),
    "AvgPool2d": pooled(mean, *TWO),
    "AvgPool2d of what is left over, too": lambda _, x: left_over_too(over(4), x),
    "AvgPool1d": sequence(pooled(over(3), (1, 3), (1, 2), (0, 1))),
    "AvgPool1d without counting the padding": three_steps,
    "AdaptiveAvgPool2d": adaptive(mean, 3, 2),
    "AdaptiveAvgPool2d to more pixels": adaptive(mean, 8, 8),
    "AdaptiveAvgPool1d": sequence(adaptive(mean, 1, 4)),
    "AvgPool2d that leaves pixels over": pooled(mean, *TWO),
    "AvgPool2d of overlapping windows": pooled(over(9), *RESNET),
    "AvgPool2d without counting the padding": pooled(mean, *RESNET),
    "AvgPool2d of oblong windows": pooled(mean, *UNEVEN),
    "AvgPool2d of large windows": pooled(over(16), *LARGE),
    "GlobalAveragePool": channel_means,
}
