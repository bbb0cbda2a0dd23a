"""One recurrence through time, in one direction: its weights, and the calls that go through a
sequence and back.

`layers.recurrent` makes recurrent layers of these.
"""

import math
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from layers.checks import boolean, require_input
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.memory import contiguous, empty
from layers.engine.module import Module
from layers.engine.parameter import Parameter
from layers.errors import message
from layers.init import orthogonal, xavier_uniform
from layers.initial import drawn, filled
from layers.kernels import dense, recurrent, recurrent_sparse, reduce
from layers.lengths import valid_steps
from layers.types import Array, Integers

if TYPE_CHECKING:
    from layers.engine.call import Call


Inputs = tuple[Array, Array, Array]
Steps = tuple[list[Array], tuple[Array, ...]]
Columns = tuple[Array, int, int]
"""An array (T, N, C) and which of its columns are meant, from one to before another."""
Largest = tuple[Array, ...]
"""What the kernels of `recurrent_sparse` take: see there. Empty where all gradients are kept."""


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


class Forth(NamedTuple):
    """What `Recurrence.steps` goes by.

    Attributes
    ----------
    y
        The outputs (N, T, H), to be written.
    gates
        Memory for the gates (T, N, G H), which may be words.
    first
        The initial states, None for zeros.
    inputs
        x, its packed weight and the bias that is added to their product.
    way
        How the kernels go.
    rooms
        Where gates are words, room for those of some steps, and of one.
    """

    y: Array
    gates: Array
    first: Sequence[Array | None]
    inputs: Inputs
    way: Way
    rooms: list[Array]


class Back(NamedTuple):
    """What `Recurrence.steps_back` goes by.

    Attributes
    ----------
    saved
        What `steps` has returned for it.
    dlast
        The gradients of the last states (N, H), which become those of the initial ones.
    dy
        That of the outputs (N, T, H).
    way
        How the kernels go.
    largest
        Which gradients of the gates are kept.
    """

    saved: tuple[Array, ...]
    dlast: list[Array]
    dy: Array
    way: Way
    largest: Largest

    @property
    def kernels(self) -> ModuleType:
        """The kernels that go back: they keep all gradients of the gates, or the largest."""
        return recurrent_sparse if self.largest else recurrent


class Recurrence(Module):
    """The weights of one layer in one direction, and how its gates work; used by way of a
    `RecurrentPass`.

    Subclasses say how many `gates` and `states` there are, and go through the steps both ways.
    """

    replayable = True
    gates: int
    states = 1
    reads_states = True
    """Whether `steps_back` reads the states h."""
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

    def input_bias(self, call: ForwardCall) -> Array:
        """Return the biases that are added to the inputs' contribution (G H,), or empty."""
        if self.bias_ih is None or self.bias_hh is None:
            return empty(self.weight_ih.value, 1)
        if self.biases_apart:
            return self.bias_ih.value
        both = call.buffer("bias", self.bias_ih.shape, self.bias_ih.dtype)
        call.run(np.add, self.bias_ih.value, self.bias_hh.value, both)
        return both

    def step_bias(self) -> Array:
        """Return the bias that is added to the last state's contribution at each step (G H,), or
        empty.
        """
        return (
            empty(self.weight_ih.value, 1)
            if self.bias_hh is None or not self.biases_apart
            else self.bias_hh.value
        )

    def steps(self, call: ForwardCall, walk: Forth) -> Steps:
        """Go through time and write y; return the last states (N, H), h first, and what
        `steps_back` needs, of which the first are the states h (T + 1, N, H).

        Where gates are words, so is all that is returned for `steps_back`, of which the first are
        then those of y.
        """
        raise NotImplementedError

    def steps_back(self, call: "Call", walk: Back) -> tuple[Array, Array]:
        """Go back through time; return the gradients (T, N, G H) of the inputs' and of the last
        state's contribution to the gates, of which only the largest are kept.

        They may take the place of what was saved.
        """
        raise NotImplementedError

    def gates_and_cells(self, saved: tuple[Array, ...]) -> tuple[list[Columns], list[Columns]]:
        """Return what sigmoids and what tanhs have put out, given what `steps` has saved."""
        raise NotImplementedError

    def begin(self, call: ForwardCall, name: str, gates: Array, first: Array | None) -> Array:
        """Return memory for a state (T + 1, N, H) whose step 0 is the initial one."""
        steps, samples = gates.shape[:2]
        state = call.buffer(name, (steps + 1, samples, self.hidden_size), gates.dtype)
        call.run(np.copyto, state[0], 0 if first is None else first)
        return state

    def begin_apart(self, call: ForwardCall, name: str, y: Array, first: Array | None) -> Array:
        """Return memory for a state (N, H) that is the initial one, and becomes the last one."""
        state = call.buffer(f"last {name}", (len(y), self.hidden_size), y.dtype)
        call.run(np.copyto, state, 0 if first is None else first)
        return state


class RecurrentPass(Layer):
    """A recurrence over sequences (N, T, C) in one direction; gives the outputs (N, T, H) and the
    last states (N, H).

    Further inputs are the initial states, if `stateful`, and lengths (N,), if `ragged`.
    """

    replayable = True

    def __init__(
        self, core: Recurrence, owner: str, reverse: bool, stateful: bool, ragged: bool
    ) -> None:
        self.core = core
        self.owner = owner
        self.reverse = reverse
        self.stateful = stateful
        self.ragged = ragged
        # Lengths are copied, initial states are read by backward.
        self.keeps_constants = stateful

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
        given = rest[-1] if self.ragged else None
        lengths = valid_steps(self.owner, call, given, samples, steps)
        in_time = self._room(call, "x", (steps, samples, core.input_size), x.dtype)
        call.run(recurrent.by_time, in_time, contiguous(x), lengths, self.reverse)
        y, last, saved = self._steps(call, in_time, x.dtype, first, lengths)
        call.save(in_time, lengths, first, saved)
        return (y, *last)

    def _room(self, call: ForwardCall, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a buffer for what is saved: of words where products take these, else of a dtype.

        Float16, of which no product is made, is not for what goes from step to step.
        """
        precision = self.core.precision
        if precision.words is None or not call.recorded:
            return call.buffer(name, shape, dtype)
        return precision.room(call, name, shape, dtype)

    def _steps(
        self,
        call: ForwardCall,
        x: Array,
        dtype: Any,
        first: Sequence[Array | None],
        lengths: Integers,
    ) -> tuple[Array, list[Array], tuple[Array, ...]]:
        """Go through time with x (T, N, C), and return the output, too: see `Recurrence.steps`."""
        core, precision = self.core, self.core.precision
        steps, samples, width = x.shape
        y = call.output_buffer("y", (samples, steps, core.hidden_size), dtype)
        size = core.gates * core.hidden_size
        gates = self._room(call, "gates", (steps, samples, size), dtype)
        sizes = (
            precision.packed_size(inner, size, y.itemsize) for inner in (width, core.hidden_size)
        )
        together = 0
        if gates.dtype != dtype:
            together = min(recurrent.steps_together(samples, size), steps)
        of_inputs, of_states, *rooms = call.scratch(
            dtype, *sizes, (together, samples, size), (min(together, 1) * samples, size)
        )
        packed = precision.pack(call, of_inputs, core.weight_ih.value, True)
        inputs = (x, packed, core.input_bias(call))
        packed = precision.pack(call, of_states, core.weight_hh.value, True)
        way = Way(packed, core.step_bias(), lengths, self.reverse)
        return y, *core.steps(call, Forth(y, gates, first, inputs, way, rooms))

    def backward(
        self, call: "Call", dy: Array | None, *dstates: Array | None
    ) -> tuple[Array | None, ...]:
        core, hidden = self.core, self.core.hidden_size
        in_time, lengths, first, saved = call.saved
        dtype = core.weight_hh.dtype
        if saved is None:
            # An earlier backward pass has written over it.
            *_, saved = self._steps(call, in_time, dtype, first, lengths)
        call.save(in_time, lengths, first, None)
        (steps, samples, _), states = in_time.shape, saved[0]
        if states.dtype != dtype and core.reads_states:
            states = call.pooled("h", (steps + 1, samples, hidden), states.dtype)
            self._states(call, states, saved[0], first[0], lengths)
            saved = (states, *saved[1:])
        if dy is None:
            dy = call.pooled("dy", (samples, steps, hidden), dtype)
            call.run(np.copyto, dy, 0)
        size = self.core.precision.packed_size(core.gates * hidden, hidden, dtype.itemsize)
        (room,) = call.scratch(dtype, size)
        dlast = [call.buffer(f"dlast {k}", (samples, hidden), dtype) for k in range(core.states)]
        for into, of in zip(dlast, dstates, strict=True):
            call.run(np.copyto, into, 0 if of is None else of)
        packed = self.core.precision.pack(call, room, call.feedback(core.weight_hh), False)
        way = Way(packed, empty(dy, 1), lengths, self.reverse)
        largest = self._largest(call, samples)
        walk = Back(saved, dlast, contiguous(dy), way, largest)
        dgates, dinner = core.steps_back(call, walk)
        dx = self._gradients(call, dgates, dinner, in_time, states, first[0], lengths)
        rest = (
            [d if call.wants(1 + k) else None for k, d in enumerate(dlast)] if self.stateful else []
        )
        return (dx, *rest, *([None] if self.ragged else []))

    def _largest(self, call: "Call", samples: int) -> Largest:
        """Return what says which gradients of the gates are kept at each step."""
        size, dtype = self.core.hidden_size, self.core.weight_hh.dtype
        top = call.top_k(size)
        if top is None:
            return ()
        bounds = call.bounds(samples)
        columns = call.buffer("columns", (top.k + 1,), np.int32)
        sizes = call.buffer("sizes", (size,), dtype)
        return columns, sizes, bounds if top.unified else bounds[:0]

    def _states(
        self, call: "Call", h: Array, y: Array, first: Array | None, lengths: Integers
    ) -> None:
        """Write the states, given the outputs and the initial ones."""
        none = empty(self.core.weight_hh.value, 2)
        before = none if first is None else contiguous(first)
        call.run(recurrent.states, h, y, before, lengths, self.reverse)

    def _gradients(
        self,
        call: "Call",
        dgates: Array,
        dinner: Array,
        x: Array,
        h: Array,
        first: Array | None,
        lengths: Integers,
    ) -> Array | None:
        """Return the gradient of the input, if wanted, and add those of the weights, which are
        products over all steps; h are the states, or the outputs that they are made of.
        """
        core, (steps, samples, inputs) = self.core, x.shape
        dtype, bounds = core.weight_ih.dtype, call.bounds(samples)
        nothing, wanted = empty(core.weight_ih.value, 2), call.wants(0)
        weight = core.precision.operand(
            call, "weight", call.feedback(core.weight_ih), False, wanted=wanted
        )
        dx = call.pooled("dx", (samples, steps, inputs), dtype) if wanted else None
        groups, gradients = call.summed_gradients(
            nothing, core.weight_ih, core.weight_hh, core.bias_ih, core.bias_hh
        )
        added_up = len(groups) < len(bounds)
        apart = len(bounds) > 2 and not added_up
        made = h.dtype == dtype or core.reads_states
        shape = (0 if made else steps + 1, samples, core.hidden_size)
        numbers = 0 if apart else -(-math.prod(shape) * h.itemsize // dtype.itemsize)
        in_time, room = call.scratch(dtype, x.shape if wanted else (0, 0, 0), numbers)
        if not made:
            # What brings shards together takes the memory of `in_time` and of what follows it.
            memory = call.pooled("h", shape, h.dtype) if apart else room.view(h.dtype)
            y, h = h, memory.reshape(-1)[: math.prod(shape)].reshape(shape)
            self._states(call, h, y, first, lengths)
        h = h[:steps]
        into = _rows(in_time)
        if apart:
            if dx is not None:
                call.run(dense.backward_of_input, into, _rows(dgates), weight)
                call.run(recurrent.by_sample, dx, in_time, lengths, self.reverse)
            dgates, dinner, x, h = self._by_shard(call, bounds, dgates, dinner, x, h)
            into = nothing
        rows = weight, bounds if added_up else call.bounds(steps * samples), groups
        arrays = _rows(dgates), _rows(dinner), _rows(x), _rows(h)
        self._weight_gradients(call, gradients, into, *arrays, *rows)
        if dx is not None and not apart:
            call.run(recurrent.by_sample, dx, in_time, lengths, self.reverse)
        return dx

    def _weight_gradients(
        self,
        call: "Call",
        gradients: list[tuple[Array, bool]],
        dx: Array,
        dgates: Array,
        dinner: Array,
        x: Array,
        h: Array,
        weight: Array,
        bounds: Integers,
        groups: Integers,
    ) -> None:
        core, nothing, none = self.core, empty(self.core.weight_ih.value, 2), dgates[:0]
        (dw, add_weight), (du, add_second), (db, add_bias), (db_second, add_bias_second) = gradients
        rows = weight, bounds, groups
        if core.biases_apart:
            first, second = (add_weight, add_bias), (add_second, add_bias_second)
            plain = dense.IDENTITY
            inputs, states = (nothing, x, *rows, *first, plain), (nothing, h, *rows, *second, plain)
            call.run(dense.backward, dx, dw, db, none, dgates, *inputs)
            call.run(dense.backward, nothing, du, db_second, none, dinner, *states)
            return
        if not db.size:
            db, add_bias, db_second = db_second, add_bias_second, db
        adds = add_weight, add_second, add_bias
        call.run(dense.backward_of_two, dx, dw, du, db, dgates, x, h, *rows, *adds)
        if not db_second.size:
            return
        if add_bias or add_bias_second:
            call.run(reduce.column_sums, db_second, dgates, bounds, add_bias_second)
        else:
            # Added to the same, both biases have the same gradient.
            call.run(np.copyto, db_second, db)

    def _by_shard(
        self, call: "Call", bounds: Integers, dgates: Array, dinner: Array, x: Array, h: Array
    ) -> list[Array]:
        """Return the arrays (T, N, C) with the steps of each shard together."""
        apart = dinner is not dgates
        arrays = [dgates, x, h, *([dinner] if apart else [])]
        copies = call.scratch(x.dtype, *(array.shape for array in arrays))
        for copy, array in zip(copies, arrays, strict=True):
            call.run(recurrent.by_shard, copy.reshape(-1), array, bounds)
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


def _rows(array: Array) -> Array:
    """Return (T, N, C) as (T N, C)."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])
