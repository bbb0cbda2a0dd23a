"""One recurrence through time, in one direction: its weights, and the calls that go through a
sequence and back.

`layers.recurrent` makes recurrent layers of these.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from layers.checks import boolean, number, one_of, require_input
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.memory import contiguous, empty
from layers.engine.module import Module
from layers.engine.parameter import Parameter
from layers.errors import message
from layers.init import orthogonal, xavier_uniform
from layers.initial import drawn, filled
from layers.kernels import dense, gemm, recurrent, reduce
from layers.types import Array, Integers

if TYPE_CHECKING:
    from layers.engine.call import Call


Inputs = tuple[Array, Array, Array]
Steps = tuple[list[Array], tuple[Array, ...]]


class Way(NamedTuple):
    """How the kernels go through time, in the order in which they take it.

    Attributes
    ----------
    packed
        The recurrent weight, packed.
    bias
        A bias (G H,) that is added at each step, or an empty one.
    lengths
        The number of valid steps of each sample (N,).
    reverse
        Whether the sequence is gone through from its end.
    """

    packed: Array
    bias: Array
    lengths: Integers
    reverse: bool


class Recurrence(Module):
    """The weights of one layer in one direction, and how its gates work; used by way of a
    `RecurrentPass`.

    Subclasses say how many `gates` and `states` there are, and go through the steps both ways.
    """

    gates: int
    states = 1
    biases_apart = False
    """Whether the second bias is added to the last state's contribution alone, and not to the sum
    of both contributions.
    """

    def __init__(
        self, input_size: int, hidden_size: int, rng: np.random.Generator, bias: bool, dtype: Any
    ) -> None:
        self.input_size = input_size
        self.hidden_size = hidden_size
        owner = type(self).__name__
        draws = [
            (
                drawn(owner, xavier_uniform, rng, (hidden_size, input_size), dtype),
                drawn(owner, orthogonal, rng, (hidden_size, hidden_size), dtype),
            )
            for _ in range(self.gates)
        ]
        of_inputs, of_hidden = (np.concatenate(gates) for gates in zip(*draws, strict=True))
        self.weight_ih = Parameter(of_inputs)
        self.weight_hh = Parameter(of_hidden)
        size = self.gates * hidden_size
        bias = boolean(owner, "bias", bias)
        self.bias_ih = (
            Parameter(filled(owner, 0.0, (size,), dtype), regularized=False) if bias else None
        )
        self.bias_hh = (
            Parameter(filled(owner, 0.0, (size,), dtype), regularized=False) if bias else None
        )

    def input_bias(self) -> Array:
        """Return the biases that are added to the inputs' contribution (G H,), or empty."""
        if self.bias_ih is None or self.bias_hh is None:
            return empty(self.weight_ih.value, 1)
        return (
            self.bias_ih.value
            if self.biases_apart
            else np.asarray(self.bias_ih.value + self.bias_hh.value)
        )

    def step_bias(self) -> Array:
        """Return the bias that is added to the last state's contribution at each step (G H,), or
        empty.
        """
        return (
            empty(self.weight_ih.value, 1)
            if self.bias_hh is None or not self.biases_apart
            else self.bias_hh.value
        )

    def steps(
        self,
        call: ForwardCall,
        y: Array,
        gates: Array,
        first: Sequence[Array | None],
        inputs: Inputs,
        way: Way,
    ) -> Steps:
        """Go through time and write y; return the states (T + 1, N, H), h first, and what
        `steps_back` needs.

        `first` has the initial states, None for zeros; `inputs` are x, its packed weight and the
        bias that is added to their product.
        """
        raise NotImplementedError

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, way: Way
    ) -> tuple[Array, Array]:
        """Go back through time; return the gradients (T, N, G H) of the inputs' and of the last
        state's contribution to the gates.

        They may take the place of what was saved. dlast, those of the last states, become those of
        the initial ones.
        """
        raise NotImplementedError

    def begin(self, call: ForwardCall, name: str, gates: Array, first: Array | None) -> Array:
        """Return memory for a state (T + 1, N, H) whose step 0 is the initial one."""
        steps, samples = gates.shape[:2]
        state = call.buffer(name, (steps + 1, samples, self.hidden_size), gates.dtype)
        state[0] = 0 if first is None else first
        return state


class LSTMRecurrence(Recurrence):
    """That of `LSTM`: the gates i, f, g and o."""

    gates, states = 4, 2

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

    def steps(
        self,
        call: ForwardCall,
        y: Array,
        gates: Array,
        first: Sequence[Array | None],
        inputs: Inputs,
        way: Way,
    ) -> Steps:
        h, c = self.begin(call, "h", gates, first[0]), self.begin(call, "c", gates, first[1])
        squashed = call.buffer("squashed", (*gates.shape[:2], self.hidden_size), gates.dtype)
        recurrent.lstm(y, h, c, squashed, gates, inputs, *way)
        return [h, c], (gates, c, squashed)

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, way: Way
    ) -> tuple[Array, Array]:
        gates, c, squashed = saved
        recurrent.lstm_backward(gates, *dlast, dy, c, squashed, *way)
        return gates, gates


class GRURecurrence(Recurrence):
    """That of `GRU`: the gates r, z and n."""

    gates = 3
    biases_apart = True

    def steps(
        self,
        call: ForwardCall,
        y: Array,
        gates: Array,
        first: Sequence[Array | None],
        inputs: Inputs,
        way: Way,
    ) -> Steps:
        h = self.begin(call, "h", gates, first[0])
        inner = call.buffer("inner", gates.shape, gates.dtype)
        recurrent.gru(y, h, inner, gates, inputs, *way)
        return [h], (gates, h, inner)

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, way: Way
    ) -> tuple[Array, Array]:
        gates, h, inner = saved
        recurrent.gru_backward(gates, inner, *dlast, dy, h, *way)
        return gates, inner


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

    def steps(
        self,
        call: ForwardCall,
        y: Array,
        gates: Array,
        first: Sequence[Array | None],
        inputs: Inputs,
        way: Way,
    ) -> Steps:
        h = self.begin(call, "h", gates, first[0])
        recurrent.rnn(y, h, gates, inputs, *way, self.rectified)
        return [h], (h,)

    def steps_back(
        self, call: "Call", saved: tuple[Array, ...], dlast: list[Array], dy: Array, way: Way
    ) -> tuple[Array, Array]:
        (h,) = saved
        dgates = call.pooled("dgates", (len(h) - 1, *h.shape[1:]), h.dtype)
        recurrent.rnn_backward(dgates, *dlast, dy, h, *way, self.rectified)
        return dgates, dgates


class RecurrentPass(Layer):
    """A recurrence over sequences (N, T, C) in one direction; gives the outputs (N, T, H) and the
    last states (N, H).

    Further inputs are the initial states, if `stateful`, and lengths (N,), if `ragged`.
    """

    def __init__(
        self, core: Recurrence, owner: str, reverse: bool, stateful: bool, ragged: bool
    ) -> None:
        self.core = core
        self.owner = owner
        self.reverse = reverse
        self.stateful = stateful
        self.ragged = ragged

    def __repr__(self) -> str:
        return self.owner

    def own_parameters(self) -> list[Parameter]:
        return self.core.own_parameters()

    def flops(self, y: tuple[Array, ...], *inputs: Array) -> int:
        samples, steps = inputs[0].shape[:2]
        core = self.core
        return (
            2 * int(samples) * int(steps) * (core.weight_ih.value.size + core.weight_hh.value.size)
        )

    def forward(self, call: ForwardCall, x: Array, *rest: Any) -> tuple[Array, ...]:
        core = self.core
        weight = core.weight_ih.value
        self._check(x, weight)
        samples, steps, _ = x.shape
        first = self._initial(rest, samples, weight) if self.stateful else [None] * core.states
        lengths = self._lengths(call, rest[-1] if self.ragged else None, samples, steps)
        in_time = call.buffer("x", (steps, samples, core.input_size), x.dtype)
        recurrent.by_time(in_time, contiguous(x), lengths, self.reverse)
        y = call.buffer("y", (samples, steps, core.hidden_size), x.dtype)
        states, saved = self._steps(call, y, in_time, first, lengths)
        call.save(y, in_time, lengths, states, saved)
        return (y, *(state[steps] for state in states))

    def _steps(
        self,
        call: ForwardCall,
        y: Array,
        x: Array,
        first: Sequence[Array | None],
        lengths: Integers,
    ) -> Steps:
        """Go through time with x (T, N, C): see `Recurrence.steps`."""
        core, weight = self.core, self.core.weight_ih.value
        gates = call.buffer("gates", (*x.shape[:2], core.gates * core.hidden_size), x.dtype)
        sizes = (
            gemm.packed_size(width, gates.shape[2], x.itemsize)
            for width in (core.input_size, core.hidden_size)
        )
        packed_ih, packed = call.scratch(x.dtype, *sizes)
        gemm.pack(packed_ih, weight, True)
        gemm.pack(packed, core.weight_hh.value, True)
        inputs = (x, packed_ih, core.input_bias())
        way = Way(packed, core.step_bias(), lengths, self.reverse)
        return core.steps(call, y, gates, first, inputs, way)

    def backward(
        self, call: "Call", dy: Array | None, *dstates: Array | None
    ) -> tuple[Array | None, ...]:
        core, hidden = self.core, self.core.hidden_size
        y, in_time, lengths, states, saved = call.saved
        if saved is None:
            # An earlier backward pass has written over it.
            _, saved = self._steps(call, y, in_time, [state[0] for state in states], lengths)
        call.save(y, in_time, lengths, states, None)
        h, (steps, samples, _) = states[0], in_time.shape
        if dy is None:
            dy = call.pooled("dy", (samples, steps, hidden), h.dtype)
            dy[...] = 0
        (packed,) = call.scratch(h.dtype, gemm.packed_size(core.gates * hidden, hidden, h.itemsize))
        dlast = [call.buffer(f"dlast {k}", (samples, hidden), h.dtype) for k in range(core.states)]
        for into, of in zip(dlast, dstates, strict=True):
            into[...] = 0 if of is None else of
        gemm.pack(packed, call.feedback(core.weight_hh), False)
        way = Way(packed, empty(h, 1), lengths, self.reverse)
        dgates, dinner = core.steps_back(call, saved, dlast, contiguous(dy), way)
        dx = self._gradients(call, dgates, dinner, in_time, h[:steps], lengths)
        rest = (
            [d if call.wants(1 + k) else None for k, d in enumerate(dlast)] if self.stateful else []
        )
        return (dx, *rest, *([None] if self.ragged else []))

    def _gradients(
        self, call: "Call", dgates: Array, dinner: Array, x: Array, h: Array, lengths: Integers
    ) -> Array | None:
        """Return the gradient of the input, if wanted, and add those of the weights, which are
        products over all steps.
        """
        core, (steps, samples, inputs), nothing = self.core, x.shape, empty(x, 2)
        weight, bounds = call.feedback(core.weight_ih), call.bounds(samples)
        dx, in_time = None, empty(x, 3)
        if call.wants(0):
            dx = call.pooled("dx", (samples, steps, inputs), x.dtype)
            (in_time,) = call.scratch(x.dtype, x.shape)
        into = _rows(in_time)
        if len(bounds) > 2:
            if dx is not None:
                gemm.multiply(into, _rows(dgates), False, weight, False, empty(x, 1), False)
                recurrent.by_sample(dx, in_time, lengths, self.reverse)
            # This takes the memory of `in_time`.
            dgates, dinner, x, h = self._by_shard(call, bounds, dgates, dinner, x, h)
            into = nothing
        bounds_of_rows = call.bounds(steps * samples)
        self._weight_gradients(
            call, into, _rows(dgates), _rows(dinner), _rows(x), _rows(h), weight, bounds_of_rows
        )
        if dx is not None and len(bounds) == 2:
            recurrent.by_sample(dx, in_time, lengths, self.reverse)
        return dx

    def _weight_gradients(
        self,
        call: "Call",
        dx: Array,
        dgates: Array,
        dinner: Array,
        x: Array,
        h: Array,
        weight: Array,
        bounds: Integers,
    ) -> None:
        core, nothing = self.core, empty(x, 2)
        dw, add_weight = call.wanted_gradient(core.weight_ih, nothing)
        du, add_second = call.wanted_gradient(core.weight_hh, nothing)
        db, add_bias = call.wanted_gradient(core.bias_ih, nothing)
        db_second, add_bias_second = call.wanted_gradient(core.bias_hh, nothing)
        if core.biases_apart:
            plain = dense.IDENTITY
            dense.backward(
                dx, dw, db, nothing, dgates, nothing, x, weight, bounds, add_weight, add_bias, plain
            )
            second = (h, core.weight_hh.value, bounds, add_second, add_bias_second)
            dense.backward(nothing, du, db_second, nothing, dinner, nothing, *second, plain)
            return
        dense.backward_of_two(
            dx, dw, du, db, dgates, x, h, weight, bounds, add_weight, add_second, add_bias
        )
        if not db_second.size:
            return
        if add_bias or add_bias_second or not db.size:
            reduce.column_sums(db_second, dgates, bounds, add_bias_second)
        else:
            # Added to the same, both biases have the same gradient.
            db_second[...] = db

    def _by_shard(
        self, call: "Call", bounds: Integers, dgates: Array, dinner: Array, x: Array, h: Array
    ) -> list[Array]:
        """Return the arrays (T, N, C) with the steps of each shard together."""
        apart = dinner is not dgates
        arrays = [dgates, x, h, *([dinner] if apart else [])]
        copies = call.scratch(x.dtype, *(array.shape for array in arrays))
        for copy, array in zip(copies, arrays, strict=True):
            recurrent.by_shard(copy.reshape(-1), array, bounds)
        return [copies[0], copies[3] if apart else copies[0], copies[1], copies[2]]

    def _check(self, x: Array, weight: Array) -> None:
        fix = "Samples first, then time, then features."
        require_input(self.owner, x, ("N", "T", self.core.input_size), weight.dtype, fix)
        if x.shape[1] == 0:
            raise ValueError(
                message(
                    self.owner,
                    "sequences must have one time step or more",
                    x.shape,
                    "Leave empty ones out.",
                )
            )

    def _initial(self, rest: tuple[Any, ...], samples: int, weight: Array) -> list[Array | None]:
        expected = (samples, self.core.hidden_size)
        for state in rest[: self.core.states]:
            if state.shape != expected or state.dtype != weight.dtype:
                fix = "A state belongs to its batch: pass None, or the state of the same samples."
                got = f"{state.shape} {state.dtype}"
                raise ValueError(
                    message(
                        self.owner,
                        f"initial states must have shape {expected}, type {weight.dtype}",
                        got,
                        fix,
                    )
                )
        return list(rest[: self.core.states])

    def _lengths(self, call: ForwardCall, lengths: Any, samples: int, steps: int) -> Integers:
        result = call.buffer("lengths", (samples,), np.int64)
        if lengths is None:
            result[...] = steps
            return result
        lengths = np.asarray(lengths)
        if lengths.dtype.kind not in "iu" or lengths.shape != (samples,):
            fix = "Pass the number of valid steps of each sample."
            got = f"{lengths.shape} {lengths.dtype}"
            raise ValueError(
                message(self.owner, f"lengths must be integers of shape ({samples},)", got, fix)
            )
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
