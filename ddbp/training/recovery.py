"""Recovery: a run goes on when ranks are killed, to the bits of the run in which none was, and lets
newcomers take their places.

A step has two phases, each of which can be done again from what it only reads. Until the update
begins parameters and moments are as they were: the ranks that are left share the shards out anew,
and compute the batches of the group once more. The update of a rank that was killed in it is
finished by the others, see `Update`. What is done beside steps changes nothing before its last
meeting, so it is done again. Where none is left, or none can go on, all begin anew from the state
that they have kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from enum import Enum, auto
from itertools import count
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ddbp import terminal
from ddbp.checkpoint.folder import Checkpoint
from ddbp.comm.base import CommunicationError, Communicator, NotRecoveredError, RankLost
from ddbp.observers.observer import Request
from ddbp.snapshot import Snapshot
from layers import Value
from layers.checks import positive_int
from layers.errors import message

from . import snapshots
from .batch_stream import BatchStream, taped
from .keeping import Keeper

if TYPE_CHECKING:
    from .trainer import Trainer

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
GlobalBatch = tuple[Any, Any, Any]

RESTART = "All ranks begin again, from memory, or with --max-restarts from the newest checkpoint."
"""What helps where the ranks that are left cannot go on."""
_TRAINERS = count()


class Origin(Enum):
    """Where a batch comes from, which decides whether there is a way to have it once more."""

    NOWHERE = auto()
    """A script's own `batch`, or several of the others in one group."""
    STREAM = auto()
    """`fit` or `batches`."""
    GIVEN = auto()
    """`train_step`."""


class Recovering:
    """What a trainer offers to what is collective beside its steps."""

    _recovery: "Recovery | None"
    _stream: BatchStream
    step_count: int

    def steps(self, count: int) -> Iterator[int]:
        """Yield the number of the next step until there have been so many updates: for a loop over
        `train_step`, or over `batch` and `step`, that goes on where training is. So it does after
        `load_state`, and under `ddbp launch --survive` in a process that replaces one that was
        killed; a step that was lost comes once more.

        >>> for step in trainer.steps(1000):
        ...     trainer.train_step(*batch_of(step))
        """
        count = positive_int("Trainer.steps", "count", count)
        recovering = nullcontext() if self._recovery is None else self._recovery.loop_of_steps()
        with self._stream.changes.loop(), recovering:
            while self.step_count < count:
                yield self.step_count
                if self._recovery is not None:
                    self._recovery.between_steps()

    def recovered(
        self,
        operation: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Return what a collective operation does. If ranks are killed in it, under `ddbp launch
        --survive`, those that are left do it again: it must change nothing before its last meeting.
        """
        if self._recovery is None:
            return operation(*arguments, **options)
        return self._recovery(operation, *arguments, **options)

    def join(self, loop: str) -> bool | None:
        """Come to a loop over batches; return whether this process goes on in the midst of it, as
        it replaces one that was killed; None if the loop is over.
        """
        return self._recovery is not None and self._recovery.join(loop)


class Recovery:
    """Has a trainer go on when ranks are lost, or let in.

    Parameters
    ----------
    trainer
        The trainer, on ranks that survive.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer
        self._comm = trainer.comm
        # What everything is laid out for: the group of ranks, and the rank of each slot.
        self._group = trainer.comm.group
        self._ranks = _ranks(trainer.comm)
        self._origin = Origin.NOWHERE
        # Whether the batch that was made last is one of a layout of before.
        self._void = False
        # Whether the group was lost of which `train_step` was given these batches.
        self._lost = False
        self._given: list[GlobalBatch] = []
        # Whether a script is in a loop that gives out a step once more which is lost.
        self._repeats = False
        # The last step that ranks were lost in, and their shards.
        self._suspects: tuple[int, set[int]] = -1, set()
        # Which trainer of the script this is, -1 if for practice; which loop goes on, and where in
        # the script that is: twice the number of a loop over batches, 1 more for steps after it.
        practises = trainer.advice is not None and trainer.advice.for_practice
        self._number = -1 if practises else next(_TRAINERS)
        self._loop, self._where = "", -1
        # What is kept is the state of one trainer, which ranks that take over go on with.
        kept = None if self._number else trainer.comm.kept
        self._keeper = None if kept is None else Keeper(trainer, kept)
        self._takes_over = kept is not None and trainer.comm.takes_over
        trainer._stream.between = self.welcome

    # Beside steps

    def __call__(
        self,
        operation: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Return what a collective operation does, which changes nothing before its last meeting:
        if ranks are lost in it, those that are left do it again.
        """
        while True:
            self.follow()
            try:
                return operation(*arguments, **options)
            except RankLost:
                self._comm.regroup()

    def follow(self) -> None:
        """Lay everything out for the ranks that there are now; collective if they are others. What
        has accumulated is lost.
        """
        while self._group != self._comm.group:
            try:
                self._lay_out()
            except RankLost:
                self._comm.regroup()

    def _lay_out(self, newcomers: Snapshot | None = None) -> None:
        """Lay everything out anew; with newcomers, load what the state has of that."""
        trainer, comm = self._trainer, self._comm
        group = comm.group
        if trainer._truncation is not None:
            raise _refusal("with truncate=, which needs the states that the killed rank carried")
        if trainer._update.group.batches:
            self._lose()
        self._void = True
        plan = trainer.options.plan(comm.rank, comm.size)
        trainer._plan = plan
        trainer._gather.follow(plan)
        trainer._stream.follow(plan)
        trainer._update.regroup(plan, newcomers=newcomers is not None)
        if newcomers is not None:
            snapshots.load_shared(snapshots.parts(trainer), newcomers)
        for name, part in snapshots.told(trainer).items():
            if newcomers is not None:
                part.load_state(newcomers.part(name))
            part.follow(trainer)
        trainer._fit.lead(trainer)
        for callback in trainer.callbacks:
            callback.on_regroup(trainer, newcomers is not None)
        self._group, self._ranks = group, _ranks(comm)

    def _lose(self) -> None:
        """Have the batches of the group given out once more."""
        self._trainer._update.lose()
        if self._origin is Origin.STREAM:
            self._trainer._stream.again()
        elif self._origin is Origin.GIVEN:
            self._lost = True
        elif not self._repeats or self._trainer.options.accumulate > 1:
            raise _refusal(
                "on a batch of Trainer.batch, or on a group of batches of several origins"
            )

    # Steps

    def begin(self, origin: Origin) -> None:
        """Learn where the batch comes from that is made next."""
        if self._comm.newcomer:
            self._stay_away("its first step is in no loop of fit, batches or steps")
        if not self._trainer._update.group.batches:
            self._origin = origin
        elif self._origin is not origin:
            self._origin = Origin.NOWHERE
        self._void = False

    def given(self, batch: GlobalBatch) -> Iterator[GlobalBatch]:
        """Yield a batch that `train_step` was given, and again, after those of its group that came
        before, as long as that is lost.
        """
        group = self._trainer._update.group
        if not group.batches and not self._lost:
            self._given = []
        before, todo = [*self._given], [batch]
        while todo or self._lost:
            if self._lost:
                self._lost, todo = False, [*before, batch]
            yield todo.pop(0)
        if group.batches:
            # Its arrays may be filled with the next one.
            self._given.append(deepcopy(batch))

    def take(
        self, propagate: Callable[..., Value], *arguments: Any, **options: Any
    ) -> float | None:
        """Take a step on the loss that `propagate` returns for the arguments; return None if its
        batches are lost, and come once more.
        """
        value = None
        try:
            if not self._void:
                value = self._trainer._propagated(propagate, *arguments, **options)
        except RankLost as lost:
            self._require_other_work(lost)
            if self._comm.group == self._group:
                self._comm.regroup()
        except Exception:
            # What is computed with placeholders may go wrong.
            if self._trainer._gather.lost is None:
                raise
            self._comm.regroup()
        if value is None:
            self._lose()
        self.follow()
        return value

    def _require_other_work(self, lost: RankLost) -> None:
        """Refuse to have others do what ranks have died of that did it for those that had died."""
        step, plan = self._trainer.step_count, self._trainer._plan
        owned = [plan.owned(self._ranks[slot]) for slot in lost.slots if slot in self._ranks]
        shards = {shard for first, last in owned for shard in range(first, last)}
        last_step, before = self._suspects
        if step == last_step and not before.isdisjoint(shards):
            must = f"a rank must live through the shards of step {step} that another one died in"
            got = f"shard {min(before & shards)}, which two have died in"
            raise CommunicationError(message("Trainer", must, got, RESTART)) from lost
        self._suspects = step, shards | (before if step == last_step else set())

    # Newcomers, and ranks that take over

    def inherit(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """Learn how far the script is, as a process that replaces another, unless the checkpoint is
        newer; return what is to go on from, None for none.
        """
        keeper = self._keeper
        if not (self._takes_over or self._comm.newcomer) or keeper is None:
            return checkpoint
        if checkpoint is not None and checkpoint.step > keeper.kept.step:
            self._takes_over = False
            return checkpoint
        if self._takes_over and keeper.kept.where % 2:
            self(self._take_over, keeper)
        elif keeper.kept.count:
            self(self._learn, keeper)
        return None

    def _learn(self, keeper: Keeper) -> None:
        """Take over what is seen between loops: which of them are over, and what has come of
        them.
        """
        trainer, number = self._trainer, -1
        parts = snapshots.parts(trainer)
        while number != keeper.kept.count:
            number, state = keeper.newest()
            for name in ("model", "fit"):
                parts[name].load_state(state.part(name))
            trainer.step_count = state.part("trainer")["step_count"]
            trainer._stream.over = (keeper.kept.where + 1) // 2 - 1
            trainer._stream.changes.known(state.part("stream"), keeper.kept.where // 2)

    def _take_over(self, keeper: Keeper) -> None:
        """Go on from the state that those before have kept."""
        self._trainer._go_on(keeper.newest()[1])
        self._takes_over = False

    def _come_to(self, loop: str, where: int) -> None:
        """Come to a loop, which newcomers are let in to from now on."""
        self._where = where
        self._loop = f"{loop}, place {where} of trainer {self._number}"

    def join(self, loop: str) -> bool | None:
        """Come to a loop over batches; return whether this process goes on in the midst of it,
        where the others are or those before it were; None if the loop is over.
        """
        trainer, keeper = self._trainer, self._keeper
        self._come_to(loop, 2 * trainer._stream.runs)
        if self._takes_over and keeper is not None:
            if keeper.kept.where != self._where:
                must = "a script must come to the same loops when it is run again"
                got = "another one than that of the state in memory"
                raise CommunicationError(message("Trainer", must, got, RESTART))
            self(self._take_over, keeper)
            return True
        if not self._comm.newcomer:
            return False
        # A loop of a script's own may call the model with something else.
        with nullcontext() if loop == "fit" else suppress(Exception):
            self._practise()
        return True if self._join() else None

    def _practise(self) -> None:
        """Propagate the first batch of the run before others wait for this process, and forget it:
        kernels are there then.
        """
        trainer, data = self._trainer, self._trainer._stream.data
        if trainer._memory.size is not None and data is not None:
            trainer._memory.practise(trainer, data)
        elif trainer.loss is not None and trainer._truncation is None:
            try:
                batch = taped(trainer, trainer._stream.first(), telling=False)
                trainer._run_pass(batch).tape.release()
            finally:
                trainer._update.group.restart()

    def _join(self) -> bool:
        """Join the others in a loop, as a newcomer; return False if they have left it."""
        trainer, keeper = self._trainer, self._keeper
        if trainer._truncation is not None:
            self._stay_away("windows of sequences carry states")
        if not self._comm.knock(
            self._loop, lambda: keeper is not None and keeper.kept.where > self._where
        ):
            self.inherit(None)
            return False
        snapshot = self._share(None)
        snapshots.load_own(trainer, snapshots.parts(trainer), snapshot)
        trainer._warm_up.over = True
        trainer._last_begun = -1
        return True

    @contextmanager
    def loop_of_steps(self) -> Iterator[None]:
        """Return a context for a loop of `Trainer.steps`, which goes on in the midst of it in a
        process that replaces another one.
        """
        self._come_to("steps", 2 * self._trainer._stream.runs + 1)
        if self._comm.newcomer:
            # Who comes too late has learnt how far the others are.
            self._join()
        self._repeats = True
        try:
            yield
        finally:
            self._repeats = False

    def between_steps(self) -> None:
        """Do what there is to be done between two of its steps."""
        trainer = self._trainer
        if not (trainer._update.group.batches or trainer._stream.given_out):
            self.welcome()

    def welcome(self) -> None:
        """Do between two steps of a loop what all ranks know of, or ask all to: keep the state, let
        newcomers in.
        """
        trainer, keeper, comm = self._trainer, self._keeper, self._comm
        requested = trainer.requested
        if requested & (Request.KEEP | Request.JOIN):
            trainer._update.reducer.requested &= ~(Request.KEEP | Request.JOIN)
            if requested & Request.KEEP and keeper is not None:
                self(keeper.keep, self._where)
            if requested & Request.JOIN:
                self._let_in()
            return
        if keeper is not None and comm.leads and keeper.is_due():
            trainer.request(Request.KEEP)
        if comm.knocking(self._loop) and trainer._truncation is None:
            trainer.request(Request.JOIN)

    def _let_in(self) -> None:
        snapshot, comm = snapshots.for_newcomers(self._trainer), self._comm
        try:
            comm.admit(self._loop)
        except RankLost:
            comm.regroup()
        if self._ranks.keys() >= {*comm.slots}:
            self.follow()
        else:
            self._share(snapshot)

    def _stay_away(self, why: str) -> None:
        """End this newcomer."""
        terminal.say(f"[slot {self._comm.slot}] cannot replace a rank that was killed: {why}")
        raise SystemExit(0)

    def _share(self, snapshot: Snapshot | None) -> Snapshot:
        """Have newcomers, who give None, get a state, and lay everything out with them; return the
        state.
        """
        while True:
            try:
                snapshot = snapshots.hand_over(self._comm, snapshot)
                self._lay_out(newcomers=snapshot)
            except RankLost:
                self._comm.regroup()
            else:
                return snapshot


def _refusal(got: str) -> NotRecoveredError:
    """Return the error for a run that cannot go on without a rank."""
    must = "a step that a killed rank was in must be one that can be taken again"
    return NotRecoveredError(message("Trainer", must, f"one {got}", RESTART))


def _ranks(comm: Communicator) -> dict[int, int]:
    """Return the rank of each slot."""
    return {slot: rank for rank, slot in enumerate(comm.slots)}
