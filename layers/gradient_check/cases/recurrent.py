"""The cases of recurrent layers: every option, ragged lengths, states that come in and go out, and
cells.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from layers.engine.merge import Concatenate
from layers.engine.module import Module
from layers.recurrent.cells import GRUCell, LSTMCell, RNNCell
from layers.recurrent.layers import GRU, LSTM, RNN
from layers.types import Array

from .case import BATCH, Apply, Case, Generator, real

STEPS, INPUTS, HIDDEN = 4, 3, 5
LENGTHS = np.array([4, 1, 3, 4, 2, 1, 3])

Make = Callable[[Generator], Module]


def recurrence(of: Callable[..., Module], **options: Any) -> Make:
    """Return the constructor of a recurrent layer whose biases are not 0."""

    def make(rng: Generator) -> Module:
        layer = of(INPUTS, HIDDEN, rng=rng, **options)
        for name, parameter in layer.named_parameters():
            if "bias" in name:
                parameter.value = rng.standard_normal(parameter.shape)
        return layer

    return make


def applied(function: Callable[..., Any], make: Make) -> Make:
    """Return the constructor of a layer that calls a recurrent one in its own way."""
    return lambda rng: Apply(function, make(rng))


def _sequences(states: int = 0, lengths: bool = False) -> Callable[[Generator], tuple[Any, ...]]:
    """Draw sequences, so many initial states, and add lengths if so said."""
    shapes = ((BATCH, STEPS, INPUTS), *[(BATCH, HIDDEN)] * states)
    return lambda rng: (*real(*shapes)(rng), *([LENGTHS] if lengths else []))


def _everything(y: Any, last: tuple[tuple[Any, ...], ...]) -> Any:
    """Return outputs and last states side by side."""
    rows = y.reshape(len(y), y.shape[1] * y.shape[2])
    return Concatenate(-1)(rows, *(state for states in last for state in states))


def _run(layer: Any, x: Any, *state: Any) -> Any:
    return _everything(*layer.run(x, (state,)))


def _run_both_ways(layer: Any, x: Any, h: Any, back: Any, lengths: Array) -> Any:
    return _everything(*layer.run(x, ((h,), (back,)), lengths))


def _run_lstm_ragged(layer: Any, x: Any, h: Any, c: Any, lengths: Array) -> Any:
    return _everything(*layer.run(x, ((h, c),), lengths))


def _last_state(layer: Any, x: Any, lengths: Array) -> Any:
    return layer.run(x, None, lengths)[1][0][0]


_WHOLE, _RAGGED = _sequences(), _sequences(lengths=True)
_TWO = {"layers": 2, "bidirectional": True}

CASES = (
    Case("RNN", recurrence(RNN), _WHOLE),
    Case("RNN without bias", recurrence(RNN, bias=False), _WHOLE),
    Case("RNN of relu", recurrence(RNN, nonlinearity="relu"), _WHOLE),
    Case(
        "RNN of relu both ways with lengths",
        recurrence(RNN, nonlinearity="relu", bidirectional=True),
        _RAGGED,
    ),
    Case("RNN of two layers both ways with lengths", recurrence(RNN, **_TWO), _RAGGED),
    Case(
        "RNN both ways with states and lengths",
        applied(_run_both_ways, recurrence(RNN, bidirectional=True)),
        _sequences(2, True),
    ),
    Case("RNNCell", recurrence(RNNCell), real((BATCH, INPUTS), (BATCH, HIDDEN))),
    Case("LSTM", recurrence(LSTM), _WHOLE),
    Case("LSTM without bias", recurrence(LSTM, bias=False), _WHOLE),
    Case("LSTM both ways", recurrence(LSTM, bidirectional=True), _WHOLE),
    Case("LSTM with lengths", recurrence(LSTM), _RAGGED),
    Case("LSTM of two layers both ways with lengths", recurrence(LSTM, **_TWO), _RAGGED),
    Case("LSTM with states", applied(_run, recurrence(LSTM)), _sequences(2)),
    Case(
        "LSTM with states and lengths",
        applied(_run_lstm_ragged, recurrence(LSTM)),
        _sequences(2, True),
    ),
    Case("LSTM of which the last state is used", applied(_last_state, recurrence(LSTM)), _RAGGED),
    Case("LSTM of two layers both ways, last", recurrence(LSTM, last=True, **_TWO), _RAGGED),
    Case("RNN both ways, last", recurrence(RNN, last=True, bidirectional=True), _WHOLE),
    Case(
        "LSTMCell",
        applied(lambda cell, x, h, c: Concatenate(-1)(*cell(x, (h, c))), recurrence(LSTMCell)),
        real((BATCH, INPUTS), (BATCH, HIDDEN), (BATCH, HIDDEN)),
    ),
    Case("GRU", recurrence(GRU), _WHOLE),
    Case("GRU without bias", recurrence(GRU, bias=False), _WHOLE),
    Case("GRU with lengths", recurrence(GRU), _RAGGED),
    Case("GRU, last", recurrence(GRU, last=True), _RAGGED),
    Case("GRU of two layers both ways with lengths", recurrence(GRU, **_TWO), _RAGGED),
    Case("GRU with states", applied(_run, recurrence(GRU)), _sequences(1)),
    Case(
        "GRU both ways with states and lengths",
        applied(_run_both_ways, recurrence(GRU, bidirectional=True)),
        _sequences(2, True),
    ),
    Case("GRUCell", recurrence(GRUCell), real((BATCH, INPUTS), (BATCH, HIDDEN))),
)
