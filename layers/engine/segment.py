"""Passes over a segment of a model within a call on another tape: activation checkpointing.

The forward of such a call runs the segment on a tape of its own, of which nothing stays but which
parameters were used. Its backward runs it once more, from the inputs that the call has kept, with
the same random keys, and propagates through that. What layers observe they observe in the first
pass only, and parameters are told of as if their calls were on the tape around.

Buffers of such a tape come from a `Stack`: the first pass gives all of it back, and the second when
it has propagated. There they may overlay those of later calls around, whose backward is over. So no
gradient may be left in one, and what backward asks for comes from the pool.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from layers.types import Array

from . import sample_axes
from .call import Call
from .layer import Layer
from .memory import room
from .parameter import Parameter
from .tape import Tape
from .value import Value
from .workspace import Workspace

_OF_TAPE_AROUND = (
    *("training", "samples", "first_sample", "seed", "step", "deferred", "owner", "_gather"),
    *("shard_bounds", "shards", "divided", "moved", "numbers", "complex_step"),
)
_OF_BACKWARD = "rule", "readiness", "completes", "adds_up"


class SegmentCall(Call):
    """A call of a segment.

    Attributes
    ----------
    uses
        The parameters that its calls use, as often as they do.
    given
        What its outputs were: their shapes, types and a sum over their bits.
    drawn
        How many random keys it has asked for.
    same
        Which of its inputs and outputs, these counted after those, each output is.
    places
        On which axes of its outputs samples lie, if they were moved within.
    bottom, height
        Where what it takes of the stack begins, and how much its first pass has held at its end.
    """

    __slots__ = ("bottom", "drawn", "given", "height", "places", "same", "uses")
    counts_itself = True

    def __init__(self, tape: Tape, layer: Layer, inputs: tuple[Any, ...], index: int) -> None:
        super().__init__(tape, layer, inputs, index)
        self.uses: list[Parameter] = []
        self.given: Any = None
        self.same: list[int] = []
        self.drawn = 0
        self.places: list[Any] | None = None
        self.saved = (), None
        self.bottom = tape.workspace.stack.begin(tape)
        self.height = 0

    def learn(self, tape: "SegmentTape", outputs: Sequence[Value]) -> None:
        """Know what calls on the tape of a pass have used, drawn and taken, and given."""
        self.uses = _used(tape)
        self.drawn = tape.draws - self.draws
        self.height = tape.workspace.stack.top - self.bottom
        if tape.moved:
            self.tape.moved = True
            self.places = [sample_axes.of(value) for value in outputs]

    def knows(self, tape: "SegmentTape") -> bool:
        """Return whether calls on the tape of another pass have used and drawn the same."""
        used = [*map(id, _used(tape))]
        return used == [*map(id, self.uses)] and tape.draws - self.draws == self.drawn

    @property
    def trained(self) -> list[Parameter]:
        return self.uses

    @contextmanager
    def again(self) -> Iterator[tuple["SegmentTape", list[Any], Any]]:
        """Return a context with the tape of one more pass from the inputs that were kept, those
        inputs on it, and what the segment gives.
        """
        layer: Any = self.layer
        given, _ = self.saved
        tape = SegmentTape(self, again=True)
        try:
            yield tape, *tape.take(layer.segment, given)
        finally:
            tape.end()

    def backward(self, dy: Any, rule: Any) -> None:
        # The rule is asked by the calls within. Who takes the gradients lets go of them.
        layer: Any = self.layer
        dys = [*dy] if dy.__class__ is tuple else [dy]
        del dy
        self._own = []
        self.give(layer.propagate(self, dys))

    def release(self) -> None:
        _, kept = self.saved
        if kept is not None:
            kept[0].end()
        self.saved = ()
        super().release()


def _used(tape: Tape) -> list[Parameter]:
    return [parameter for call in tape.calls for parameter in call.trained]


class SegmentWorkspace(Workspace):
    """The buffers of one pass over a segment: those of forward in the stack of a workspace, large
    ones of backward in its pool, and small ones in memory of their own.

    Parameters
    ----------
    around
        The workspace of the tape around.
    """

    _root: Workspace
    depth: int
    pooled_from = 1

    def __init__(self, around: Workspace) -> None:
        if isinstance(around, SegmentWorkspace):
            self._root, self.depth = around._root, around.depth + 1
        else:
            self._root, self.depth = around, 0
        root = self._root
        if len(root.segments) == self.depth:
            root.segments.append(Workspace())
        self._memory = root.segments[self.depth]._memory
        self._current = []
        self.stack = root.stack
        self.shards = around.shards
        self.goes_back = False
        # As methods of the root.
        self.pooled = root.pooled  # type: ignore[method-assign]
        self.scratch = root.scratch  # type: ignore[method-assign]
        self.trained = root.trained  # type: ignore[method-assign]
        self.is_pooled = root.is_pooled  # type: ignore[method-assign]

    @property
    def allocations(self) -> int:
        """Those of the root."""
        return self._root.allocations

    @allocations.setter
    def allocations(self, count: int) -> None:
        self._root.allocations = count

    def cut(self, call: int, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        if self.goes_back:
            return super().cut(call, name, shape, dtype)
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = self.stack.take(size)
        if memory is None:
            memory = room(size)
            self.allocations += 1
        return self._hand_out(memory, call, name, shape, dtype)

    def lasting(self, call: Call, index: int, dx: Array) -> Array:
        if dx.base is not self.stack.memory:
            return dx
        result = call.pooled(f"lasting {index}", dx.shape, dx.dtype)
        call.run(np.copyto, result, dx)
        return result


class SegmentTape(Tape):
    """The tape of one pass over a segment.

    Parameters
    ----------
    call
        The call of the segment on the tape around.
    again
        Whether it is a pass after the first, of which nobody is told.
    """

    is_segment = True

    def __init__(self, call: SegmentCall, *, again: bool) -> None:
        around, self._call = call.tape, call
        for name in _OF_TAPE_AROUND:
            setattr(self, name, getattr(around, name))
        self.learn_backward()
        self.workspace: SegmentWorkspace = SegmentWorkspace(around.workspace)
        self.replays = False
        self.draws = call.draws
        self._again = again
        hooks = around.hooks
        if again and hooks is not None:
            hooks = hooks._replace(forward_begin=(), forward_end=())
        self.hooks = hooks
        self._calls = []
        self.kept = []
        self.shares = []
        stack = self.workspace.stack
        self._top = stack.top
        if again and around.is_segment:
            # All above belongs to calls whose backward is over.
            stack.top = call.bottom

    @property
    def around(self) -> Tape:
        """The tape that the segment is on."""
        return self._call.tape

    @property
    def depth(self) -> int:
        """How many segments are around this one."""
        return self.workspace.depth

    def learn_backward(self) -> None:
        """Know of the backward pass of the tape around, which may have begun since."""
        for name in _OF_BACKWARD:
            setattr(self, name, getattr(self._call.tape, name))

    def on_gathered(self, numbers: Array, apply: Any, *, gathered: bool = False) -> None:
        if not self._again:
            # What waits for the end of the step must not lie in the stack.
            self._call.tape.on_gathered(numbers.copy(), apply, gathered=gathered)

    def take(self, segment: Any, arrays: Sequence[Any]) -> tuple[list[Any], Any]:
        """Return the inputs of a segment, of which those that are values around are values of this
        tape, and what it gives for them. Behind the arrays is what calls it with them.
        """
        call = self._call
        *given, calls = arrays
        # One for each value around, or its gradients would be added up in two places.
        stands: dict[int, Value] = {}
        inputs = [
            stands.setdefault(id(of), Value(self, x, None, of.wants))
            if isinstance(of, Value)
            else x
            for of, x in zip(call.inputs, given, strict=False)
        ]
        if self.moved:
            for of in call.inputs:
                if isinstance(of, Value):
                    stands[id(of)].place = sample_axes.of(of)
        return [*inputs, None], calls(segment, inputs)

    def propagate(
        self, inputs: Sequence[Any], outputs: list[Value], dys: list[Any]
    ) -> tuple[Array | None, ...]:
        """Return the gradients of the inputs of the call, what they have received so far included,
        once the calls have been walked in reverse from the gradients of the outputs.

        Both of these are taken out of their lists: of segments in segments each would hold one.
        """
        self.workspace.goes_back = True
        call = self._call
        for of, x in zip(call.inputs, inputs, strict=True):
            if isinstance(x, Value):
                x.begin_for(of)
        for index in reversed(range(len(dys))):
            output, dy = outputs.pop(), dys.pop()
            if dy is not None and output.wants:
                output.receive(dy, call, index)
            del output, dy
        if self.live is not None:
            self.live.sweep()
        self._walk_calls(self.rule)
        return tuple(
            [x.end_for(call, i) if isinstance(x, Value) else None for i, x in enumerate(inputs)]
        )

    def end(self) -> None:
        """Forget all calls, and give back what they have taken of the stack."""
        self.release()
        if self.workspace.stack.give_back(self._top):
            self.workspace.allocations += 1


def outermost(tape: Tape) -> Tape:
    """Return the tape of a step, given that of a pass over a segment of it, or itself."""
    while isinstance(tape, SegmentTape):
        tape = tape.around
    return tape
