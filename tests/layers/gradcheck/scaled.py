"""A layer whose backward is as wrong as a test wants it."""

import numpy as np

from layers import Layer, Parameter


class Scaled(Layer):
    """y = x³ times a gain; its backward is what a test says."""

    def __init__(self, backward=None):
        self.gain = Parameter(np.array([1.5], np.float32))
        self.wrong = backward

    def forward(self, call, x):
        call.save(x)
        return x**3 * self.gain.value

    def backward(self, call, dy):
        (x,) = call.saved
        gradient = call.gradient(self.gain)
        for s, (start, stop) in enumerate(
            zip(call.bounds(len(x))[:-1], call.bounds(len(x))[1:], strict=True)
        ):
            gradient[s] += (dy * x**3)[start:stop].sum()
        dx = dy * 3 * x**2 * self.gain.value
        return (dx if self.wrong is None else self.wrong(dx, x),)
