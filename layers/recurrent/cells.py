"""One step of a recurrent layer, for loops of your own on the tape."""

from typing import Any

import numpy as np

from layers.checks import require_array, require_input
from layers.engine.module import Composite
from layers.errors import renamed

from .layers import GRU, LSTM, RNN


class _Cell(Composite):
    """A recurrent layer that takes one step at a time; its weights are those of `layer`."""

    layer: Any

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer.input_size}, {self.layer.hidden_size})"

    def _step(self, x: Any, state: tuple[Any, ...] | None) -> tuple[Any, ...]:
        require_array(self, x)
        require_input(self, x, ("N", "C"), x.dtype)
        _, (state,) = self.layer.run(x[:, np.newaxis], None if state is None else (state,))
        return state


class LSTMCell(_Cell):
    """A step of an `LSTM`: h, c = cell(x, (h, c)) for x (N, C) and states (N, H); None stands for
    zeros.

    Parameters are those of `LSTM`, `options` those of one layer: `forget_bias`, `bias`, `dtype`.
    """

    @renamed(inputs="input_size", hidden="hidden_size")
    def __init__(
        self, input_size: int, hidden_size: int, *, rng: np.random.Generator, **options: Any
    ) -> None:
        self.layer = LSTM(input_size, hidden_size, rng=rng, **options)

    def __call__(self, x: Any, state: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
        h, c = self._step(x, state)
        return h, c


class GRUCell(_Cell):
    """A step of a `GRU`: h = cell(x, h) for x (N, C) and h (N, H); None stands for zeros.

    Parameters are those of `GRU`, `options` those of one layer: `bias`, `dtype`.
    """

    @renamed(inputs="input_size", hidden="hidden_size")
    def __init__(
        self, input_size: int, hidden_size: int, *, rng: np.random.Generator, **options: Any
    ) -> None:
        self.layer = GRU(input_size, hidden_size, rng=rng, **options)

    def __call__(self, x: Any, h: Any = None) -> Any:
        return self._step(x, None if h is None else (h,))[0]


class RNNCell(_Cell):
    """A step of an `RNN`: h = cell(x, h) for x (N, C) and h (N, H); None stands for zeros.

    Parameters are those of `RNN`, `options` those of one layer: `nonlinearity`, `bias`, `dtype`.
    """

    @renamed(inputs="input_size", hidden="hidden_size")
    def __init__(
        self, input_size: int, hidden_size: int, *, rng: np.random.Generator, **options: Any
    ) -> None:
        self.layer = RNN(input_size, hidden_size, rng=rng, **options)

    def __call__(self, x: Any, h: Any = None) -> Any:
        return self._step(x, None if h is None else (h,))[0]
