"""The recurrences of LSTM, GRU and RNN: how their gates go through time, and back."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import number, one_of
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import contiguous, empty
from layers.kernels import elementwise, half, recurrent
from layers.types import Array

from .recurrence import Back, Columns, Forth, Recurrence, Steps

if TYPE_CHECKING:
    from layers.engine.call import Call


class LSTMRecurrence(Recurrence):
    """That of `LSTM`: the gates i, f, g and o."""

    gates, states = 4, 2
    reads_states = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rng: np.random.Generator,
        bias: bool,
        dtype: Any,
        forget_bias: float,
    ) -> None:
        super().__init__(input_size, hidden_size, rng, bias, dtype)
        if self.bias_ih is not None:
            self.bias_ih.value[hidden_size : 2 * hidden_size] = number(
                "LSTM", "forget_bias", forget_bias, "1 is usual."
            )

    def steps(self, call: ForwardCall, walk: Forth) -> Steps:
        y, gates, first, inputs, way, rooms = walk
        if gates.dtype != y.dtype:
            h, cell = (
                self.begin_apart(call, name, y, state)
                for name, state in zip("hc", first, strict=True)
            )
            c = call.buffer("c", (len(gates) + 1, *h.shape), gates.dtype)
            call.run(recurrent.lstm_in_words, y, h, cell, c, gates, rooms[0], inputs, *way)
            return [h, cell], (self.precision.keep(call, y), gates, c, empty(y, 3))
        h, c = self.begin(call, "h", gates, first[0]), self.begin(call, "c", gates, first[1])
        squashed = call.buffer("squashed", (*gates.shape[:2], self.hidden_size), gates.dtype)
        call.run(recurrent.lstm, y, h, c, squashed, gates, inputs, *way)
        return [h[-1], c[-1]], (h, gates, c, squashed)

    def steps_back(self, call: "Call", walk: Back) -> tuple[Array, Array]:
        saved, dlast, dy, way, largest = walk
        _, gates, c, squashed = saved
        # A kernel that makes an array counts references to all, which takes a tenth of its time.
        line = call.buffer("line", (self.hidden_size,), dy.dtype)
        call.run(walk.kernels.lstm_backward, gates, *dlast, *largest, dy, c, squashed, line, *way)
        return gates, gates

    def gates_and_cells(self, saved: tuple[Array, ...]) -> tuple[list[Columns], list[Columns]]:
        _, gates, c, squashed = saved
        if not squashed.size:
            gates, c = _numbers(gates), _numbers(c)
            squashed = np.empty((len(c) - 1, *c.shape[1:]), c.dtype)
            elementwise.tanh_forward(squashed.reshape(-1), c[1:].reshape(-1))
        size = self.hidden_size
        return [(gates, 0, 2 * size), (gates, 3 * size, 4 * size)], [(squashed, 0, size)]


class GRURecurrence(Recurrence):
    """That of `GRU`: the gates r, z and n."""

    gates = 3
    biases_apart = True

    def steps(self, call: ForwardCall, walk: Forth) -> Steps:
        y, gates, first, inputs, way, rooms = walk
        inner = call.buffer("inner", gates.shape, gates.dtype)
        if gates.dtype != y.dtype:
            h = self.begin_apart(call, "h", y, first[0])
            room, of_state = rooms
            call.run(recurrent.gru_in_words, y, h, inner, of_state, gates, room, inputs, *way)
            return [h], (self.precision.keep(call, y), gates, inner)
        h = self.begin(call, "h", gates, first[0])
        call.run(recurrent.gru, y, h, inner, gates, inputs, *way)
        return [h[-1]], (h, gates, inner)

    def steps_back(self, call: "Call", walk: Back) -> tuple[Array, Array]:
        saved, dlast, dy, way, largest = walk
        h, gates, inner = saved
        call.run(walk.kernels.gru_backward, gates, inner, *dlast, *largest, dy, h, *way)
        return gates, inner

    def gates_and_cells(self, saved: tuple[Array, ...]) -> tuple[list[Columns], list[Columns]]:
        gates, size = _numbers(saved[1]), self.hidden_size
        return [(gates, 0, 2 * size)], [(gates, 2 * size, 3 * size)]


class RNNRecurrence(Recurrence):
    """That of `RNN`: one nonlinearity."""

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rng: np.random.Generator,
        bias: bool,
        dtype: Any,
        nonlinearity: str,
    ) -> None:
        super().__init__(input_size, hidden_size, rng, bias, dtype)
        one_of("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"), "'tanh' is usual.")
        self.rectified = nonlinearity == "relu"

    def steps(self, call: ForwardCall, walk: Forth) -> Steps:
        y, gates, first, inputs, way, rooms = walk
        if gates.dtype != y.dtype:
            h = self.begin_apart(call, "h", y, first[0])
            call.run(recurrent.rnn_in_words, y, h, rooms[0], inputs, *way, self.rectified)
            return [h], (self.precision.keep(call, y),)
        h = self.begin(call, "h", gates, first[0])
        call.run(recurrent.rnn, y, h, gates, inputs, *way, self.rectified)
        return [h[-1]], (h,)

    def steps_back(self, call: "Call", walk: Back) -> tuple[Array, Array]:
        saved, dlast, dy, way, largest = walk
        (h,) = saved
        dgates = call.pooled("dgates", (len(h) - 1, *h.shape[1:]), h.dtype)
        call.run(walk.kernels.rnn_backward, dgates, *dlast, *largest, dy, h, *way, self.rectified)
        return dgates, dgates

    def gates_and_cells(self, saved: tuple[Array, ...]) -> tuple[list[Columns], list[Columns]]:
        (h,) = saved
        if self.rectified:
            return [], []
        # Outputs stand by sample; which of its steps is which does not matter here.
        h = h[1:] if h.dtype.kind == "f" else _numbers(np.swapaxes(h, 0, 1))
        return [], [(h, 0, self.hidden_size)]


def _numbers(kept: Array) -> Array:
    """Return the numbers of what was saved, for whom watches."""
    if kept.dtype.kind == "f":
        return kept
    result = np.empty(kept.shape, np.float32)
    half.widen(result.reshape(-1), contiguous(kept).reshape(-1))
    return result
