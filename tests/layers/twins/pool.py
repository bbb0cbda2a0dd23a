"""The twins of `layers.gradient_check.cases.pool`."""

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
    "AvgPool2d": pooled(mean, *TWO),
    "AvgPool2d that leaves pixels over": pooled(mean, *TWO),
    "AvgPool2d of overlapping windows": pooled(over(9), *RESNET),
    "AvgPool2d without counting the padding": pooled(mean, *RESNET),
    "AvgPool2d of oblong windows": pooled(mean, *UNEVEN),
    "AvgPool2d of large windows": pooled(over(16), *LARGE),
    "GlobalAveragePool": channel_means,
}
