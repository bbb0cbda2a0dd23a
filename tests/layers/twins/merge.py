"""The twins of `layers.gradient_check.cases.merge`."""

import numpy as np


def added(_, *inputs):
    y = np.zeros(np.broadcast_shapes(*(x.shape for x in inputs)))
    for i in np.ndindex(y.shape):
        for x in inputs:
            y[i] += np.broadcast_to(x, y.shape)[i]
    return y


def multiplied(_, *inputs):
    y = np.ones(np.broadcast_shapes(*(x.shape for x in inputs)))
    for i in np.ndindex(y.shape):
        for x in inputs:
            y[i] *= np.broadcast_to(x, y.shape)[i]
    return y


def joined(axis):
    def twin(_, *inputs):
        shape = list(inputs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in inputs)
        y, start = np.empty(shape), 0
        for x in inputs:
            for i in np.ndindex(x.shape):
                to = list(i)
                to[axis] += start
                y[tuple(to)] = x[i]
            start += x.shape[axis]
        return y

    return twin


TWINS = {
    "Add": added,
    "Add of three": added,
    "Add with broadcasting": added,
    "Multiply": multiplied,
    "Multiply of three": multiplied,
    "Multiply with broadcasting": multiplied,
    "Concatenate": joined(1),
    "Concatenate along axis 1": joined(1),
    "Concatenate along the batch": joined(0),
}
