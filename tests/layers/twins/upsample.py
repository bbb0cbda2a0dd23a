"""The twins of `layers.gradient_check.cases.upsample`."""

import math

import numpy as np


def nearest(rows, columns):
    def twin(_, x):
        height, width = x.shape[1:3]
        y = np.empty((len(x), rows, columns, x.shape[3]))
        for i, j in np.ndindex(rows, columns):
            y[:, i, j] = x[:, i * height // rows, j * width // columns]
        return y

    return twin


def weights(place, length):
    """Return what each pixel has in a place between two of them."""
    first = min(math.floor(place), length - 1)
    share = np.zeros(length)
    share[first] += 1 - (place - first)
    share[min(first + 1, length - 1)] += place - first
    return share


def bilinear(rows, columns, corners=False):
    def place(i, length, outputs):
        if corners:
            return i * (length - 1) / (outputs - 1)
        return max((i + 0.5) * length / outputs - 0.5, 0)

    def twin(_, x):
        y = np.empty((len(x), rows, columns, x.shape[3]))
        for i, j in np.ndindex(rows, columns):
            down = weights(place(i, x.shape[1], rows), x.shape[1])
            along = weights(place(j, x.shape[2], columns), x.shape[2])
            y[:, i, j] = (x * (down[:, np.newaxis] * along)[..., np.newaxis]).sum(axis=(1, 2))
        return y

    return twin


TWINS = {
    "Upsample": nearest(6, 8),
    "Upsample of many channels": nearest(3, 6),
    "Upsample to a size": nearest(5, 2),
    "Upsample bilinear": bilinear(6, 8),
    "Upsample bilinear of corners": bilinear(6, 6, corners=True),
    "Upsample bilinear to a size": bilinear(2, 7),
}
