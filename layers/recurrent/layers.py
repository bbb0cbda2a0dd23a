"""Recurrent layers over whole sequences; backward is backpropagation through time. Cells are in
`layers.recurrent.cells`.

Sequences are (N, T, C): samples, time steps, features. Weights have PyTorch's layout and order of
gates, so that they can be exchanged: weight_ih (G H, C), weight_hh (G H, H), bias_ih and bias_hh (G
H,), with the gates i, f, g, o of an LSTM and r, z, n of a GRU, whose n is tanh(W_in x + b_in + r
(W_hn h + b_hn)).
"""

from typing import Any

import numpy as np

from layers.checks import boolean, positive_int
from layers.dropout import Dropout
from layers.engine.merge import Concatenate
from layers.engine.module import Composite
from layers.errors import Renamed, message, renamed

from .kinds import GRURecurrence, LSTMRecurrence, RNNRecurrence
from .recurrence import Recurrence, RecurrentPass

HiddenStates = tuple[tuple[Any, ...], ...]


class _Sequences(Composite):
    """Layers of recurrence on top of each other, each in one direction or in both."""

    takes_lengths = True
    replayable = True
    inputs = Renamed("input_size")
    hidden = Renamed("hidden_size")

    def __init__(
        self,
        make: Any,
        input_size: int,
        hidden_size: int,
        layers: int,
        bidirectional: bool,
        dropout: float,
        last: bool,
    ) -> None:
        name = type(self).__name__
        self.input_size = positive_int(name, "input_size", input_size)
        self.hidden_size = positive_int(name, "hidden_size", hidden_size)
        self.layers = positive_int(name, "layers", layers)
        self.bidirectional = boolean(type(self).__name__, "bidirectional", bidirectional)
        self.last = boolean(type(self).__name__, "last", last)
        directions = 2 if bidirectional else 1
        widths = [self.input_size] + [directions * self.hidden_size] * (self.layers - 1)
        self.cells: tuple[Recurrence, ...] = tuple(
            make(width) for width in widths for _ in range(directions)
        )
        self.dropout = Dropout(dropout)
        self._both = Concatenate(-1)
        self._passes: dict[tuple[int, bool, bool], RecurrentPass] = {}

    def __repr__(self) -> str:
        layers = "" if self.layers == 1 else f", layers={self.layers}"
        both = ", bidirectional=True" if self.bidirectional else ""
        last = ", last=True" if self.last else ""
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{layers}{both}{last})"

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        """Return the outputs (N, T, H), or (N, T, 2 H) of both directions, 0 after a sample's last
        step; or, with `last`, (N, H) or (N, 2 H).
        """
        return self.run(x, None, lengths)[0]

    def run(
        self, x: Any, state: HiddenStates | None = None, lengths: Any = None
    ) -> tuple[Any, HiddenStates]:
        """Return the outputs and the last states, given the initial ones.

        A state is a tuple with an entry for each layer (and direction, forward first): (h, c) of an
        LSTM, (h,) of the others, each (N, H). None stands for zeros. Gradients flow through states.
        """
        if state is not None and (
            len(state) != len(self.cells) or any(len(s) != self.cells[0].states for s in state)
        ):
            fix = "Pass what run returned, or None."
            must = f"a state must have {len(self.cells)} entries of {self.cells[0].states}"
            raise ValueError(message(self, must, [len(s) for s in state], fix))
        last: list[tuple[Any, ...]] = []
        directions = 2 if self.bidirectional else 1
        for number in range(self.layers):
            if number and self.dropout.p:
                x = self.dropout(x)
            outputs = []
            for direction in range(directions):
                index = number * directions + direction
                one = self._pass(index, state is not None, lengths is not None)
                y, *after = one(
                    x,
                    *(() if state is None else state[index]),
                    *(() if lengths is None else (lengths,)),
                )
                last.append(tuple(after))
                outputs.append(y)
            if self.last and number == self.layers - 1:
                outputs = [after[0] for after in last[-directions:]]
            x = outputs[0] if directions == 1 else self._both(*outputs)
        return x, tuple(last)

    def _pass(self, index: int, stateful: bool, ragged: bool) -> RecurrentPass:
        key = (index, stateful, ragged)
        if key not in self._passes:
            reverse = self.bidirectional and index % 2 == 1
            self._passes[key] = RecurrentPass(
                self.cells[index], repr(self), reverse, stateful, ragged
            )
            self._passes[key].precision = self.precision
        return self._passes[key]


class RNN(_Sequences):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or max(that, 0) (Elman 1990).

    Parameters
    ----------
    input_size, hidden_size
        Sizes C and H.
    nonlinearity
        "tanh" or "relu".
    layers, bidirectional
        Number of layers; whether each also reads the sequence backwards, its outputs beside those
        of the first.
    dropout
        Between layers.
    last
        Whether the output is that of each sample's own last step, the last state h (N, H), instead
        of those of all steps; with `bidirectional` (N, 2 H), the second half that of the way back,
        which ends at the first step. It does not depend on padding, to the last bit.
    bias
        Whether there are the biases b_ih and b_hh, of each gate.
    rng
        Draws the weights: those of the inputs as Glorot and Bengio 2010, the recurrent ones
        orthogonal (Saxe et al. 2014), by gate.

    Notes
    -----
    Called with x (N, T, C), and lengths (N,) of samples that are shorter than T; `run` takes and
    returns states, too.
    """

    @renamed(inputs="input_size", hidden="hidden_size")
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator,
        nonlinearity: str = "tanh",
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        last: bool = False,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            lambda width: RNNRecurrence(width, hidden_size, rng, bias, dtype, nonlinearity),
            input_size,
            hidden_size,
            layers,
            bidirectional,
            dropout,
            last,
        )


class LSTM(_Sequences):
    """c_t = f c_(t-1) + i g, h_t = o tanh(c_t), the gates i, f, o = sigmoid and g = tanh of W_ih
    x_t + b_ih + W_hh h_(t-1) + b_hh.

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000.
    `forget_bias` is its bias at the beginning: 1 lets errors through (Jozefowicz, Zaremba and
    Sutskever 2015). All other parameters are those of `RNN`.
    """

    @renamed(inputs="input_size", hidden="hidden_size")
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        last: bool = False,
        forget_bias: float = 1.0,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            lambda width: LSTMRecurrence(width, hidden_size, rng, bias, dtype, forget_bias),
            input_size,
            hidden_size,
            layers,
            bidirectional,
            dropout,
            last,
        )


class GRU(_Sequences):
    """h_t = (1 - z) n + z h_(t-1), r and z = sigmoid of both contributions, n = tanh(W_in x_t +
    b_in + r (W_hn h_(t-1) + b_hn)).

    Cho et al. 2014, with the reset gate after the product, which then is one for all gates.
    Parameters are those of `RNN`.
    """

    @renamed(inputs="input_size", hidden="hidden_size")
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: np.random.Generator,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        last: bool = False,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            lambda width: GRURecurrence(width, hidden_size, rng, bias, dtype),
            input_size,
            hidden_size,
            layers,
            bidirectional,
            dropout,
            last,
        )
