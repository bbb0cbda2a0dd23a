"""Recurrent layers over whole sequences, and cells for loops of your own; backward is backpropagation through time.

Sequences are (N, T, C): samples, time steps, features. Weights have PyTorch's layout and order of gates, so that they can be
exchanged: weight_ih (G H, C), weight_hh (G H, H), bias_ih and bias_hh (G H,), with the gates i, f, g, o of an LSTM and r, z, n of a
GRU, whose n is tanh(W_in x + b_in + r (W_hn h + b_hn)).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from .dropout import Dropout
from .errors import message
from .kernels import dense, gemm, recurrent
from .layer import Composite, Layer
from .memory import contiguous, empty
from .merge import Concatenate
from .parameter import Parameter
from .recurrence import GRUGates, LSTMGates, Recurrence, RNNGates
from .sizes import positive
from .types import Array, Integers

if TYPE_CHECKING:
    from .tape import Call


class _Pass(Layer):
    """A recurrence over sequences (N, T, C) in one direction.

    Further inputs are initial states, if `stateful`, and lengths (N,), if `ragged`. The last states, if `final`, are further steps
    of the output (N, T, H).
    """

    def __init__(self, core: Recurrence, owner: str, reverse: bool, stateful: bool, ragged: bool, final: bool) -> None:
        self.core, self.owner = core, owner
        self.reverse, self.stateful, self.ragged, self.final = reverse, stateful, ragged, final

    def __repr__(self) -> str:
        return self.owner

    def own_parameters(self) -> list[Parameter]:
        return self.core.own_parameters()

    def forward(self, call: "Call", x: Array, *rest: Any) -> Array:
        core, hidden = self.core, self.core.hidden
        weight = core.weight_ih.value
        self._check(x, weight)
        samples, steps, _ = x.shape
        first = self._initial(rest, samples, weight) if self.stateful else [None] * core.states
        lengths = self._lengths(call, rest[-1] if self.ragged else None, samples, steps)
        in_time = call.buffer("x", (steps, samples, core.inputs), x.dtype)
        recurrent.by_time(in_time, contiguous(x), lengths, self.reverse)
        gates = call.buffer("gates", (steps, samples, core.gates * hidden), x.dtype)
        gemm.multiply(_rows(gates), _rows(in_time), False, weight, True, core.input_bias(), False)
        (packed,) = call.scratch(x.dtype, gemm.packed_size(hidden, core.gates * hidden, x.itemsize))
        gemm.pack(packed, core.weight_hh.value, True)
        states, saved = core.steps(call, gates, first, packed, lengths)
        call.save(states[0], in_time, lengths, saved)
        y = call.buffer("y", (samples, steps + core.states * self.final, hidden), x.dtype)
        recurrent.by_sample(y, states[0][1:], lengths, self.reverse)
        for k in range(core.states * self.final):
            y[:, steps + k] = states[k][steps]
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        core, hidden = self.core, self.core.hidden
        h, in_time, lengths, saved = call.saved
        steps, samples, _ = in_time.shape
        sizes = (gemm.packed_size(core.gates * hidden, hidden, dy.itemsize), steps * samples * hidden)
        packed, dy_in_time = call.scratch(dy.dtype, *sizes)
        dy_in_time = dy_in_time.reshape(steps, samples, hidden)
        dy = contiguous(dy)
        recurrent.by_time(dy_in_time, dy, lengths, self.reverse)
        dlast = [call.buffer(f"dlast {k}", (samples, hidden), dy.dtype) for k in range(core.states)]
        for k, d in enumerate(dlast):
            d[...] = dy[:, steps + k] if self.final else 0
        gemm.pack(packed, call.feedback(core.weight_hh), False)
        dgates, dinner = core.steps_back(call, saved, dlast, dy_in_time, packed, lengths)
        dx = self._input_gradient(call, dgates, in_time.shape, lengths) if call.wants(0) else None
        self._weight_gradients(call, dgates, dinner, in_time, h[:steps])
        rest = [d if call.wants(1 + k) else None for k, d in enumerate(dlast)] if self.stateful else []
        return (dx, *rest, *([None] if self.ragged else []))

    def _input_gradient(self, call: "Call", dgates: Array, shape: tuple[int, ...], lengths: Integers) -> Array:
        steps, samples, inputs = shape
        (in_time,) = call.scratch(dgates.dtype, steps * samples * inputs)
        in_time = in_time.reshape(shape)
        weight = call.feedback(self.core.weight_ih)
        gemm.multiply(_rows(in_time), _rows(dgates), False, weight, False, empty(dgates, 1), False)
        dx = call.transient("dx", (samples, steps, inputs), dgates.dtype)
        recurrent.by_sample(dx, in_time, lengths, self.reverse)
        return dx

    def _weight_gradients(self, call: "Call", dgates: Array, dinner: Array, x: Array, h: Array) -> None:
        """Add the products over all steps and samples of each shard."""
        core, steps = self.core, len(x)
        bounds = call.bounds(x.shape[1])
        if len(bounds) > 2:
            dgates, dinner, x, h = self._by_shard(call, bounds, dgates, dinner, x, h)
        nothing = empty(x, 2)
        for weight, bias, dz, rows in (
            (core.weight_ih, core.bias_ih, dgates, x),
            (core.weight_hh, core.bias_hh, dinner, h),
        ):
            dw, add_weight = call.gradient_into(weight)
            db, add_bias = (nothing, False) if bias is None else call.gradient_into(bias)
            dz = _rows(dz)
            dense.backward(nothing, dw, db, nothing, dz, dz, _rows(rows), weight.value, bounds * steps, add_weight, add_bias)

    def _by_shard(self, call: "Call", bounds: Integers, dgates: Array, dinner: Array, x: Array, h: Array) -> list[Array]:
        """Return the arrays (T, N, C) with the steps of each shard together."""
        apart = dinner is not dgates
        arrays = [dgates, x, h, *([dinner] if apart else [])]
        copies = call.scratch(x.dtype, *(array.size for array in arrays))
        for copy, array in zip(copies, arrays, strict=True):
            recurrent.by_shard(copy, contiguous(array), bounds)
        shaped = [copy.reshape(array.shape) for copy, array in zip(copies, arrays, strict=True)]
        return [shaped[0], shaped[3] if apart else shaped[0], shaped[1], shaped[2]]

    def _check(self, x: Array, weight: Array) -> None:
        inputs = self.core.inputs
        if x.ndim != 3 or x.shape[2] != inputs:
            fix = (
                "A single sequence needs a batch axis: x[np.newaxis]."
                if x.ndim == 2
                else "Samples first, then time, then features."
            )
            raise ValueError(message(self.owner, f"the input must have shape (N, T, {inputs})", x.shape, fix))
        if x.shape[1] == 0:
            raise ValueError(message(self.owner, "sequences must have one time step or more", x.shape, "Leave empty ones out."))
        if x.dtype != weight.dtype:
            self.refuse_dtype(x, weight.dtype)

    def _initial(self, rest: tuple[Any, ...], samples: int, weight: Array) -> list[Array | None]:
        expected = (samples, self.core.hidden)
        for state in rest[: self.core.states]:
            if state.shape != expected or state.dtype != weight.dtype:
                fix = "A state belongs to its batch: pass None, or the state of the same samples."
                got = f"{state.shape} {state.dtype}"
                raise ValueError(message(self.owner, f"initial states must have shape {expected}, type {weight.dtype}", got, fix))
        return list(rest[: self.core.states])

    def _lengths(self, call: "Call", lengths: Any, samples: int, steps: int) -> Integers:
        result = call.buffer("lengths", (samples,), np.int64)
        if lengths is None:
            result[...] = steps
            return result
        lengths = np.asarray(lengths)
        if lengths.dtype.kind not in "iu" or lengths.shape != (samples,):
            fix = "Pass the number of valid steps of each sample."
            got = f"{lengths.shape} {lengths.dtype}"
            raise ValueError(message(self.owner, f"lengths must be integers of shape ({samples},)", got, fix))
        wrong = np.flatnonzero((lengths < 1) | (lengths > steps))
        if wrong.size:
            fix = "Leave empty sequences out; a length counts valid steps."
            got = f"{lengths[wrong[0]]} of sample {wrong[0]}"
            raise ValueError(message(self.owner, f"lengths must be in 1..{steps}", got, fix))
        result[...] = lengths
        return result


def _rows(array: Array) -> Array:
    """Return (T, N, C) as (T N, C)."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


State = tuple[tuple[Any, ...], ...]


class _Sequences(Composite):
    """Layers of recurrence on top of each other, each in one direction or in both."""

    def __init__(
        self,
        make: Any,
        inputs: int,
        hidden: int,
        layers: int,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        name = type(self).__name__
        self.inputs, self.hidden = positive(name, "inputs", inputs), positive(name, "hidden", hidden)
        self.layers, self.bidirectional = positive(name, "layers", layers), bool(bidirectional)
        directions = 2 if bidirectional else 1
        widths = [self.inputs] + [directions * self.hidden] * (self.layers - 1)
        self.cells: tuple[Recurrence, ...] = tuple(make(width) for width in widths for _ in range(directions))
        self.dropout = Dropout(dropout)
        self._both = Concatenate(-1)
        self._passes: dict[tuple[int, bool, bool, bool], _Pass] = {}

    def __repr__(self) -> str:
        layers = "" if self.layers == 1 else f", layers={self.layers}"
        both = ", bidirectional=True" if self.bidirectional else ""
        return f"{type(self).__name__}({self.inputs}, {self.hidden}{layers}{both})"

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        """Return the outputs (N, T, H), or (N, T, 2 H) of both directions; 0 after a sample's last step."""
        return self._through(x, None, lengths, final=False)[0]

    def run(self, x: Any, state: State | None = None, lengths: Any = None) -> tuple[Any, State]:
        """Return the outputs and the last states, given the initial ones.

        A state is a tuple with an entry for each layer (and direction, forward first): (h, c) of an LSTM, (h,) of the others, each
        (N, H). None stands for zeros. Gradients flow through states.
        """
        return self._through(x, state, lengths, final=True)

    def _through(self, x: Any, state: State | None, lengths: Any, final: bool) -> tuple[Any, State]:
        if state is not None and (len(state) != len(self.cells) or any(len(s) != self.cells[0].states for s in state)):
            fix = "Pass what run returned, or None."
            must = f"a state must have {len(self.cells)} entries of {self.cells[0].states}"
            raise ValueError(message(self, must, [len(s) for s in state], fix))
        last: list[tuple[Any, ...]] = []
        directions = 2 if self.bidirectional else 1
        for number in range(self.layers):
            if number and self.dropout.p:
                x = self.dropout(x)
            steps = x.shape[1] if len(x.shape) > 1 else 0
            outputs = []
            for direction in range(directions):
                index = number * directions + direction
                one = self._pass(index, state is not None, lengths is not None, final)
                y = one(x, *(() if state is None else state[index]), *(() if lengths is None else (lengths,)))
                if final:
                    last.append(tuple(y[:, steps + k] for k in range(one.core.states)))
                    y = y[:, :steps]
                outputs.append(y)
            x = outputs[0] if directions == 1 else self._both(*outputs)
        return x, tuple(last)

    def _pass(self, index: int, stateful: bool, ragged: bool, final: bool) -> _Pass:
        key = (index, stateful, ragged, final)
        if key not in self._passes:
            reverse = self.bidirectional and index % 2 == 1
            self._passes[key] = _Pass(self.cells[index], repr(self), reverse, stateful, ragged, final)
        return self._passes[key]


class RNN(_Sequences):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or max(that, 0) (Elman 1990).

    Parameters
    ----------
    inputs, hidden
        Sizes C and H.
    nonlinearity
        "tanh" or "relu".
    layers, bidirectional
        Number of layers; whether each also reads the sequence backwards, its outputs beside those of the first.
    dropout
        Between layers.
    rng
        Draws the weights: those of the inputs as Glorot and Bengio 2010, the recurrent ones orthogonal (Saxe et al. 2014), by gate.

    Called with x (N, T, C), and lengths (N,) of samples that are shorter than T; `run` takes and returns states, too.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        rng: np.random.Generator,
        nonlinearity: str = "tanh",
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            lambda width: RNNGates(width, hidden, rng, bias, dtype, nonlinearity), inputs, hidden, layers, bidirectional, dropout
        )


class LSTM(_Sequences):
    """c_t = f c_(t-1) + i g, h_t = o tanh(c_t), the gates i, f, o = sigmoid and g = tanh of W_ih x_t + b_ih + W_hh h_(t-1) + b_hh.

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000. `forget_bias` is its bias at the
    beginning: 1 lets errors through (Jozefowicz, Zaremba and Sutskever 2015). For the rest see `RNN`.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        rng: np.random.Generator,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            lambda width: LSTMGates(width, hidden, rng, bias, dtype, forget_bias), inputs, hidden, layers, bidirectional, dropout
        )


class GRU(_Sequences):
    """h_t = (1 - z) n + z h_(t-1), r and z = sigmoid of both contributions, n = tanh(W_in x_t + b_in + r (W_hn h_(t-1) + b_hn)).

    Cho et al. 2014, with the reset gate after the product, which then is one for all gates. For the rest see `RNN`.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        rng: np.random.Generator,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(lambda width: GRUGates(width, hidden, rng, bias, dtype), inputs, hidden, layers, bidirectional, dropout)
