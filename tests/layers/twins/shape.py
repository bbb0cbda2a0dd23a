"""The twins of `layers.gradient_check.cases.shape`."""

import numpy as np


def channels_last(_, x):
    y = np.empty((len(x), x.shape[2], x.shape[3], x.shape[1]))
    for n, c, i, j in np.ndindex(x.shape):
        y[n, i, j, c] = x[n, c, i, j]
    return y


def channels_first(_, x):
    y = np.empty((len(x), x.shape[3], x.shape[1], x.shape[2]))
    for n, i, j, c in np.ndindex(x.shape):
        y[n, c, i, j] = x[n, i, j, c]
    return y


TWINS = {
    "Flatten": lambda _, x: np.array([[v for row in sample for v in row] for sample in x]),
    "Reshape": lambda _, x: np.array([[[*s[0], *s[1][:2]], [*s[1][2:], *s[2]]] for s in x]),
    "ChannelsLast": channels_last,
    "ChannelsLast of many channels": channels_last,
    "ChannelsFirst": channels_first,
}
