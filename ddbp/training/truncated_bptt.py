"""Truncated backpropagation through time: long sequences are learnt a window at a time, the state
carried on without gradient.

Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
trajectories", Neural Computation 2(4), 1990: with windows of k steps, an error reaches back through
at most k steps, while what the network remembers may be older.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from layers import Module, Value
from layers.errors import message
from layers.types import Array

from . import checks


def detached(state: Any) -> Any:
    """Return copies of the arrays of a state, which may be values, arrays, None, or tuples of
    such.
    """
    if isinstance(state, tuple):
        return tuple(map(detached, state))
    return None if state is None else np.array(state.array if isinstance(state, Value) else state)


class _Carried:
    """The state that a window begins with, and the one that it ends with."""

    state: Any = None
    following: Any = None


class Truncation:
    """Cuts sequences into windows, and carries a model's state from one to the next.

    Parameters
    ----------
    model
        With `run(x, state) -> (y, state)`, where a state of None is that of the beginning.
    steps
        k, time steps of a window; the last one may be shorter.
    """

    def __init__(self, model: Module, steps: int) -> None:
        self.steps = checks.positive_int("truncate", steps)
        if not hasattr(model, "run"):
            fix = "A recurrent layer and a Sequential with one have it."
            raise TypeError(
                message("Trainer", "truncate needs a model with run(x, state)", repr(model), fix)
            )
        self.model: Any = model
        self._carried = _Carried()

    def __repr__(self) -> str:
        return f"{self.steps} steps"

    def count(self, x: Array, y: Array) -> int:
        """Return the number of windows of sequences x (N, T, …) with targets y (N, T, …)."""
        return -(-_length(x, y) // self.steps)

    def windows(self, x: Array, y: Array) -> Iterator[tuple[Array, Array, float]]:
        """Yield x and y of each window, from the state of the beginning on, and its part of the
        time steps.

        Windows of several batches may take turns: a window is to be computed before another one is
        asked for.
        """
        length = _length(x, y)
        carried = _Carried()
        for start in range(0, length, self.steps):
            stop = min(start + self.steps, length)
            carried.state, self._carried = carried.following, carried
            yield (
                np.ascontiguousarray(x[:, start:stop]),
                np.ascontiguousarray(y[:, start:stop]),
                (stop - start) / length,
            )

    def in_turns(
        self, pairs: Sequence[tuple[Array, Array]]
    ) -> Iterator[tuple[int, Array, Array, float]]:
        """Yield the first window of each pair of x and y, then the second of each, and so on, with
        the number of the pair.
        """
        windows = [self.windows(x, y) for x, y in pairs]
        for _ in range(self.count(*pairs[0])):
            for number, several in enumerate(windows):
                yield number, *next(several)

    def __call__(self, x: Value) -> Value:
        """Return the model's output for a window."""
        y, state = self.model.run(x, self._carried.state)
        # Kept apart, so that a window may be computed twice.
        self._carried.following = detached(state)
        result: Value = y
        return result


def _length(x: Array, y: Array) -> int:
    """Return T of sequences x (N, T, …) with targets y (N, T, …), or refuse others."""
    if x.ndim < 2 or y.ndim < 2 or x.shape[1] != y.shape[1]:
        must, fix = (
            "truncate needs x (N, T, …) and targets (N, T, …)",
            "Leave truncate out where a sequence has one target.",
        )
        raise ValueError(message("Trainer", must, f"{x.shape} and {y.shape}", fix))
    return int(x.shape[1])
