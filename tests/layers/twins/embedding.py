"""The twins of `layers.gradient_check.cases.embedding`."""

import numpy as np

from .linear import affine


def looked_up(weight, ids, padding=None):
    y = np.zeros((*ids.shape, weight.shape[1]))
    for i in np.ndindex(ids.shape):
        for d in range(weight.shape[1]):
            y[(*i, d)] = 0 if ids[i] == padding else weight[ids[i], d]
    return y


TWINS = {
    "Embedding": lambda p, ids: looked_up(p["weight"], ids),
    "Embedding of single tokens": lambda p, ids: looked_up(p["weight"], ids),
    "Embedding with padding": lambda p, ids: looked_up(p["weight"], ids, padding=1),
    "Embedding with the weight of the output": lambda p, ids: affine(
        looked_up(p["layers.0.weight"], ids), p["layers.0.weight"]
    ),
}
