"""Sentences of different lengths, models that read them, and numbers beside them: what tests of
samples share.
"""

import numpy as np

from layers import LSTM, Composite, Embedding, Linear

RNG = np.random.default_rng(8)
WORDS = [RNG.integers(0, 9, n) for n in RNG.integers(1, 8, 45)]
FIRST = np.array([word[0] % 3 for word in WORDS])
A, B = RNG.standard_normal((45, 4)), RNG.standard_normal((45, 3))


class Reader(Composite):
    """Reads sentences and keeps what it was called with."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.embedding, self.lstm = Embedding(9, 5, rng=rng), LSTM(5, 6, rng=rng)
        self.head = Linear(6, 3, rng=rng)
        self.called = []

    def __call__(self, tokens, lengths):
        self.called.append((getattr(tokens, "array", tokens).copy(), lengths))
        _, ((h, _),) = self.lstm.run(self.embedding(tokens), None, lengths)
        return self.head(h)

    def __repr__(self):
        return "Reader()"


class Labeller(Composite):
    """Labels each word of sentences."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self.embedding, self.head = Embedding(9, 5, rng=rng), Linear(5, 3, rng=rng)

    def __call__(self, tokens, lengths):
        return self.head(self.embedding(tokens))
