"""Which steps are replayed, and how a tape does it."""

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from layers.engine.batch_sum import BatchSum
from layers.engine.call import Call
from layers.engine.layer import Layer
from layers.engine.value import Outputs, Value
from layers.errors import message
from layers.kernels import underflow
from layers.types import Array

from .plan import Entry, Plan, is_same_number
from .steps import Given, Notes, NotReplayableError, OtherStepError, Step

if TYPE_CHECKING:
    from layers.engine.tape import Tape

_MISSES = 8
"""After so many steps in a row that were others, a plan is given up."""
_PAIRS = 4
"""So many pairs of steps are compared, until two have run the same, before none is for a while."""
_LONGEST_WAIT = 4096
"""Steps until a plan is tried again, at most: it is twice as long after each failure."""


def _is_on() -> bool:
    """Return whether the environment lets steps be replayed."""
    text = os.environ.get("LAYERS_REPLAY", "1")
    if text not in ("0", "1"):
        must, fix = "LAYERS_REPLAY must be 0 or 1", "Leave it out for 1."
        raise ValueError(message("layers", must, repr(text), fix))
    return text == "1"


class Replayed(Value):
    """What a call that was replayed has given."""

    __slots__ = ("_call", "_entry")

    def __init__(self, tape: "Tape", array: Array, entry: Entry, wants: bool) -> None:
        self.tape = tape
        self.array = array
        self.wants = wants
        self._entry = entry
        self._call: Call | None = None
        self._kept = False
        self._gradient = None
        self._giver = None
        self.words = None
        self.place = None

    @property
    def call(self) -> Call | None:  # type: ignore[override]
        """The call that an ordinary tape would have: for this the tape becomes one."""
        if self._call is None:
            self.tape.unfold()
        if self._call is None:
            # The tape has been released, and its calls with it.
            self._call = Call(self.tape, self._entry.layer, (), self._entry.number)
            self._call.batch_sum = self._entry.share
        return self._call

    @property
    def known_share(self) -> BatchSum | None:
        return self._entry.share

    def keep_grad(self) -> Value:
        self.tape.unfold()
        return super().keep_grad()

    def give(self, call: Call) -> None:
        """Be an output of a call of an ordinary tape."""
        self._call = call


def _values(tape: "Tape", entry: Entry, arrays: Sequence[Array]) -> tuple[Replayed, ...]:
    return tuple(
        Replayed(tape, array, entry, wants)
        for array, wants in zip(arrays, entry.wants, strict=True)
    )


class Following:
    """A step that is that of a plan, as far as it has come.

    Parameters
    ----------
    plan
        The plan.
    tape
        The tape of the step.
    """

    __slots__ = ("_at", "_constants", "_entries", "_inputs", "_plan", "_turn", "_values")

    def __init__(self, plan: Plan, tape: "Tape") -> None:
        self._plan = plan
        self._turn = plan.begin(tape)
        self._entries = plan.entries
        self._at = 0
        self._values: list[Value] = []
        self._inputs: list[tuple[Any, ...]] = []
        # What the loss was called with beside the prediction, if all calls were taken at once.
        self._constants: tuple[Any, ...] | None = None

    @property
    def has_calls(self) -> bool:
        """Whether there has been a call."""
        return self._at > 0

    def take(self, value: Value) -> bool:
        """Take an input of the tape; return whether the step is still the same."""
        given = self._plan.inputs.get(len(self._values))
        if given is None or value.wants is not given.wants or self._turn != self._plan.turn:
            return False
        self._values.append(value)
        return given.take(value.array)

    def _goes_on(self) -> bool:
        """Return whether no other step has begun, and layers and parameters are still the same."""
        return self._turn == self._plan.turn and self._plan.holds()

    def record(self, tape: "Tape", layer: Layer, inputs: tuple[Any, ...]) -> Any:
        """Take a call, and return its value, or a tuple of them; None if the step is another one
        from here on.
        """
        entries, values, at = self._entries, self._values, self._at
        if at == len(entries) or not self._goes_on():
            return None
        if not at:
            tape.workspace.begin_turn(tape)
        entry = entries[at]
        if entry.layer is not layer or len(inputs) != entry.count:
            return None
        for x, source in zip(inputs, entry.sources, strict=False):
            if source.__class__ is int:
                if x is not values[source]:
                    return None
            elif not source.take(x):
                return None
        mode = underflow.flush()
        try:
            arrays = entry.run()
        except OtherStepError:
            return None
        finally:
            underflow.restore(mode)
        array = arrays[0]
        if entry.make is not None:
            number = array.item()
            if number != number:
                # NaN: an ordinary call may say why.
                return None
        for numbers, apply, gathered in entry.observed:
            tape.on_gathered(numbers, apply, gathered=gathered)
        self._inputs.append(inputs)
        self._at = at + 1
        if len(arrays) == 1:
            value = Replayed(tape, array, entry, entry.wants[0])
            values.append(value)
            return value
        several = _values(tape, entry, arrays)
        values += several
        return several

    def repeat(
        self, tape: "Tape", program: tuple[Any, Any], x: Any, constants: tuple[Any, ...]
    ) -> Value | None:
        """Take all calls at once, if they are those of a model of x and a loss of that with
        constants, none of which is asked; return the value of the loss, else None.
        """
        plan, last, values = self._plan, self._entries[-1], self._values
        if (
            plan.program != program
            or self._at
            or not self._goes_on()
            or len(values) != 1
            or x is not values[0]
            or len(constants) + 1 != last.count
        ):
            return None
        for constant, source in zip(constants, last.sources[1:], strict=True):
            if not source.take(constant):
                return None
        tape.workspace.begin_turn(tape)
        mode = underflow.flush()
        try:
            array = plan.run_forward(tape)
        except OtherStepError:
            return None
        finally:
            underflow.restore(mode)
        number = array.item()
        if number != number:
            return None
        value = Replayed(tape, array, last, last.wants[0])
        values.append(value)
        self._constants = constants
        self._at = len(self._entries)
        return value

    def _unroll(self, tape: "Tape") -> None:
        """Have the inputs and outputs of all calls, if they were taken at once."""
        constants, self._constants = self._constants, None
        if constants is None:
            return
        *between, last = self._entries
        outputs = [y for entry in between for y in _values(tape, entry, entry.outputs)]
        values = self._values
        values[1:1] = outputs
        for entry in between:
            given = (values[x] if x.__class__ is int else x.value for x in entry.sources)
            self._inputs.append(tuple(given))
        self._inputs.append((values[last.sources[0]], *constants))

    def backward(self, value: Value, gradient: Array) -> bool:
        """Take the backward pass from a value; return False if it is another one."""
        return (
            self._at == len(self._entries)
            and value is self._values[-1]
            and self._goes_on()
            and self._plan.run_backward(gradient, adds_up=value.tape.adds_up)
        )

    def calls(self, tape: "Tape") -> Iterator[Call]:
        """Yield the calls that an ordinary tape would have by now."""
        self._unroll(tape)
        self._take_over()
        values = iter([value for value in self._values if isinstance(value, Replayed)])
        for entry, inputs in zip(self._entries, self._inputs, strict=False):
            tape.draws, draws = entry.draws
            call = Call(tape, entry.layer, inputs, entry.number)
            tape.draws = draws
            call.save(*entry.saved)
            if entry.share is not None:
                call.report(*entry.share)
            outputs = (*islice(values, len(entry.wants)),)
            call.output = outputs[0] if len(outputs) == 1 else Outputs(outputs)
            for value in outputs:
                value.give(call)
            yield call

    def _take_over(self) -> None:
        """Have the plan hold the arrays of this step, if another one has begun meanwhile."""
        if self._turn == self._plan.turn:
            return
        self._plan.turn += 1
        for number, given in self._plan.inputs.items():
            if number < len(self._values):
                given.take(self._values[number].array)
        for entry, inputs in zip(self._entries, self._inputs, strict=False):
            for x, source in zip(inputs, entry.sources, strict=True):
                if isinstance(source, Given):
                    source.take(x)


class Replay:
    """Decides which steps of a workspace are replayed.

    Attributes
    ----------
    steps
        How many were, to their end.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._is_on = _is_on()
        self._before: Step | None = None
        self._plan: Plan | None = None
        self._gradient: Array | None = None
        self._pairs = 0
        self._wait = 0
        self._patience = 1

    def begin(self, tape: "Tape") -> tuple[Notes | None, Following | None]:
        """Return what a tape that begins notes its step in, or the step that it takes again;
        neither, if it is to be ordinary.
        """
        if self._wait:
            self._wait -= 1
            return None, None
        if not self._is_on or sys.gettrace() is not None:
            return None, None
        plan = self._plan
        if plan is None:
            return Notes(), None
        if not plan.is_current(tape.workspace.allocations):
            self._plan = None
        elif plan.fits(tape):
            return None, Following(plan, tape)
        else:
            self.miss()
        return None, None

    def start(self, gradient: Array) -> Array:
        """Return the gradient that backward starts from: for a number, as a scaled loss has it, the
        same read-only array as long as that number stays, as steps that are the same start from
        one array.
        """
        if gradient.ndim:
            return gradient
        kept = self._gradient
        if kept is None or not is_same_number(kept, gradient):
            self._gradient = kept = gradient.copy()
            kept.flags.writeable = False
        return kept

    def miss(self) -> None:
        """Learn that a step is another one than planned."""
        plan = self._plan
        if plan is not None:
            plan.misses += 1
            if plan.misses == _MISSES:
                self.refuse()

    def refuse(self) -> None:
        """Plan nothing for a while."""
        self._plan = None
        self._before = None
        self._pairs = 0
        self._wait = self._patience
        self._patience = min(2 * self._patience, _LONGEST_WAIT)

    def learn(self, tape: "Tape", notes: Notes, value: Value, gradient: Array) -> None:
        """Learn what a step has run whose backward pass, from `value`, is over."""
        before, self._before = self._before, None
        try:
            step = Step(tape, notes, value)
        except NotReplayableError:
            self.refuse()
            return
        if before is None:
            self._before = step
            return
        try:
            plan = Plan(tape, before, step, gradient)
        except NotReplayableError:
            # Something may have come between the two, such as a smaller batch.
            self._pairs += 1
            self._before = step
            if self._pairs == _PAIRS:
                self.refuse()
            return
        if plan.agrees(tape, step):
            self._plan = plan
            self._pairs = 0
        else:
            self.refuse()


def all_stale(tape: "Tape") -> bool:
    """Return whether no gradient waits that a backward pass of a tape would be added to."""
    return all(
        each.store.stale
        for call in tape.calls
        for each in call.layer.own_parameters()
        if each.trainable
    )
