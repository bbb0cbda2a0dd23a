"""One step of a recurrent layer, for loops of your own on the tape."""

from typing import Any

import numpy as np

from layers.engine.layer import Composite

from .layers import GRU, LSTM, RNN


class _Cell(Composite):
    """A recurrent layer that takes one step at a time; its weights are those of `layer`."""

    layer: Any

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer.inputs}, {self.layer.hidden})"

    def _step(self, x: Any, state: tuple[Any, ...] | None) -> tuple[Any, ...]:
        _, (state,) = self.layer.run(x[:, np.newaxis], None if state is None else (state,))
        return state


class LSTMCell(_Cell):
    """A step of an `LSTM`: h, c = cell(x, (h, c)) for x (N, C) and states (N, H); None stands for
    zeros.

    Parameters are those of `LSTM`, `options` those of one layer: `forget_bias`, `bias`, `dtype`.
    """

    def __init__(
        self, inputs: int, hidden: int, *, rng: np.random.Generator, **options: Any
    ) -> None:
        self.layer = LSTM(inputs, hidden, rng=rng, **options)

    def __call__(self, x: Any, state: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        h, c = self._step(x, state)
        return h, c


class GRUCell(_Cell):
    """A step of a `GRU`: h = cell(x, h) for x (N, C) and h (N, H); None stands for zeros.

    Parameters are those of `GRU`, `options` those of one layer: `bias`, `dtype`.
    """

    def __init__(
        self, inputs: int, hidden: int, *, rng: np.random.Generator, **options: Any
    ) -> None:
        self.layer = GRU(inputs, hidden, rng=rng, **options)

    def __call__(self, x: Any, h: Any = None) -> Any:
        return self._step(x, None if h is None else (h,))[0]


class RNNCell(_Cell):
    """A step of an `RNN`: h = cell(x, h) for x (N, C) and h (N, H); None stands for zeros.

    Parameters are those of `RNN`, `options` those of one layer: `nonlinearity`, `bias`, `dtype`.
    """

    def __init__(
        self, inputs: int, hidden: int, *, rng: np.random.Generator, **options: Any
    ) -> None:
        self.layer = RNN(inputs, hidden, rng=rng, **options)

    def __call__(self, x: Any, h: Any = None) -> Any:
        return self._step(x, None if h is None else (h,))[0]
