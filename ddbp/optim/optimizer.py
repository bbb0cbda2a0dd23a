"""The base of optimizers: fused updates of this rank's partition of the flat parameters. Their
state is sharded because slices are.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from ddbp.reduction.partition import Chunk, Partition, Span
from ddbp.snapshot import Schema, State, below, integer, like
from layers import Parameter
from layers.checks import non_negative
from layers.errors import message
from layers.kernels import optimizer as kernels
from layers.kernels.packed import elements
from layers.kernels.updates import BEGUN
from layers.types import Array

from . import groups as parameter_groups
from .blockwise import Blockwise, update_unguarded
from .checksums import Checksums, Memory
from .clipping import add_penalty
from .eight_bits import checked_bits, code_type, dither
from .groups import Groups
from .journal import Journal
from .powers import power_of
from .schedule import Schedule, Scheduled, as_schedule


class Optimizer(Scheduled):
    """Base of optimizers.

    Parameters
    ----------
    learning_rate
        A number or a `Schedule`.
    weight_decay
        λ: λ w is added to the gradient of the regularized parameters (weights, not biases), or the
        weights themselves decay, where it is `decoupled`.
    groups
        Options of their own for parameters, by patterns of their names as in `fnmatch`, or tuples
        of patterns: {"head.*": {"learning_rate": 1e-2, "weight_decay": 0}}. A parameter may be in
        one group; the others have the options of the optimizer.
    state_bits
        8: moments take 8 bits an element, and a scale for 16 of them (8 in float64), in place of
        the type of the parameters. It is the same for all groups.

    Attributes
    ----------
    given
        The schedule as it was given. One with a state is copied for each trainer, and begins anew
        there: `schedule` is the copy.
    steps
        The steps taken.
    factor
        What the rates of all schedules are multiplied by.
    members, group
        What updates the parameters of each group, and which of them this is: number 0 those that
        are in none.
    journal
        The undo log that updates leave, if they do.
    memory
        What is done about bits that change between two updates.
    checksums
        Those that tell whether bits have changed between two updates, unless memory is trusted.

    Notes
    -----
    A subclass keeps each argument in an attribute of its name, but the learning rate: `repr` shows
    them, and options of groups take their places.
    """

    decoupled = False
    """Whether weight decay is w *= 1 - η λ before the update."""
    slots: tuple[str, ...] = ()
    """Names of the moments, arrays each as large as the partition."""
    positive: tuple[str, ...] = ()
    """Names of those that are never negative, and that steps are divided by."""
    whole = False
    """Whether the gradient of the whole partition must be there at once."""
    blockwise = False
    """Whether `update` does all by one `apply`, so that another rank can finish it. A class with an
    `update` or `decay` of its own is asked itself, not its base.
    """

    def __init_subclass__(cls) -> None:
        if {"update", "decay", "update_slice", "step"} & vars(cls).keys():
            cls.blockwise = bool(vars(cls).get("blockwise", False))

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
        state_bits: int | None = None,
    ) -> None:
        self.given = as_schedule(learning_rate, type(self).__name__)
        self.schedule = self.given.begun()
        self.weight_decay = non_negative(type(self).__name__, "weight_decay", weight_decay)
        self.groups = parameter_groups.checked(
            type(self).__name__, {} if groups is None else groups
        )
        self.state_bits = checked_bits(type(self), state_bits)
        self.moments: dict[str, Array] = {}
        self.steps = 0
        self.factor = 1.0
        self._rate = 0.0
        self.members = [self]
        self.group = 0
        self._part: Partition | None = None
        self.journal: Journal | None = None
        self._blocks: Blockwise | None = None
        self.checksums: Checksums | None = None
        self.memory = Memory.TRUSTED

    def __repr__(self) -> str:
        hidden = {"checksums", "factor", "given", "group", "journal", "members", "memory"}
        hidden |= {"moments", "schedule", "slots", "steps"}
        hidden |= {name for name in ("groups", "state_bits") if not getattr(self, name)}
        shown = {
            name: value
            for name, value in vars(self).items()
            if name not in hidden and name[0] != "_"
        }
        arguments = ", ".join(
            [repr(self.schedule), *(f"{name}={value!r}" for name, value in shown.items())]
        )
        return f"{type(self).__name__}({arguments})"

    def with_options(self, **changes: Any) -> "Optimizer":
        """Return a new optimizer with the options of this one but for some; where the learning rate
        is a number, schedules keep their form, and rates of groups change by the same factor. With
        schedule=None the rate that the schedule was made with is that of all steps.

        >>> optimizer.with_options(learning_rate=1e-4, weight_decay=0)

        Raises
        ------
        ValueError
            An option is out of range.
        TypeError
            It has no such option.
        """
        return parameter_groups.otherwise(self, changes)

    def group_numbers(self, named: Mapping[str, Parameter]) -> dict[str, int]:
        """Return by name which member of `members` is to update each parameter.

        Raises
        ------
        ValueError
            Groups do not fit the parameters.
        """
        return parameter_groups.numbers(self, parameter_groups.made(self, self.groups), named)

    def bind(
        self, part: Partition, journal: Journal | None = None, *, memory: Memory = Memory.TRUSTED
    ) -> None:
        """Begin anew with a partition, `part`, which this optimizer belongs to from now on; leave
        an undo log of updates, if there is a journal, and find bits that have changed between two
        updates, unless the memory is trusted.
        """
        self._bind(part, journal, memory)
        for member in self.members:
            member.begin(part)

    def _bind(self, part: Partition, journal: Journal | None, memory: Memory) -> None:
        made = parameter_groups.made(self, self.groups)
        self.steps = 0
        self.schedule = self.given.begun()
        self._part = part
        self.group = 0
        self._slots = self._all_slots(made)
        self.allocate(part)
        self.journal = journal
        self._blocks = None
        self.checksums = None
        self.members = [self, *(self._member(*each) for each in enumerate(made, 1))]
        for member in self.members:
            member.prepare(part)
        self._chunks = [
            (chunk, self.members[chunk.group].moments_of(chunk), self.members[chunk.group])
            for chunk in part.chunks
        ]
        held = [(chunk, moments) for chunk, moments, _ in self._chunks]
        self.memory = memory
        if memory:
            self.checksums = Checksums(part, held, watched=memory is Memory.WATCHED)
        if self.blockwise:
            blocks = Blockwise(part, held, journal, self.checksums)
            for member in self.members:
                member._blocks = blocks

    def move(self, part: Partition, journal: Journal | None = None) -> None:
        """Go on with another partition of the parameters of which some may be frozen and others
        not any more: these begin with moments as in a first step; collective.
        """
        assert self._part is not None
        self.verify()
        known = {slot: self._part.to_named(array) for slot, array in self.moments.items()}
        with self._going_on():
            self.bind(part, journal, memory=self.memory)
        for slot, array in self.moments.items():
            named = part.to_named(array)
            part.from_named(array, {name: known[slot].get(name, named[name]) for name in named})

    def follow(self, part: Partition, journal: Journal) -> None:
        """Go on with what this rank updates now that ranks are others, whose moments are in memory
        that ranks share.
        """
        with self._going_on():
            self._bind(part, journal, self.memory)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Return a context after which the members have the steps and schedules that they had."""
        before = [(member.steps, member.schedule) for member in self.members]
        yield
        for member, (steps, schedule) in zip(self.members, before, strict=True):
            member.steps = steps
            member.schedule = schedule

    def allocate(self, part: Partition) -> None:
        """Allocate the moments of a partition, and what else all groups share."""
        self.moments = self.moments_in(part)

    def moments_in(self, part: Partition) -> dict[str, Array]:
        """Return the moments of a partition: new ones, or where ranks survive those that they
        share.
        """
        codes = {name: code_type(self, name) for name in self._slots}
        return {name: part.shared(f"moment {name}", kind) for name, kind in codes.items()}

    @property
    def held(self) -> dict[str, Array]:
        """All arrays that this rank goes on with from update to update, by names."""
        return self.moments

    @property
    def arrays(self) -> int:
        """How many arrays updates change: parameters and moments."""
        return 1 + len(self._all_slots(parameter_groups.made(self, self.groups)))

    def _all_slots(self, made: "list[Optimizer]") -> tuple[str, ...]:
        return tuple(dict.fromkeys(chain(self.slots, *(each.slots for each in made))))

    def moments_of(self, chunk: Chunk) -> dict[str, Array]:
        """Return the parts of the moments that belong to a chunk of this group, in the order of
        `slots`.
        """
        return {name: elements(self.moments[name], chunk.start, chunk.stop) for name in self.slots}

    def prepare(self, part: Partition) -> None:
        """Prepare the update of the `spans` of this group."""

    def begin(self, part: Partition) -> None:
        """Fill the moments of the `spans` of this group, which are zero, for the first step."""

    def _member(self, number: int, made: "Optimizer") -> "Optimizer":
        """Return this optimizer, moments and all, with the options of one that was made for the
        group of this number.
        """
        member = copy.copy(self)
        kept = {"checksums", "group", "groups", "journal", "members", "memory", "moments"}
        kept.add("steps")
        for name, value in vars(made).items():
            if name not in kept and name[0] != "_":
                setattr(member, name, value)
        if made.given is self.given:
            member.schedule = self.schedule
        member.group = number
        return member

    @property
    def schedules(self) -> list[Schedule]:
        """The schedules of all groups, each once."""
        return list({id(member.schedule): member.schedule for member in self.members}.values())

    def begin_epoch(self, epoch: int) -> None:
        """See `Schedule.begin_epoch`."""
        for schedule in self.schedules:
            schedule.begin_epoch(epoch)

    def observe(self, value: float) -> None:
        """See `Schedule.observe`."""
        for schedule in self.schedules:
            schedule.observe(value)

    def spans(self, part: Partition) -> Iterator[Span]:
        """Yield the spans of the partition that are of the group of this member."""
        for span in part.spans:
            if span.group == self.group:
                yield span

    @property
    def rate(self) -> float:
        """The learning rate of the last update, of parameters that are in no group; 0 before."""
        return self._rate

    def require_bound(self, part: Partition) -> None:
        """Refuse a partition, `part`, that this optimizer does not belong to any more.

        Raises
        ------
        RuntimeError
            Another trainer was made with this optimizer since.
        """
        if self._part not in (None, part):
            must, fix = (
                "the optimizer must belong to this trainer",
                "Make an optimizer for each trainer.",
            )
            raise RuntimeError(
                message(
                    "Trainer", must, f"{self!r}, with which another trainer was made since", fix
                )
            )

    def step(self, part: Partition) -> None:
        """Update the partition by its gradient, at the schedules' rates of this step."""
        self.require_bound(part)
        if not self.blockwise:
            self.verify()
        for member in self.members:
            member._rate = self.factor * float(member.schedule.rate(member.steps))
            member.steps += 1
        if self.whole:
            part.collect()
        if self.journal is not None and not self.blockwise:
            self.journal.save(part, self.moments)
        if self.checksums is not None:
            self.checksums.begin(self.steps - 1)
        if self.whole:
            for member in self.members:
                member.update_slice(part, member._rate)
        else:
            self._update_chunks(part, self._chunks)
        if self.checksums is not None:
            self.checksums.end(noted=self.blockwise)

    def _update_chunks(
        self, part: Partition, chunks: "Sequence[tuple[Chunk, dict[str, Array], Optimizer]]"
    ) -> None:
        for chunk, moments, member in chunks:
            part.fetch(chunk)
            if member._blocks is not None:
                chunk = member._blocks.detached(part, chunk)
            if member.weight_decay and not (member.decoupled and member._blocks is not None):
                member.decay(chunk, member._rate)
            member.update(chunk, moments, member._rate)

    def apply(
        self,
        formula: Callable[..., Any],
        chunk: Chunk,
        moments: Mapping[str, Array],
        scalars: tuple[Any, ...],
    ) -> None:
        """Update a chunk by a formula (values, gradient, \\*moments, \\*scalars), which returns
        what takes the places of values and moments: see `layers.kernels.updates`.

        An optimizer whose `update` does all by one `apply` is `blockwise`.
        """
        if self.state_bits:
            scalars = (*scalars, dither(self.steps))
        if self._blocks is None:
            update_unguarded(formula, (chunk.values, *moments.values()), chunk.gradient, scalars)
            return
        factor = 1 - self._rate * self.weight_decay if self.decoupled else 1.0
        self._blocks(formula, chunk, scalars, factor)

    def finish(self, part: Partition, moments: Mapping[str, Array], slot: int) -> None:
        """Finish the update of this step on the partition of another rank, which has died in it,
        with its moments and the undo log of its slot.

        The partition must have the gradient, and the scale, that it had there. Whoever dies in here
        leaves it to be finished by others, in the same way.
        """
        assert self.journal is not None
        members = [copy.copy(member) for member in self.members]
        for member in members:
            member.moments = dict(moments)
        chunks = [
            (chunk, members[chunk.group].moments_of(chunk), members[chunk.group])
            for chunk in part.chunks
        ]
        held = [(chunk, of) for chunk, of, _ in chunks]
        blocks = Blockwise(part, held, self.journal, None)
        for member in members:
            member._blocks = blocks
        with self.journal.resumed(slot, held):
            self._update_chunks(part, chunks)

    def verify(self) -> None:
        """See to it that parameters and moments are what the last update has left, if they are
        checked.

        Raises
        ------
        MemoryCorruptionError
            Bits have changed since.
        """
        if self.checksums is not None:
            self.checksums.verify(self.steps)

    def undo(self, lost: Sequence[tuple[Partition, Mapping[str, Array], int]]) -> None:
        """Take back the update of this step, one that is not `blockwise`, if it has begun: on the
        partition of this rank and on those of others, with their moments and slots, that have died
        in it.
        """
        assert self.journal is not None
        assert self._part is not None
        for part, moments, slot in [(self._part, self.moments, self.journal.slot), *lost]:
            self.journal.put_back(slot, part, moments)
        if self.journal.cells[BEGUN]:
            self.journal.begin()
            for member in self.members:
                member.steps -= 1

    def update_slice(self, part: Partition, rate: float) -> None:
        """Update the `spans` of the partition, all of whose gradient is there, if it must be
        `whole`.
        """
        raise NotImplementedError

    def decay(self, chunk: Chunk, rate: float) -> None:
        """Apply weight decay, to the gradient or, if it is decoupled, to the weights."""
        if not self.decoupled:
            add_penalty(chunk, 0.0, self.weight_decay)
            return
        for start, stop in chunk.regularized:
            kernels.scale(chunk.values[start:stop], 1 - rate * self.weight_decay)

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        """Update chunk.values by chunk.gradient and its part of the moments."""
        raise NotImplementedError

    def left(self, decay: float) -> float:
        """Return decay^steps, what a moving average with this decay has left of its first value."""
        return power_of(decay, self.steps)

    def state(self) -> dict[str, Any]:
        """Return the steps taken, the state of the schedule, and what this rank holds of the
        moments of each parameter.
        """
        self.verify()
        return self._state()

    def _state(self) -> dict[str, Any]:
        assert self._part is not None
        return {
            "steps": self.steps,
            **{
                f"{prefix}.{name}": value
                for prefix, schedule in self._named_schedules().items()
                for name, value in schedule.state().items()
            },
            **{
                f"{slot}.{name}": pieces
                for slot, array in self.moments.items()
                for name, pieces in self._part.pieces(array).items()
            },
        }

    def state_schema(self, state: State) -> Schema:
        """Return what all entries of a state must be, if it is to be loaded."""
        return {
            **like(self._state()),
            **{
                f"{prefix}.{name}": entry
                for prefix, schedule in self._named_schedules().items()
                for name, entry in schedule.state_schema(below(prefix, state)).items()
            },
            "steps": integer(0),
        }

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned, on any number of ranks."""
        assert self._part is not None
        for member in self.members:
            member.steps = state["steps"]
        for prefix, schedule in self._named_schedules().items():
            schedule.load_state(below(prefix, state))
        for slot, array in self.moments.items():
            self._part.from_named(array, below(slot, state))
        if self.checksums is not None:
            self.checksums.forget()

    def _named_schedules(self) -> dict[str, Schedule]:
        """Return the schedules by the names that they have in a state."""
        return {
            f"groups.{number}.schedule" if number else "schedule": member.schedule
            for number, member in enumerate(self.members)
            if not number or member.schedule is not self.schedule
        }
