"""What several test files share: a float64 dense layer, a layer that watches gradients pass, and a
hook that passes on which parameters are ready.
"""

import numpy as np

import layers
from layers import Linear


def linear(rng, inputs, outputs):
    return Linear(inputs, outputs, rng=rng, bias_init=layers.init.normal(1), dtype=np.float64)


class Spy(layers.Layer):
    """The identity; keeps a copy of every gradient that it is given, and the array itself."""

    def __init__(self):
        self.seen, self.copies = [], []

    def forward(self, call, x):
        return x

    def backward(self, call, dy):
        self.seen.append(dy)
        self.copies.append(dy.copy())
        return (dy,)


class Ready(layers.TapeHook):
    """Calls a function with each parameter that is ready."""

    def __init__(self, tell):
        self._tell = tell

    def on_parameter_ready(self, parameter):
        self._tell(parameter)
