"""Plans: the functions of a step that are run again, and what must be the same for that."""

from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.engine.batch_sum import BatchSum
from layers.engine.gradients import Gradients
from layers.engine.layer import Layer
from layers.engine.module import Module
from layers.engine.parameter import Parameter
from layers.kernels import underflow
from layers.kernels.jit import compiled
from layers.types import Array

from .steps import (
    PLAIN,
    FirstSample,
    Given,
    NotReplayableError,
    OtherStepError,
    Run,
    Step,
    StepNumber,
    given_arrays,
)

if TYPE_CHECKING:
    from layers.engine.tape import Tape


_KEYS = FirstSample, StepNumber
_LARGEST = 2**24
"""Bytes of outputs and gradients above which steps are not replayed: they take so long that the
Python in them does not matter, and to compare them takes as much memory again.
"""


class Entry:
    """A call of a plan.

    Attributes
    ----------
    number, layer, wants, share
        Its number, its layer, of each output whether its gradient is computed, and what the only
        one is the mean of.
    sources
        Where its inputs come from: see `Step`.
    runs
        The functions of its forward.
    make
        The function that makes the output in every step, if one does.
    outputs
        The outputs, if none does.
    saved
        What backward of an ordinary call would find.
    observed
        What the call observes.
    draws
        How many random keys are given out before the call, and before the next.
    """

    def __init__(self, number: int, step: Step, wants: Sequence[bool]) -> None:
        self.number = number
        self.layer: Layer = step.layers[number]
        self.wants = wants
        self.share: BatchSum | None = step.shares[number]
        self.sources: Sequence[Any] = step.sources[number]
        self.count = len(self.sources)
        self.runs: Sequence[Run] = ()
        self.make: Run | None = None
        self.outputs: list[Any] = [*step.outputs[number]]
        self.saved: list[Any] = [*step.saved[number]]
        self.observed = step.observed[number]
        self.draws = step.draws[number], step.draws[number + 1]

    def run(self) -> Sequence[Array]:
        """Run the functions; return the outputs."""
        for function, arguments in self.runs:
            function(*arguments)
        return self.answer()

    def answer(self) -> Sequence[Array]:
        """Return the outputs, once the functions have run."""
        if self.make is None:
            return self.outputs
        function, arguments = self.make
        return (function(*arguments),)


class Plan:
    """What is run in place of steps that are the same.

    Parameters
    ----------
    tape
        That of the second of two steps, whose backward pass is over.
    before, step
        What the two have run.
    gradient
        What backward has started from.

    Attributes
    ----------
    entries
        The calls.
    inputs
        The inputs of the tape, by the number of the value.
    program
        A model and a loss of which all that they do is known, and nothing else has been called;
        None, if it was otherwise.
    turn
        Which step takes it.
    misses
        How many steps in a row were others.

    Raises
    ------
    NotReplayableError
        The steps have not run the same.
    """

    def __init__(self, tape: "Tape", before: Step, step: Step, gradient: Array) -> None:
        _require_same(
            (before.layers, before.inputs, before.wants, _numbers(before)),
            (step.layers, step.inputs, step.wants, _numbers(step)),
        )
        given = [
            Given(array, wants=step.wants[n])
            for n, array in zip(step.inputs, step.given, strict=False)
        ]
        self.inputs = dict(zip(step.inputs, given, strict=True))
        given += [x for sources in step.sources for x in sources if isinstance(x, Given)]
        pair = _Pair(before, step, given)
        wants = iter([each for n, each in enumerate(step.wants) if n not in self.inputs])
        self.entries = [
            Entry(n, step, [*islice(wants, len(outputs))]) for n, outputs in enumerate(step.outputs)
        ]
        for n, entry in enumerate(self.entries):
            entry.runs = pair.runs(before.forward[n], step.forward[n])
            made = [x for x in (before.made[n], step.made[n]) if x is not None]
            if made:
                (entry.make,) = pair.runs(made[:1], made[1:])
            else:
                pair.place(before.outputs[n], entry.outputs)
            pair.place(before.saved[n], entry.saved)
            _require_same([*map(tuple, before.observed[n])], [*map(tuple, entry.observed)])
            _require_same(before.shares[n], entry.share)
        _require_same(before.draws, step.draws)
        self._backward = pair.runs(before.backward, step.backward)
        self._keyed = pair.keyed
        self._gradient = gradient
        self._adds_up = tape.adds_up
        given_bounds, numbers = tape.shard_bounds.given, (tape.samples, tape.divided, tape.seed)
        self._of_tape = tape.owner, given_bounds, tape.hooks, *numbers
        self._allocations = tape.workspace.allocations
        own = {id(each): each for layer in step.layers for each in layer.own_parameters()}
        self._parameters = [
            (each, each.value, each.trainable, each.store, each.store.held) for each in own.values()
        ]
        self._trained: list[tuple[Gradients, Array]] = []
        for each in own.values():
            store = each.store
            if each.trainable:
                # Of others, memory may be another one in each step.
                if store.owner is not tape.owner or not store.stays or store.held is None:
                    raise NotReplayableError
                self._trained.append((store, store.held))
        held = [*chain.from_iterable(step.outputs), *(memory for _, memory in self._trained)]
        if sum(array.nbytes for array in held) > _LARGEST:
            raise NotReplayableError
        self._changes = _changes()
        self.program = step.program if self._is_whole() else None
        self._forward = [run for entry in self.entries for run in entry.runs]
        self._observed = [each for entry in self.entries for each in entry.observed]
        self.turn = 0
        self.misses = 0

    def agrees(self, tape: "Tape", step: Step) -> bool:
        """Return whether the plan gives the bits of the step that the tape has just taken; what
        that has computed is there in any case.
        """
        computed: list[Any] = [*chain.from_iterable(step.outputs)]
        gradients = [held for _, held in self._trained]
        sums = [entry.share.sums for entry in self.entries if entry.share is not None]
        arrays = [*computed, *gradients, *sums]
        copies = [array.copy() for array in arrays]
        tape.workspace.spoil([*given_arrays(tape)])
        for array in gradients:
            array[...] = np.nan
        mode = underflow.flush()
        try:
            made = [y for entry in self.entries for y in entry.run()]
            self._run_backward()
        except OtherStepError:
            made = []
        finally:
            underflow.restore(mode)
        again = [*made, *gradients, *sums]
        if [x.tobytes() for x in again] == [x.tobytes() for x in copies]:
            return True
        for array, copy in zip(arrays, copies, strict=True):
            if array.flags.writeable:
                array[...] = copy
        return False

    def fits(self, tape: "Tape") -> bool:
        """Return whether a tape that begins may take the step again."""
        owner, given, hooks, samples, divided, seed = self._of_tape
        return (
            tape.owner is owner
            and tape.shard_bounds.given is given
            and tape.hooks is hooks
            and tape.samples == samples
            and tape.divided is divided
            and tape.seed == seed
        )

    def begin(self, tape: "Tape") -> int:
        """Return the turn of a tape that takes the step again, whose random keys are put where they
        belong.
        """
        self.turn += 1
        for arguments, place, key in self._keyed:
            arguments[place] = _of_tape(key, tape)
        return self.turn

    def is_current(self, allocations: int) -> bool:
        """Return whether layers, parameters and the memory of a workspace, by the number of its
        allocations, are still those of the plan.
        """
        return allocations == self._allocations and self.holds()

    def holds(self) -> bool:
        """Return whether layers and parameters are still those of the plan."""
        if _changes() == self._changes:
            return True
        # Of some layer, or parameter: not of one of these?
        if Module.changes != self._changes[2] or not all(
            each.value is value
            and each.trainable is trainable
            and each.store is store
            and store.held is held
            for each, value, trainable, store, held in self._parameters
        ):
            return False
        self._changes = _changes()
        return True

    def _is_whole(self) -> bool:
        """Return whether all calls follow from one input and the constants of the last."""
        *between, last = self.entries
        return (
            [*self.inputs] == [0]
            and [x.__class__ is int for x in last.sources] == [True] + [False] * (last.count - 1)
            and all(
                entry.make is None and not any(isinstance(x, Given) for x in entry.sources)
                for entry in between
            )
        )

    def run_forward(self, tape: "Tape") -> Array:
        """Take all calls; return the output of the last."""
        for function, arguments in self._forward:
            function(*arguments)
        for numbers, apply, gathered in self._observed:
            tape.on_gathered(numbers, apply, gathered=gathered)
        return self.entries[-1].answer()[0]

    def run_backward(self, gradient: Array, *, adds_up: bool) -> bool:
        """Take the backward pass, if all gradients are to be overwritten, and shards added up where
        they were; return whether it was taken.
        """
        if not is_same_number(gradient, self._gradient) or _changes() != self._changes:
            return False
        if adds_up is not self._adds_up:
            return False
        for store, held in self._trained:
            if not store.stale or store.held is not held:
                return False
        for store, _ in self._trained:
            store.stale = False
        mode = underflow.flush()
        try:
            self._run_backward()
        finally:
            underflow.restore(mode)
        self.misses = 0
        return True

    def _run_backward(self) -> None:
        for function, arguments in self._backward:
            function(*arguments)


def is_same_number(a: Array, b: Array) -> bool:
    """Return whether two gradients are one array, or one number to the bit."""
    return a is b or (a.ndim == b.ndim == 0 and a.dtype == b.dtype and a.tobytes() == b.tobytes())


class _Pair:
    """Two steps, of which all must be the same but arrays from outside.

    Parameters
    ----------
    before, step
        The steps, whose arrays are all still there: what lies at one place is one array.
    given
        What arrays from outside are put into, as many as the steps were given.
    """

    def __init__(self, before: Step, step: Step, given: Sequence[Given]) -> None:
        self._before = before
        self._step = step
        self._given = given
        # Arguments of functions, and where what of random keys belongs in them.
        self.keyed: list[tuple[list[Any], int, Any]] = []
        _require_same(len(before.given), len(step.given))

    def runs(self, before: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
        """Return what is run in place of the functions of two steps."""
        _require_same([function for function, _ in before], [function for function, _ in runs])
        result: list[Run] = []
        for (_, a), (function, b) in zip(before, runs, strict=True):
            arguments = [*b]
            found = self.place(a, arguments)
            # Of the types that it was compiled for, a kernel need not ask again.
            result.append((compiled(function, b), arguments if found else tuple(b)))
        return result

    def place(self, before: Sequence[Any], target: list[Any]) -> bool:
        """Have what is from outside be put into a list, whose other items must be those of the step
        before; return whether there is any.
        """
        _require_same(len(before), len(target))
        found = False
        for place, (a, b) in enumerate(zip(before, target, strict=True)):
            if _has_key(b):
                self.keyed.append((target, place, b))
                found = True
            given = self._source(a, b) if b.__class__ is np.ndarray else None
            if given is None:
                _require_same(a, b)
            else:
                given.put(target, place, b.shape)
                found = True
        return found

    def _source(self, a: Any, b: Array) -> Given | None:
        """Return the array from outside that an array is, perhaps in another shape; None for one
        that stays.
        """
        near = [n for n, x in enumerate(self._step.given) if x is b or np.may_share_memory(x, b)]
        if not near:
            return None
        n = near[0]
        if (
            len(near) > 1
            or not _is_whole(b, self._step.given[n])
            or not _is_whole(a, self._before.given[n])
        ):
            raise NotReplayableError
        _require_same((a.shape, a.dtype), (b.shape, b.dtype))
        return self._given[n]


def _is_whole(array: Any, given: Array) -> bool:
    """Return whether an array is all of another one, in its order."""
    return array is given or (
        array.__class__ is np.ndarray
        and array.flags.carray
        and given.flags.carray
        and _address(array) == _address(given)
        and (array.size, array.dtype) == (given.size, given.dtype)
    )


def _require_same(a: Any, b: Any) -> None:
    """Refuse what is not the same in both steps."""
    if a is b:
        return
    if a.__class__ is b.__class__:
        if b.__class__ in _KEYS:
            return
        if isinstance(b, np.ndarray):
            if _where(a) == _where(b):
                return
        elif isinstance(b, tuple | list):
            if len(a) == len(b):
                for x, y in zip(a, b, strict=True):
                    _require_same(x, y)
                return
        elif a == b and (isinstance(b, (*PLAIN, np.generic, np.dtype)) or callable(b)):
            return
    raise NotReplayableError


def _has_key(argument: Any) -> bool:
    """Return whether an argument is a part of a random key that changes from step to step, or a
    tuple that has one.
    """
    if argument.__class__ is tuple:
        return any(map(_has_key, argument))
    return argument.__class__ in _KEYS


def _of_tape(key: Any, tape: "Tape") -> Any:
    """Return what takes the place of a part of a random key in a step."""
    if key.__class__ is FirstSample:
        return tape.first_sample
    if key.__class__ is StepNumber:
        return tape.step
    return tuple(_of_tape(each, tape) for each in key) if key.__class__ is tuple else key


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _where(array: Array) -> tuple[Any, ...]:
    # Where nothing is, does not matter.
    return array.size and _address(array), array.shape, array.strides, array.dtype


def _numbers(step: Step) -> list[list[Any]]:
    """Return of each call which values it was given."""
    return [[x if x.__class__ is int else None for x in sources] for sources in step.sources]


def _changes() -> tuple[int, int, int]:
    """Return how often parameters have moved and been frozen, and layers changed."""
    return Parameter.moves, Parameter.freezes, Module.changes
