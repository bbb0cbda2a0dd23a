"""The stream of batches: what comes in which order, and how far training has come."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ddbp.comm.base import NotRecoveredError
from ddbp.data.array_dataset import ArrayDataset, array_digest
from ddbp.data.samples import recorded
from ddbp.data.source import Dataset
from ddbp.reduction.shards import ShardPlan
from ddbp.seldom import workers
from ddbp.snapshot import TEXT, Entry, Schema, State, below, integer, optional
from layers import Tape
from layers.checks import positive_int
from layers.errors import message
from layers.types import Array

from .accumulation import Accumulation
from .batch import Batch, LocalBatch, local_batch, of_workers, sliced
from .changes import Changes
from .loading import Loader
from .options import TrainerOptions
from .truncated_bptt import Truncation

if TYPE_CHECKING:
    from .trainer import Trainer


class BatchStream:
    """Gives out this rank's rows of the global batches of a run, epoch after epoch, and knows where
    the run is.

    The order of an epoch is a function of (seed, epoch), so where training is in the data needs few
    numbers, whatever the number of ranks.

    Parameters
    ----------
    options
        The trainer's options.
    plan
        Which rows of a global batch are whose.
    truncation
        What cuts the batches of a fit into windows, if anything.
    group
        The batches that the next update is for.
    prefetch
        Whether a thread makes the next batches while a step is computed.

    Attributes
    ----------
    data
        The data set of the run, None before the first one.
    given
        The global batch that is not of the stream, as it was given, if the last one was none.
    epoch
        How many epochs are over.
    position
        How many samples of the epoch that has begun are over, but for those of a group of batches
        whose windows are not.
    given_out
        Whether a batch was given out, and no step has been taken since.
    interrupted
        Whether the run goes on from an earlier state of it: the epoch that was given out is not
        over.
    loader
        What reads and augments batches.
    between
        Called where the next batch is asked for, between two updates.
    runs
        How many runs this trainer has come to.
    over
        How many of them were over in the state that was loaded.
    changes
        Which changes of parameters between loops the model has already.
    """

    def __init__(
        self,
        options: TrainerOptions,
        plan: ShardPlan,
        truncation: Truncation | None,
        group: Accumulation,
        prefetch: bool = False,
    ) -> None:
        self.epoch = 0
        self.position = 0
        self.given_out = False
        self.interrupted = False
        self._start = 0
        self._seed = options.seed
        self._options = options
        self._batch_size = options.batch_size
        self._accumulate = options.accumulate
        self._group = group
        # Whether the batches of the group shall be given out once more.
        self._again = False
        self._last_epoch = False
        self.runs = 0
        self.over = 0
        self.changes = Changes()
        self.between: Callable[[], None] | None = None
        self.follow(plan)
        self._truncation = truncation
        self.loader = Loader(options, prefetch)
        self.data: Dataset | None = None
        self.given: ArrayDataset | tuple[Array, Array] | None = None
        # The epoch that the run has begun with, or None if there is no run.
        self._first_epoch: int | None = None
        # The digest of the data of the epoch that has begun, once asked for; and whether the next
        # run goes on with what was loaded.
        self._begun_with: str | None = None
        self._resuming = False
        # The number of samples of the data of the epoch that has begun, and how often a state was
        # loaded: loops from before that do not go on.
        self._samples: int | None = None
        self._loads = 0

    def follow(self, plan: ShardPlan) -> None:
        """Go on with another plan."""
        self._plan = plan

    def again(self) -> None:
        """Give out the batches of the group that has not come to its update once more, next."""
        self._again = True

    def passes(self) -> bool:
        """Come to the next run; return whether it was over in the state that was loaded."""
        self.runs += 1
        self.changes.count = 0
        return self.runs <= self.over

    def require_same(self, data: Dataset) -> None:
        """Refuse other data for the next run, if that goes on in the midst of an epoch.

        Raises
        ------
        ValueError
            They are others.
        """
        goes_on = self._resuming and self.runs >= self.over
        if goes_on and self._begun_with not in (None, data.digest()):
            must, fix = (
                "the data must be those of the epoch that the loaded state is from the midst of",
                "Load the same data, or the state of the end of an epoch.",
            )
            raise ValueError(message("Trainer", must, data, fix))

    def begin(self, data: Dataset) -> bool:
        """Begin a run, or return that one goes on whose state was loaded."""
        options = self._options
        if options.exchange is not None:
            workers.require_rows(options.exchange, self._batch_size, options.samples(len(data)))
        self.require_same(data)
        resumes = self._resuming
        self._resuming = False
        self.given_out = False
        self.interrupted = False
        if not resumes:
            self._forget()
            self._first_epoch = self.epoch
        self.data = data
        return resumes

    def left(self, epochs: int) -> int:
        """Return how many of so many epochs are left of the run that begins or goes on; an epoch
        that has begun comes to its end.
        """
        assert self._first_epoch is not None
        count = positive_int("Trainer", "epochs", epochs, "1 is the least.")
        return max(int(self.mid_epoch), self._first_epoch + count - self.epoch)

    def epochs(self, epochs: int) -> Iterator[None]:
        """Yield once for each of so many epochs that is left, and begins."""
        left = self.left(epochs)
        while left:
            self._last_epoch = left == 1
            yield
            left = self.left(epochs) if self.interrupted else left - 1
            self.interrupted = False

    def begin_anew(self) -> None:
        """Have no runs or changes be passed that were over in the state that was loaded: the script
        has come to where it is.
        """
        self.runs = self.over
        self.changes.begin_anew()

    def is_within_run(self, state: State) -> bool:
        """Return whether a state is of the run that goes on."""
        first: Any = state["first_epoch"]
        return bool(first == self._first_epoch)

    def reopen(self) -> None:
        """Be where the last step of the epoch that has just ended was over."""
        assert self.data is not None
        self.epoch -= 1
        self.position = self._options.samples(len(self.data))

    def interrupt(self) -> None:
        """Go on within the run after a state of it was loaded."""
        self._resuming = False
        self.interrupted = True
        self.changes.begin_anew()

    def end(self) -> None:
        """End the run."""
        self._first_epoch = None
        self.given_out = False
        self.loader.close()

    def leave(self) -> None:
        """End a run that was left in its midst, unless it goes on from a state that was loaded."""
        if not self._resuming:
            self._forget()
            self.end()

    def _forget(self) -> None:
        """Be at the beginning of the epoch."""
        self.position = 0
        self._start = 0
        self._begun_with = None
        self._samples = None
        if self._truncation is not None:
            self._truncation.begin(())

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self._first_epoch is not None

    @property
    def come_to_run(self) -> bool:
        """Whether the script is in the run that goes on, rather than on its way to that."""
        return self.running and not self._resuming

    @property
    def mid_epoch(self) -> bool:
        """Whether an epoch has begun."""
        return self.position > 0 or (self._truncation is not None and self._truncation.mid_group)

    def given_digests(self, most: int) -> dict[str, str]:
        """Return digests of the arrays that were given by names, as of `ArrayDataset.digests`; none
        if the last batch is of the stream.
        """
        if isinstance(self.given, ArrayDataset):
            return self.given.digests(most)
        named = zip(("x", "y"), self.given or (), strict=False)
        return {name: array_digest(array, most) for name, array in named}

    def batches(self, data: Dataset) -> Iterator[LocalBatch]:
        """Yield what is left of the epoch that has begun, and end it."""
        return self._giving_out(self._batches(data))

    def _batches(self, data: Dataset) -> Iterator[LocalBatch]:
        end, size = self._options.samples(len(data)), self._batch_size
        first = start = self._take_start()
        begun_here = not self._group.batches
        while start < end:
            if not self._group.batches:
                first, begun_here = start, True
            stop = self.position = min(start + size, end)
            self._group.ends_run = self._last_epoch and stop == end
            following = range(stop, min(stop + size, end), size)
            (rows,) = self._take(data, range(start, stop, size), following)
            yield from self.turns(rows)
            start = stop
            if self._again:
                self._again = False
                self._require_known(begun_here)
                start = first
        self._end_epoch()

    def first(self) -> LocalBatch:
        """Return the first batch of the data of the run, whatever has been given out."""
        assert self.data is not None
        (rows,) = self.loader.take(self.data, self._plan, 0, range(1))
        return next(iter(self.turns(rows)))

    def parts(self, data: Dataset) -> Iterator[LocalBatch]:
        """Yield what is computed at once of what is left of the epoch that has begun, and end it:
        its batches, or the windows of a group's batches in turn.
        """
        if self._truncation is None:
            return self.batches(data)
        return self._giving_out(self._windows(data, self._truncation))

    def _windows(self, data: Dataset, truncation: Truncation) -> Iterator[LocalBatch]:
        size, end = self._accumulate * self._batch_size, self._options.samples(len(data))

        def starts(first: int) -> range:
            return range(first, min(first + size, end), self._batch_size)

        for first in range(self._take_start(), end, size):
            stop = min(first + size, end)
            yield from truncation.windows(self._take(data, starts(first), starts(stop)))
            self.position = stop
        self._end_epoch()

    def _giving_out(self, batches: Iterator[LocalBatch]) -> Iterator[LocalBatch]:
        """Yield batches, unless a state is loaded meanwhile."""
        loads = self._loads
        for batch in batches:
            self.given_out = True
            yield batch
            if self._loads != loads:
                if self.interrupted:
                    return
                must, fix = (
                    "a loop must be left when a state is loaded",
                    "Begin another one with trainer.batches after load_state.",
                )
                got = "one that was begun before load_state"
                raise RuntimeError(message("Trainer.batches", must, got, fix))
            if self.between is not None and not (self.given_out or self._group.batches):
                self.between()
        self.given_out = False

    def turns(self, rows: LocalBatch) -> Iterable[LocalBatch]:
        """Return this rank's rows of a batch, or those of each of its workers in turn."""
        return (rows,) if self._options.exchange is None else of_workers(rows)

    def _require_known(self, begun_here: bool) -> None:
        if not begun_here:
            must = "a group of batches that a killed rank was in must have begun in this epoch"
            fix = "It begins again from the newest checkpoint with --max-restarts."
            raise NotRecoveredError(message("Trainer", must, "one from before", fix))

    def of(self, batch: ArrayDataset) -> LocalBatch:
        """Return this rank's rows of a global batch that is not of the stream."""
        self.given = batch
        self.changes.note_step()
        return local_batch(batch, self._plan, range(len(batch)), sliced)

    def of_arrays(self, x: Array, y: Array) -> LocalBatch:
        """Return this rank's rows of a global batch that is two arrays."""
        self.given = x, y
        self.changes.note_step()
        start, stop, bounds = self._plan.rows(len(x))
        samples = len(x)
        if stop - start < samples:
            x, y = x[start:stop], y[start:stop]
        return LocalBatch(x, y, start, bounds, samples)

    def _take_start(self) -> int:
        """Return where the epoch goes on: loops may take turns, so this is of one of them only."""
        start = self._start
        self._start = 0
        return start

    def _end_epoch(self) -> None:
        self.epoch += 1
        self.position = 0
        self._begun_with = None
        self._samples = None

    def _take(
        self, data: Dataset, starts: Sequence[int], following: Sequence[int]
    ) -> list[LocalBatch]:
        """Return this rank's rows of batches of the epoch that has begun; some follow."""
        self.given = None
        return self.loader.take(data, self._plan, self.epoch, starts, following)

    def state(self) -> dict[str, Any]:
        """Return where the run is; collective."""
        if self.given_out:
            must, fix = (
                "a state must be taken between two steps or at the end of an epoch",
                "Take it after the step.",
            )
            got = "a call before the step on a batch that was given out"
            raise RuntimeError(message("Trainer.state", must, got, fix))
        truncation = {} if self._truncation is None else self._truncation.state()
        if self._begun_with is None and self.data is not None and self.mid_epoch:
            self._begun_with = self.data.digest()
            self._samples = len(self.data)
        return {
            "epoch": self.epoch,
            "position": self.position,
            # None of those that were loaded is forgotten before the script has come to it.
            "runs": max(self.runs, self.over + self._resuming),
            "first_epoch": self._first_epoch,
            "data": self._begun_with,
            "samples": self._samples,
            **({"changes": self.changes.count} if self.changes.count else {}),
            **{f"windows.{name}": entry for name, entry in truncation.items()},
        }

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes."""
        samples, epochs = integer(1), integer(0)
        epoch: Any = state.get("epoch")
        count: Any = state.get("samples")
        begun = samples.holds(count)
        windows = below("windows", state)
        truncation = {} if self._truncation is None else self._truncation.state_schema(windows)
        return {
            "epoch": epochs,
            "samples": optional(samples),
            "position": self._position(count) if begun else integer(0, 0),
            "first_epoch": optional(integer(0, epoch if epochs.holds(epoch) else None)),
            "runs": integer(0 if state.get("first_epoch") is None else 1),
            "data": TEXT if begun else Entry("None", lambda entry: entry is None),
            **({"changes": integer(1)} if "changes" in state else {}),
            **{f"windows.{name}": entry for name, entry in truncation.items()},
        }

    def _position(self, samples: int) -> Entry:
        """Return what the position in an epoch of so many samples must be."""
        size, end = self._batch_size, self._options.samples(samples)
        within = integer(0, end)
        return Entry(
            f"a multiple of {size} below {end}, or {end}",
            lambda entry: within.holds(entry) and (entry % size == 0 or entry == end),
        )

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned, on any number of ranks."""
        self.epoch = state["epoch"]
        self.position = state["position"]
        self._start = self.position
        self._first_epoch = state["first_epoch"]
        self._resuming = self._first_epoch is not None
        self.over = state["runs"] - self._resuming
        self.changes.known(state, state["runs"])
        self._begun_with = state["data"]
        self._samples = state["samples"]
        self.given_out = False
        self._loads += 1
        if self._truncation is not None:
            self._truncation.load_state(below("windows", state))


def taped(
    trainer: "Trainer", rows: LocalBatch, *, copy: bool = False, telling: bool = True
) -> Batch:
    """Return rows with a new tape of a trainer, which hooks are told of or not."""
    update, hooks = trainer._update, trainer.tape_watchers.hooks if telling else None
    # As if the batches that accumulate were one: random masks are those of its samples.
    first = rows.first + update.samples_before
    last = update.group.newest
    if (
        last is not None
        and last.workspace is trainer._workspace
        and last.shard_bounds.given is rows.bounds
        and last.samples == rows.samples
        and last.owner is update.flat
        and last.hooks is hooks
        and last.replays
        and last.seed == trainer.options.seed
    ):
        tape = last.next(trainer.step_count, first)
    else:
        tape = Tape(
            training=True,
            shards=rows.bounds,
            samples=rows.samples,
            first_sample=first,
            seed=trainer.options.seed,
            step=trainer.step_count,
            workspace=trainer._workspace,
            gather=update.gather,
            deferred=True,
            hooks=hooks,
            owner=update.flat,
        )
    update.group.newest = tape
    tape.numbers = rows.first if rows.numbers is None else rows.numbers
    return Batch(recorded(tape, rows.x, copy), rows.y, rows.samples, rows.weights, tape)
