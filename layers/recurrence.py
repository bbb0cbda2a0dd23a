"""The gates of recurrent layers: the weights of one layer in one direction, and how to go through time with them and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import message
from .init import orthogonal, xavier_uniform
from .kernels import recurrent
from .layer import Layer
from .memory import empty
from .parameter import Parameter
from .types import Array, Integers

if TYPE_CHECKING:
    from .tape import Call

Steps = tuple[list[Array], tuple[Array, ...]]


class Recurrence(Layer):
    """The weights of one layer in one direction, and how its gates work; used by way of a `_Pass`.

    Subclasses say how many `gates` and `states` there are, and go through the steps both ways.
    """

    gates: int
    states = 1

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator, bias: bool, dtype: Any) -> None:
        self.inputs, self.hidden = inputs, hidden
        draws = [(xavier_uniform(rng, (hidden, inputs)), orthogonal(rng, (hidden, hidden))) for _ in range(self.gates)]
        of_inputs, of_hidden = (np.concatenate(gates).astype(dtype) for gates in zip(*draws, strict=True))
        self.weight_ih, self.weight_hh = Parameter(of_inputs), Parameter(of_hidden)
        size = self.gates * hidden
        self.bias_ih = Parameter(np.zeros(size, dtype), regularized=False) if bias else None
        self.bias_hh = Parameter(np.zeros(size, dtype), regularized=False) if bias else None

    def input_bias(self) -> Array:
        """Return the biases that are added to the inputs' contribution (G H,), or empty."""
        return empty(self.weight_ih.value, 1) if self.bias_ih is None else self.bias_ih.value

    def steps(self, call: "Call", gates: Array, first: Sequence[Array | None], packed: Array, lengths: Integers) -> Steps:
        """Go through time; return the states (T + 1, N, H), h first, and what `steps_back` needs.

        `first` has the initial states, None for zeros.
        """
        raise NotImplementedError

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, packed: Array, lengths: Integers
    ) -> tuple[Array, Array]:
        """Go back through time; return the gradients (T, N, G H) of the inputs' and of the last state's contribution to the gates.

        dlast, those of the last states, become those of the initial ones.
        """
        raise NotImplementedError

    def begin(self, call: "Call", name: str, gates: Array, first: Array | None) -> Array:
        """Return memory for a state (T + 1, N, H) whose step 0 is the initial one."""
        steps, samples = gates.shape[:2]
        state = call.buffer(name, (steps + 1, samples, self.hidden), gates.dtype)
        state[0] = 0 if first is None else first
        return state


class LSTMGates(Recurrence):
    """Those of an LSTM: i, f, g and o."""

    gates, states = 4, 2

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator, bias: bool, dtype: Any, forget_bias: float) -> None:
        super().__init__(inputs, hidden, rng, bias, dtype)
        if self.bias_ih is not None:
            self.bias_ih.value[hidden : 2 * hidden] = forget_bias

    def input_bias(self) -> Array:
        return super().input_bias() if self.bias_hh is None else super().input_bias() + self.bias_hh.value

    def steps(self, call: "Call", gates: Array, first: Sequence[Array | None], packed: Array, lengths: Integers) -> Steps:
        h, c = self.begin(call, "h", gates, first[0]), self.begin(call, "c", gates, first[1])
        squashed = call.buffer("squashed", (*gates.shape[:2], self.hidden), gates.dtype)
        recurrent.lstm(h, c, squashed, gates, packed, empty(gates, 1), lengths)
        return [h, c], (gates, c, squashed)

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, packed: Array, lengths: Integers
    ) -> tuple[Array, Array]:
        gates, c, squashed = saved
        dgates = call.transient("dgates", gates.shape, gates.dtype)
        recurrent.lstm_backward(dgates, *dlast, dy, c, squashed, gates, packed, empty(gates, 1), lengths)
        return dgates, dgates


class GRUGates(Recurrence):
    """Those of a GRU: r, z and n."""

    gates = 3

    def steps(self, call: "Call", gates: Array, first: Sequence[Array | None], packed: Array, lengths: Integers) -> Steps:
        h = self.begin(call, "h", gates, first[0])
        inner = call.buffer("inner", gates.shape, gates.dtype)
        bias = empty(gates, 1) if self.bias_hh is None else self.bias_hh.value
        recurrent.gru(h, inner, gates, packed, bias, lengths)
        return [h], (gates, h, inner)

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, packed: Array, lengths: Integers
    ) -> tuple[Array, Array]:
        gates, h, inner = saved
        dgates, dinner = (call.transient(name, gates.shape, gates.dtype) for name in ("dgates", "dinner"))
        recurrent.gru_backward(dgates, dinner, *dlast, dy, h, inner, gates, packed, empty(gates, 1), lengths)
        return dgates, dinner


class RNNGates(Recurrence):
    """The one nonlinearity of an RNN."""

    gates = 1

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator, bias: bool, dtype: Any, nonlinearity: str) -> None:
        super().__init__(inputs, hidden, rng, bias, dtype)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(message("RNN", "nonlinearity must be 'tanh' or 'relu'", repr(nonlinearity), "'tanh' is usual."))
        self.rectified = nonlinearity == "relu"

    def input_bias(self) -> Array:
        return super().input_bias() if self.bias_hh is None else super().input_bias() + self.bias_hh.value

    def steps(self, call: "Call", gates: Array, first: Sequence[Array | None], packed: Array, lengths: Integers) -> Steps:
        h = self.begin(call, "h", gates, first[0])
        recurrent.rnn(h, gates, packed, empty(gates, 1), lengths, self.rectified)
        return [h], (h,)

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, packed: Array, lengths: Integers
    ) -> tuple[Array, Array]:
        (h,) = saved
        dgates = call.transient("dgates", (len(h) - 1, *h.shape[1:]), h.dtype)
        recurrent.rnn_backward(dgates, *dlast, dy, h, packed, empty(h, 1), lengths, self.rectified)
        return dgates, dgates
