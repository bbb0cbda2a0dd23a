"""Models of which parts are segments, or are not: `wrap` makes a segment of a layer."""

import numpy as np

import layers
from layers import (
    GELU,
    BatchNorm,
    Composite,
    Conv2d,
    Dropout,
    EncoderBlock,
    Flatten,
    Linear,
    ReLU,
    Residual,
    Sequential,
)


def plain(layer):
    return layer


def mixed(wrap):
    """Return a network with all that could go wrong, segments of which are wrapped."""
    rng = np.random.default_rng(1)
    shared = Linear(32, 32, rng=rng)
    inner = wrap(Sequential(shared, GELU(), Dropout(0.1)))
    return Sequential(
        wrap(Sequential(Linear(6, 32, rng=rng), BatchNorm(32), ReLU(), Dropout(0.3))),
        Dropout(0.2),
        wrap(Sequential(inner, Residual(wrap(shared)), inner, Dropout(0.5))),
        Linear(32, 3, rng=rng),
    )


def convolutional(wrap):
    rng = np.random.default_rng(2)
    block = Sequential(Conv2d(3, 3, 3, padding=1, rng=rng), layers.BatchNorm2d(3), ReLU())
    return Sequential(
        layers.Reshape(1, 2, 3), wrap(Residual(block)), wrap(Flatten()), Linear(6, 3, rng=rng)
    )


class Blocks(Composite):
    """Blocks of a transformer over the features, with a mask."""

    def __init__(self, wrap):
        rng = np.random.default_rng(3)
        self.into = Linear(1, 8, rng=rng)
        self.blocks = [wrap(EncoderBlock(8, 2, rng=rng, dropout=0.2)) for _ in range(2)]
        self.out = Linear(8, 3, rng=rng)

    def __call__(self, x):
        h = self.into(x.reshape(len(x), 6, 1))
        for block in self.blocks:
            h = block(h, lengths=np.arange(len(x)) % 6 + 1)
        return self.out(h.mean(axis=1))


class Both(Composite):
    """Two outputs, of which a part may be used alone, and one of them is an input."""

    def __init__(self, wrap):
        rng = np.random.default_rng(4)
        self.first = Linear(6, 16, rng=rng)
        self.segment = wrap(self.halves)
        self.last = Linear(16, 3, rng=rng)

    def halves(self, x, y):
        h = self.first(x) * y
        return h.exp(), y, h

    def __call__(self, x):
        _, y, h = self.segment(x, 1.0 + self.first(x))
        return self.last(h + y)


class Shared(Composite):
    """Steps of three values in segments, of which what they share is used in many places."""

    def __init__(self, wrap):
        rng = np.random.default_rng(9)
        self.into, self.out = Linear(6, 8, rng=rng), Linear(8, 3, rng=rng)
        self.dense, self.norm = Linear(8, 8, rng=rng), layers.LayerNorm(8)
        self.wrap = wrap

    def __call__(self, x):
        h = self.norm(self.into(x))
        return self.out(self.steps(h, np.tanh(h)))


class InAndOutside(Shared):
    """A value is used more than once in a segment, before it and after it."""

    def steps(self, h, c):
        segment = self.wrap(lambda h, c: np.tanh(self.dense(h) * c) + c * h)
        return segment(h * c, c) * c + h


class Conditioned(Shared):
    """Several segments have an input in common, each in several blocks."""

    def steps(self, h, c):
        block = lambda h, c: np.tanh(self.dense(h)) * c + 0.1 * self.norm(c)  # noqa: E731
        for _ in range(3):
            h = self.wrap(lambda h, c: block(block(h, c), c))(h, c)
        return h


class Skipped(Shared):
    """Residual blocks in segments, around all of which there is one more path."""

    def steps(self, h, c):
        first = h
        for _ in range(3):
            h = self.wrap(lambda h: h + np.tanh(self.dense(h)) + 0.1 * np.tanh(h) * h)(h)
            h = self.wrap(lambda h: h + self.dense(self.norm(h)))(h)
        return h + first


class Nested(Shared):
    """Segments in segments use the values of those around them."""

    def steps(self, h, c):
        innermost = self.wrap(lambda h, c: np.tanh(self.dense(h) * c) + h * c)
        inner = self.wrap(lambda h, c: innermost(h, c) * c + innermost(c, h) * h)
        return self.wrap(lambda h, c: (inner(h, c) + c) * inner(c, h) * c)(h, c) * c + h


class TwoInOne(Shared):
    """One value is two inputs, as at the beginning of a recurrence."""

    def steps(self, h, c):
        segment = self.wrap(lambda x, y, c: (2 * self.dense(x) * c - y, x))
        now = before = h
        for _ in range(3):
            now, before = segment(now, before, c)
        return now * before + c


class PassedOn(Shared):
    """An input is an output, too, and another one is given twice; all are used side by side."""

    def steps(self, h, c):
        segment = self.wrap(lambda h, c: (h * c, c, np.tanh(self.dense(h)) * c))
        twice = self.wrap(lambda h: (*[h * h] * 2,))
        for _ in range(3):
            h, same, other = segment(h, c)
            one, two = twice(other)
            h = h * same + c * one + np.tanh(same) * two + one * c
        return h


MODELS = {
    "mixed": mixed,
    "convolutional": convolutional,
    "transformer": Blocks,
    "several": Both,
    "in and outside": InAndOutside,
    "conditioned": Conditioned,
    "skipped": Skipped,
    "nested": Nested,
    "two in one": TwoInOne,
    "passed on": PassedOn,
}
