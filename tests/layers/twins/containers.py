"""The twins of `layers.gradient_check.cases.containers`."""

import numpy as np

from .activation import gelu_tanh, softmax
from .dropout import dropped
from .linear import affine
from .operators import each


def network(p, x):
    h = affine(x.reshape(len(x), -1), p["layers.1.weight"], p["layers.1.bias"])
    h = each(gelu_tanh)(None, h)
    h = affine(h, p["layers.3.body.weight"], p["layers.3.body.bias"]) + h
    return softmax(None, affine(dropped(h, 0.25, draw=0), p["layers.5.weight"]))


TWINS = {
    "Sequential": lambda p, x: affine(
        np.tanh(affine(x, p["layers.0.weight"], p["layers.0.bias"])),
        p["layers.2.weight"],
        p["layers.2.bias"],
    ),
    "Sequential with ReLU": lambda p, x: affine(
        np.maximum(affine(x, p["layers.0.weight"], p["layers.0.bias"]), 0),
        p["layers.2.weight"],
        p["layers.2.bias"],
    ),
    "network": network,
}
