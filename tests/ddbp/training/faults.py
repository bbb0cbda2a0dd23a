"""Layers that make numbers that are not finite, of samples that tests mark."""

import numpy as np

from layers import Layer

MARK = 1e4
"""What is larger, after a layer, is of a sample that is marked."""


def marked(x, *numbers):
    """Return a copy of samples of which those of the given numbers are marked."""
    x = x.copy()
    x[list(numbers)] = 1e6
    return x


class Faulty(Layer):
    """Passes on what it gets, but NaN for samples that are marked: in `forward`, or what goes
    back.
    """

    def __init__(self, where):
        self.where = where

    def __repr__(self):
        return f"Faulty({self.where!r})"

    def _spoilt(self, call, array):
        (x,) = call.saved
        bad = np.abs(x).reshape(len(x), -1).max(axis=1) > MARK
        if not bad.any():
            return array
        array = array.copy()
        array[bad] = np.nan
        return array

    def forward(self, call, x):
        call.save(x)
        return self._spoilt(call, x) if self.where == "forward" else np.minimum(x, MARK)

    def backward(self, call, dy):
        return (self._spoilt(call, dy) if self.where == "backward" else dy,)
