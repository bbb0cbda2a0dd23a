"""Calls outside any tape: nothing is kept, drawn or learned."""

import numpy as np
import pytest

from layers import Layer, State


class Draws(Layer):
    def forward(self, call, x):
        call.random_key()
        return x


class Learns(Layer):
    def __init__(self):
        self.seen = State(np.zeros(()))

    def forward(self, call, x):
        call.on_gathered(np.ones((1, 1)), self.learn)
        return x

    def learn(self, everywhere):
        self.seen.value = everywhere.sum()


def test_random_numbers_without_a_tape_are_refused():
    with pytest.raises(RuntimeError, match=r"need a tape, .*; got .* Ask call\.training before\."):
        Draws()(np.zeros(3))


def test_nothing_is_learned_without_a_tape():
    layer = Learns()
    layer(np.zeros(3))
    assert layer.seen.value == 0
