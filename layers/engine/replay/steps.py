"""What ordinary steps run, noted while they do."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import ndarray

from layers.engine import shares
from layers.engine.call import Call
from layers.engine.layer import Layer
from layers.engine.module import Module, is_of_package
from layers.engine.observation import Observation
from layers.engine.value import Value
from layers.types import Array

if TYPE_CHECKING:
    from layers.engine.tape import Tape

Run = tuple[Callable[..., Any], Any]
"""A function, and its arguments: a tuple of them, or a list where some change from step to step."""

PLAIN = (int, float, bool, str, type(None))
"""Types of constants that are the same if they are equal."""


class NotReplayableError(Exception):
    """A step is another one than that before, or does what cannot be replayed."""


class Notes:
    """What a step runs.

    Attributes
    ----------
    values
        Inputs of the tape, and outputs of calls, in their order.
    runs
        Functions, and their arguments, in their order.
    ends
        Of each call, when its forward has ended, its number and how many functions had run.
    made
        By the number of a call: what has made its output.
    observed
        By the number of a call: what it has observed, see `Call.on_gathered`.
    outputs
        Of each call, when its forward has ended, the arrays that it has given.
    forward
        How many functions forward has run.
    program
        The model and the loss that make up the step, if any are known to.
    """

    __slots__ = ("ends", "forward", "made", "observed", "outputs", "program", "runs", "values")

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.runs: list[Run] = []
        self.ends: list[tuple[int, int]] = []
        self.made: dict[int, Run] = {}
        self.observed: dict[int, list[Observation]] = {}
        self.outputs: list[list[Array]] = []
        self.forward = 0
        self.program: tuple[Any, Any] | None = None

    def end_call(self, call: Call, values: Sequence[Value]) -> None:
        """Note that the forward of a call has ended, and what it has given."""
        self.values += values
        # Of values kept in 16 bits the arrays may be let go of.
        self.outputs.append([value.array for value in values])
        self.ends.append((call.index, len(self.runs)))


class NotedCall(Call):
    """A call of which is noted what it runs."""

    __slots__ = ()

    @property
    def step(self) -> int:
        return StepNumber(self.tape.step)

    def run(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.tape.run(function, *arguments)

    def constant(self, index: int, constant: Array) -> Array:
        if not constant.flags.writeable or constant.dtype.hasobject:
            return super().constant(index, constant)
        array = self.buffer(f"noted constant {index}", constant.shape, constant.dtype)
        self.run(np.copyto, array, constant)
        return array

    def returns(self, expected: Any, function: Callable[..., Any], *arguments: Any) -> bool:
        notes = self.tape.notes
        if notes is not None:
            expecting: Any = Expecting(function, expected)
            notes.runs.append((expecting, arguments))
        return bool(function(*arguments) == expected)

    def make(self, function: Callable[..., Array], *arguments: Any) -> Array:
        notes = self.tape.notes
        if notes is not None:
            notes.made[self.index] = function, arguments
        return function(*arguments)

    def random_key(self) -> tuple[int, int, int, np.uint64]:
        first_sample, step, draw, seed = super().random_key()
        return FirstSample(first_sample), StepNumber(step), draw, seed

    def gather(self, numbers: Array) -> Array:
        # What comes of them may be other numbers in each step.
        self.tape.end_notes()
        return super().gather(numbers)

    def on_gathered(
        self, numbers: Array, apply: Callable[[Array], None], *, gathered: bool = False
    ) -> None:
        notes = self.tape.notes
        if notes is not None:
            observation = Observation(numbers, apply, gathered)
            notes.observed.setdefault(self.index, []).append(observation)
        super().on_gathered(numbers, apply, gathered=gathered)


class FirstSample(int):
    """The number of a step's first sample, as a part of a random key."""


class StepNumber(int):
    """The number of a step, by itself or as a part of a random key."""


class OtherStepError(Exception):
    """A function has not returned what it did in the steps that were noted."""


class Expecting(NamedTuple):
    """A function that must return what it did.

    Attributes
    ----------
    function, expected
        The function, and what that is.
    """

    function: Callable[..., Any]
    expected: Any

    def __call__(self, *arguments: Any) -> None:
        if self.function(*arguments) != self.expected:
            raise OtherStepError


class Step:
    """What a step has run, kept beyond its tape.

    Parameters
    ----------
    tape
        Its tape, before that is released.
    notes
        What was noted.
    value
        That from which the backward pass has begun.

    Attributes
    ----------
    layers, saved, shares, outputs, made, observed, draws, forward
        Of each call: its layer, what it has saved, what its output is the mean of, its outputs,
        the function that has made the only one, if one has, what it has observed, how many random
        keys had been given out before it, and the functions of its forward.
    sources
        Of each call where its inputs come from: the number of a value, a `Given` or the `Same`
        once more, or a `Plain`.
    inputs
        The numbers of those values that are inputs of the tape.
    wants
        Of each value whether its gradient is computed.
    given
        The arrays from outside: those of the inputs, and constants of calls.
    backward
        The functions of backward.
    program
        The model and the loss that make up the step, if that is known, and they call nothing but
        layers of this package, in ways that depend on these alone.

    Raises
    ------
    NotReplayableError
        The step does what cannot be replayed.
    """

    def __init__(self, tape: "Tape", notes: Notes, value: Value) -> None:
        calls = tape.calls
        if tape.kept or value is not notes.values[-1]:
            raise NotReplayableError
        self._require_share(tape, value)
        if [index for index, _ in notes.ends] != [*range(len(calls))]:
            # A layer has called others within its forward.
            raise NotReplayableError
        self.layers = [call.layer for call in calls]
        if not all(map(_takes_part, self.layers)):
            raise NotReplayableError
        self.inputs = [n for n, value in enumerate(notes.values) if value.call is None]
        self.wants = [value.wants for value in notes.values]
        self.given = [notes.values[n].array for n in self.inputs]
        numbers = {id(value): n for n, value in enumerate(notes.values)}
        self._constants: dict[int, Given] = {}
        self.sources = [[self._source(call, x, numbers) for x in call.inputs] for call in calls]
        self.saved = [call.saved for call in calls]
        self.shares = [call.batch_sum for call in calls]
        self.outputs = notes.outputs
        self.made = [notes.made.get(call.index) for call in calls]
        self.observed = [notes.observed.get(call.index, []) for call in calls]
        self.draws = [*(call.draws for call in calls), tape.draws]
        bounds = pairwise([0, *(end for _, end in notes.ends)])
        self.forward = [notes.runs[start:stop] for start, stop in bounds]
        self.backward = notes.runs[notes.forward :]
        known = notes.program is not None and all(map(_is_closed, notes.program))
        self.program = notes.program if known else None

    def _require_share(self, tape: "Tape", value: Value) -> None:
        """Refuse a value of which no sums over the shards are known, where there are several."""
        try:
            if shares.of(value) is not shares.required(value, "Tape") and tape.divided:
                raise NotReplayableError
        except ValueError as error:
            raise NotReplayableError from error

    def _source(self, call: Call, x: Any, numbers: dict[int, int]) -> Any:
        """Return where an input of a call comes from."""
        if isinstance(x, Value) and id(x) in numbers:
            return numbers[id(x)]
        if x.__class__ is ndarray:
            known = self._constants.get(id(x))
            if known is not None:
                return Same(known)
            self.given.append(x)
            self._constants[id(x)] = Given(x, wants=False)
            return self._constants[id(x)]
        if x.__class__ in PLAIN:
            return Plain(x)
        raise NotReplayableError


def _takes_part(layer: Layer) -> bool:
    return layer.replayable and is_of_package(type(layer)) and "forward" not in vars(layer)


def _is_closed(called: Any) -> bool:
    """Return whether all that calls a layer, or this one, is code of this package that does the
    same for all inputs.
    """
    return isinstance(called, Module) and all(
        each.replayable and is_of_package(type(each)) for _, each in called.named_layers()
    )


def given_arrays(tape: "Tape") -> Iterator[Array]:
    """Yield the arrays that the calls of a tape were given from outside."""
    for call in tape.calls:
        for x in call.inputs:
            if x.__class__ is ndarray:
                yield x
            elif isinstance(x, Value) and x.call is None:
                yield x.array


class Plain:
    """An input of a call that is a number or a word."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def take(self, x: Any) -> bool:
        """Return whether an input is the same."""
        return x is self.value or (x.__class__ is self.value.__class__ and x == self.value)


class Same:
    """A constant that a call before was given, too.

    Parameters
    ----------
    of
        Where that belongs.
    """

    def __init__(self, of: "Given") -> None:
        self._of = of

    def take(self, x: Any) -> bool:
        """Return whether an input is the very array."""
        return x is self._of.taken


class Given:
    """An array from outside: an input of the tape, or a constant of a call.

    Parameters
    ----------
    array
        That of the step that was noted.
    wants
        Whether its gradient is computed.

    Attributes
    ----------
    taken
        That of the step that goes on.
    """

    def __init__(self, array: Array, *, wants: bool) -> None:
        self.taken = array
        self.wants = wants
        self._shape = array.shape
        self._dtype = array.dtype
        self._places: list[tuple[list[Any], int, tuple[int, ...] | None]] = []

    def put(self, target: list[Any], place: int, shape: tuple[int, ...]) -> None:
        """Have the array of each step stand, in a shape, at a place of a list."""
        self._places.append((target, place, None if shape == self._shape else shape))

    def take(self, x: Any) -> bool:
        """Put the array of a step where it belongs; return False if it is of another kind."""
        if (
            x.__class__ is not ndarray
            or x.shape != self._shape
            or x.dtype != self._dtype
            or not x.flags.carray
        ):
            return False
        self.taken = x
        for target, place, shape in self._places:
            target[place] = x if shape is None else x.reshape(shape)
        return True
