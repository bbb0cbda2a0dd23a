"""Segments whose insides are computed again on the way back: activation checkpointing."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import require_layer
from .containers import Sequential, unnested
from .engine.batch_sum import BatchSum
from .engine.carried import put_together, taken_apart
from .engine.forward_call import ForwardCall
from .engine.layer import Layer, Recorded
from .engine.memory import contiguous, flat
from .engine.module import Module, takes_lengths
from .engine.segment import SegmentCall, SegmentTape
from .engine.value import Value
from .errors import message
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


_MOST_LINKS = 96
"""So many links of a chain are told apart."""


class Recompute(Layer):
    """A segment of a model of which only the inputs are kept: backward computes the rest again
    (Chen et al. 2016, arXiv 1604.06174; Griewank and Walther 2000).

    Memory is that of one segment at a time, for one more forward pass of each. The bits are those
    of the segment without it: random masks are functions of the draw, which is counted once,
    running statistics learn in the first pass alone, and what the insides contribute to the
    gradient of an input is added one by one to what it has received from elsewhere. Segments may
    lie in each other, share parameters, have several inputs and outputs, and carry a state if what
    is in them does.

    >>> model = Sequential(*(Recompute(block) for block in blocks), head)

    Parameters
    ----------
    segment
        A layer, or a function of values, whose own layers, if any, the model does not know: see
        `Composite`. Called again with the same inputs it must compute the same: what else it
        depends on, such as counters and files, must not change.

    Raises
    ------
    TypeError
        The segment is no layer, or gives anything but values.
    RuntimeError
        In backward it has computed something else than in forward.
    """

    call_kind = SegmentCall

    def __init__(self, segment: Module) -> None:
        self.segment = require_layer("Recompute", "segment", segment)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.segment!r})"

    @property
    def takes_lengths(self) -> bool:
        """Whether the segment takes the lengths of its samples."""
        return takes_lengths(self.segment)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return what the segment does, called with the same."""
        if not any(isinstance(x, Recorded) for x in (*inputs, *named.values())):
            return self.segment(*inputs, **named)
        return self._record(*inputs, *named.values(), _ByName(tuple(named)))

    def _record(self, *inputs: Any) -> Any:
        """Return what a call on the tape gives. Where the segment gives an input, or one value
        twice, so does this, so that all gradients of a value are added up in one place.
        """
        y = super().__call__(*inputs)
        outputs = [*y] if y.__class__ is tuple else [y]
        if any(value.call is None or value.call.layer is not self for value in outputs[:1]):
            # The tape has taken it apart.
            return y
        every = [*inputs, *outputs]
        same = [every[place] for value in outputs[:1] for place in value.call.same]
        return tuple(same) if y.__class__ is tuple else same[0]

    @property
    def run(self) -> Callable[..., tuple[Any, Any]]:
        """The function (x, state=None) -> (y, state) of a segment that carries a state; others have
        none.
        """
        if not hasattr(self.segment, "run"):
            raise AttributeError(f"{self!r} carries no state")
        return self._run

    def _run(self, x: Any, state: Any = None) -> tuple[Any, Any]:
        leaves: list[Any] = []
        runs = _Running(taken_apart(state, leaves))
        if not any(isinstance(each, Recorded) for each in (x, *leaves)):
            segment: Any = self.segment
            result: tuple[Any, Any] = segment.run(x, state)
            return result
        y, *following = self._record(x, *leaves, runs)
        return y, put_together(runs.following, following)

    def forward(self, call: ForwardCall, *inputs: Any) -> Any:
        assert isinstance(call, SegmentCall)
        around = call.tape
        around.end_notes()
        tape = SegmentTape(call, again=False)
        try:
            values, y = tape.take(self.segment, inputs)
            outputs = self._outputs(tape, y)
            call.learn(tape, outputs)
            call.given = _facts(outputs)
            every = [*map(id, values), *map(id, outputs)]
            call.same = [every.index(id(value)) for value in outputs]
            _share(call, tape, outputs)
            arrays = [value.array for value in outputs]
            if len(arrays) > 1 and around.is_segment:
                # What one is moved to may be where another lies.
                arrays = [_copy(call, f"moved {i}", array) for i, array in enumerate(arrays)]
            call.save(inputs, self._kept(tape, values, outputs))
        finally:
            around.draws = tape.draws
            if call.saved[1] is None:
                tape.end()
        results = []
        for i, array in enumerate(arrays):
            name = f"y{i}" if i else "y"
            # Within a segment in its stack, which is where the plan of a chain knows of it.
            take = call.buffer if around.is_segment else call.output_buffer
            to = take(name, array.shape, array.dtype)
            np.copyto(flat(to), flat(array))
            results.append(to)
        return tuple(results) if y.__class__ is tuple else results[0]

    def _kept(self, tape: SegmentTape, inputs: Sequence[Any], outputs: Sequence[Value]) -> Any:
        """Return what is kept of the first pass, beside the inputs, if anything."""
        return None

    def backward(self, call: "Call", *dys: Any) -> tuple[Array | None, ...]:
        assert isinstance(call, SegmentCall)
        return self.propagate(call, [*dys])

    def propagate(self, call: SegmentCall, dys: list[Any]) -> tuple[Array | None, ...]:
        """Return what `backward` does, which lets go of each dy as soon as it is used."""
        with call.again() as (tape, inputs, y):
            outputs = self._outputs(tape, y)
            del y
            self._require_same(call, tape, outputs)
            return tape.propagate(inputs, outputs, dys)

    def _outputs(self, tape: SegmentTape, y: Any) -> list[Value]:
        outputs = [*y] if y.__class__ is tuple else [y]
        for value in outputs:
            if not isinstance(value, Value) or value.tape is not tape:
                must = "the segment must give values"
                fix = "Return what it has computed from its inputs, one value or a tuple of them."
                raise TypeError(message(self, must, type(value).__name__, fix))
        return outputs

    def _require_same(self, call: SegmentCall, tape: SegmentTape, outputs: Sequence[Value]) -> None:
        if not call.knows(tape) or _facts(outputs) != call.given:
            must = "the segment must compute the same when it is called again"
            got = "other outputs, parameters or random draws than in forward"
            fix = "Make inputs of what changes between calls, such as counters and drawn numbers."
            raise RuntimeError(message(self, must, got, fix))


class Chain(Recompute):
    """Layers one after the other, whose outputs are kept: a segment that is not computed again.
    What is kept of its first pass lies in one stack, so that segments in it may take the place of
    what comes after them.

    Propagated a second time it is computed again, as then nothing is left.
    """

    def _kept(self, tape: SegmentTape, inputs: Sequence[Any], outputs: Sequence[Value]) -> Any:
        return tape, inputs, outputs

    def propagate(self, call: SegmentCall, dys: list[Any]) -> tuple[Array | None, ...]:
        given, kept = call.saved
        if kept is None:
            return super().propagate(call, dys)
        tape, inputs, outputs = kept
        tape.learn_backward()
        call.save(given, None)
        try:
            gradients: tuple[Array | None, ...] = tape.propagate(inputs, outputs, dys)
            return gradients
        finally:
            tape.end()

    def __repr__(self) -> str:
        return f"a chain of {len(self.segment)} layers and segments"


class _ByName:
    """Calls a segment with inputs of which the last have names.

    Parameters
    ----------
    names
        Those.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __call__(self, segment: Any, inputs: list[Any]) -> Any:
        unnamed = len(inputs) - len(self._names)
        return segment(*inputs[:unnamed], **dict(zip(self._names, inputs[unnamed:], strict=True)))


class _Running:
    """Calls a segment's `run` with x and a state.

    Parameters
    ----------
    given
        The structure of the state, of which inputs have the leaves.

    Attributes
    ----------
    following
        That of the state which it gives.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        self.following: Any = None

    def __call__(self, segment: Any, inputs: list[Any]) -> tuple[Any, ...]:
        x, *leaves = inputs
        y, state = segment.run(x, put_together(self._given, leaves))
        after: list[Any] = []
        self.following = taken_apart(state, after)
        return y, *after


def links(model: Any) -> list[Module]:
    """Return the layers that a model runs one after the other; of very many, groups of them."""
    found = [*unnested(model, fused=True)]
    size = -(-len(found) // _MOST_LINKS)
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    return [each[0] if len(each) == 1 else Sequential(*each, fuse=False) for each in groups]


def use_plan(model: Sequential, plan: Sequence[Any] | None) -> None:
    """Have a model run as a `Chain` in training: of a plan, the numbers of links that are kept and
    plans of segments that are computed again; or, given None, as it is.
    """
    model._planned = None if plan is None else Chain(_segment(links(model), plan)).__call__


def _segment(layers: Sequence[Module], plan: Sequence[Any]) -> Module:
    steps = [
        layers[each] if isinstance(each, int) else Recompute(_segment(layers, each))
        for each in plan
    ]
    return Sequential(*steps, fuse=False)


def _facts(outputs: Sequence[Value]) -> list[Any]:
    """Return what the outputs are: shapes, types and a sum over all bits, 64 at a time."""
    found = []
    for value in outputs:
        raw = contiguous(value.array).reshape(-1).view(np.uint8)
        whole = raw.size - raw.size % 8
        total = int(np.add.reduce(raw[:whole].view(np.uint64)))
        found.append((value.shape, value.dtype, total, raw[whole:].tobytes()))
    return found


def _share(call: SegmentCall, tape: SegmentTape, outputs: Sequence[Value]) -> None:
    """Have the call be known to have averaged over the batch, if the segment has."""
    if not tape.shares:
        return
    share: BatchSum | None = outputs[0].batch_sum if len(outputs) == 1 else None
    if share is not None:
        # The sums may lie in what is given back.
        call.report(share.sums.copy(), share.divisor)
    else:
        call.tape.shares.append(call)


def _copy(call: "Call", name: str, array: Array) -> Array:
    """Return a copy in memory as of `Call.pooled`."""
    result = call.pooled(name, array.shape, array.dtype)
    np.copyto(result, array)
    return result
