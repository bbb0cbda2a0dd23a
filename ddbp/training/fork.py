"""Forks: some steps from the present state with other options, after which everything is as it was,
to the last bit.

A fork steps with an optimizer, a partition and options of its own on the same memory. Parameters
and states are copied before and put back after it; the order of the samples and random masks are
functions of the step, so nothing else is left of it. Hooks and callbacks are told of nothing.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.base import CollectiveKind, Communicator
from ddbp.data.source import Dataset
from ddbp.instruments.instruments import Instruments
from ddbp.observers.observer import Request
from ddbp.optim.clipping import NotFiniteError
from ddbp.optim.groups import changed, option_names
from ddbp.optim.optimizer import Optimizer
from ddbp.reduction.reducer import Reducer
from layers import Dropout, Module, Parameter
from layers.checks import fraction, positive_int
from layers.engine.state import unique_states
from layers.errors import message

from . import arguments, checks
from .batch import LocalBatch, RowBuffers, local_batch
from .batch_stream import taped
from .loading import Loader
from .loss_scale import GradientOverflowError
from .options import TrainerOptions

if TYPE_CHECKING:
    from .trainer import Trainer
    from .update import Update

_OWNER = "Trainer.fork"
_OPTIONS = ("batch_size", "accumulate", "clip_norm", "clip_value", "l1", "l2")
"""Options of a trainer that a fork may change."""


class Forking:
    """What a trainer offers to try something."""

    _changes: dict[str, Any]
    """Options that have other values than the script says."""

    @property
    def forkable(self) -> bool:
        """Whether a fork may be taken here."""
        trainer: Any = self
        try:
            # A class of a script's own may be made otherwise.
            trainer.optimizer.with_options()
        except (AttributeError, TypeError, ValueError):
            return False
        return trainer.loss is not None and _hindrance(trainer) is None

    def fork(
        self,
        steps: int = 40,
        *,
        data: Dataset | None = None,
        samples: int | None = None,
        optimizer: str | Optimizer | None = None,
        **changes: Any,
    ) -> list[float]:
        """Return the losses of some steps from the present state, with other options; collective.

        What the trainer has is the same after it, to the last bit, and so is the run that goes on.
        Call it between two steps, in a callback or a loop; callbacks are told of nothing.

        >>> usual, lower = trainer.fork(40), trainer.fork(40, learning_rate=1e-4)

        Parameters
        ----------
        steps
            Updates. If numbers are not finite the fork ends, with an infinite loss.
        data
            What to train on, from the beginning; what comes next in the run unless given.
        samples
            Take the first so many of the data alone, all of them in each step.
        optimizer
            Another one, which begins anew; unless given, one with the state of the trainer's.
        **changes
            Options of the optimizer, as learning_rate and weight_decay; batch_size, accumulate,
            clip_norm, clip_value, l1, l2; and dropout, the most that layers of the model drop.

        Raises
        ------
        ValueError
            An option is unknown or out of range, or there are no data.
        RuntimeError
            Batches accumulate, the trainer cuts sequences into windows or has no loss, or ranks
            survive each other.
        """
        trainer: Any = self
        steps = positive_int(_OWNER, "steps", steps, "40 is usual.")
        if samples is not None:
            samples = positive_int(_OWNER, "samples", samples, "16 is usual.")
        other = None if optimizer is None else arguments.optimizer(optimizer)
        return Fork(trainer, data, samples, other, changes).run(steps)


def may_change(optimizer: Optimizer) -> list[str]:
    """Return the names of the options that a fork may change."""
    return [*option_names(optimizer), "schedule", *_OPTIONS, "dropout"]


def dropouts(model: Module) -> list[Dropout]:
    """Return the layers of a model that drop elements."""
    return [layer for _, layer in model.named_layers() if isinstance(layer, Dropout)]


def limit_dropout(model: Module, most: float) -> None:
    """Have layers of a model drop no more than this share."""
    most = fraction("Trainer", "dropout", most, "0.5 is the most that is usual.")
    for layer in dropouts(model):
        layer.p = min(layer.p, most)


class Fork:
    """Some steps of a trainer apart, which `run` takes.

    Parameters
    ----------
    trainer, data, samples, optimizer, changes
        See `Forking.fork`.
    owner
        What was called, for errors.
    """

    def __init__(
        self,
        trainer: "Trainer",
        data: Dataset | None,
        samples: int | None,
        optimizer: Optimizer | None,
        changes: dict[str, Any],
        owner: str = _OWNER,
    ) -> None:
        checks.has_loss(owner, trainer.loss)
        if hindrance := _hindrance(trainer):
            must, got, fix = hindrance
            raise RuntimeError(message(owner, f"it {must}", got, fix))
        names = may_change(optimizer or trainer.optimizer)
        if unknown := [name for name in changes if name not in names]:
            must, fix = "changes must be options of a fork", f"They are {', '.join(names)}."
            raise ValueError(message(_OWNER, must, ", ".join(unknown), fix))
        self._trainer = trainer
        self._data = trainer._stream.data if data is None else trainer._data.one(data)
        if self._data is None:
            must, fix = "a fork needs data", "Pass data=, a data set."
            raise ValueError(message(_OWNER, must, "none, and no fit or loop over batches", fix))
        self._begins = data is not None or samples is not None
        self._samples = samples
        self._given = optimizer
        self._changes = changes
        own = {name: changes[name] for name in _OPTIONS if name in changes}
        self._options: TrainerOptions = replace(trainer.options, **own).on(trainer.comm.size)

    def run(self, steps: int, ends: Callable[[list[float]], bool] | None = None) -> list[float]:
        """Take so many steps, fewer if a function of the losses so far `ends` it; return their
        losses.
        """
        trainer, changes = self._trainer, self._changes
        trainer._follow()
        # A fork reads the data that a thread may read ahead for the run.
        trainer._stream.loader.settle()
        began = time.perf_counter()
        layers = [(layer, layer.p) for layer in dropouts(trainer.model)]
        with _apart(trainer), np.errstate(all="ignore"):
            try:
                if "dropout" in changes:
                    limit_dropout(trainer.model, changes["dropout"])
                self._prepare(trainer._update)
                losses = self._losses(steps, ends)
            finally:
                for layer, p in layers:
                    layer.p = p
        seconds = time.perf_counter() - began
        trainer._fit.skip(seconds)
        for callback in trainer.callbacks:
            if isinstance(callback, Instruments):
                callback.skip(seconds)
        return losses

    def _prepare(self, update: "Update") -> None:
        """Give the update the optimizer and the options of the fork."""
        before = self._trainer.optimizer
        optimizer = changed(self._given or before, self._changes)
        update.branch_off(optimizer, self._options)
        if self._given is None:
            _continue(optimizer, before, factor="learning_rate" not in self._changes)

    def _losses(self, steps: int, ends: Callable[[list[float]], bool] | None) -> list[float]:
        trainer, update = self._trainer, self._trainer._update
        group, reducer, losses = update.group, update.reducer, list[float]()
        asked = 0
        for rows in self._batches():
            batch = taped(trainer, rows, telling=False)
            if rows.ends_group:
                group.last = batch.tape
            update.batches += 1
            try:
                loss = trainer._warm_up(trainer._run_pass, batch)
                trainer._warm_up.over = True
                value = update(loss, trainer.step_count, ())
            except GradientOverflowError:
                trainer._scaling.fall()
                asked |= reducer.requested
                continue
            except NotFiniteError:
                value, steps = math.inf, 0
            if value is math.inf or not group.batches:
                asked |= reducer.requested
                trainer.step_count += 1
                losses.append(value)
            if len(losses) >= steps or (ends is not None and losses and ends(losses)):
                break
        # What ranks have asked for meanwhile, none has done.
        reducer.request |= asked & ~Request.NOT_FINITE
        return losses

    def _batches(self) -> Iterator[LocalBatch]:
        """Yield this rank's rows of the batches that come next."""
        trainer, data, options = self._trainer, self._data, self._options
        assert data is not None
        stream, end, size = trainer._stream, options.samples(len(data)), options.batch_size
        if self._samples is not None:
            # Whether they can be learnt by heart is asked of what they are.
            few = np.arange(max(trainer.comm.size, min(self._samples, len(data))))
            take = RowBuffers().take
            while True:
                yield local_batch(data, trainer._plan, few, take, ends_group=True)
        loader = Loader(options, prefetch=False)
        epoch, position = stream.epoch, stream.position
        if self._begins:
            epoch = position = 0
        elif size != trainer.options.batch_size:
            # The batches are those of a run, and so is the size of the last one.
            epoch, position = epoch + bool(position), 0
        while True:
            for start in range(position, end, size):
                yield from loader.take(data, trainer._plan, epoch, range(start, start + 1))
            epoch, position = epoch + 1, 0


def _hindrance(trainer: "Trainer") -> tuple[str, str, str] | None:
    """Return what keeps a trainer from forks: what must be, what is, and what to do."""
    group = trainer._update.group
    if trainer._truncation is not None:
        fix = "Leave truncate out to try something."
        return "needs whole sequences", "truncate=, which cuts them into windows", fix
    if trainer.comm.survives:
        fix = "Start without --survive to try something, and with it to train."
        return "needs ranks that are not lost or replaced", "--survive", fix
    if trainer.options.exchange is not None:
        must, got = "needs workers that exchange gradients", "exchange="
        return must, got, "Leave exchange out to try something."
    if group.batches or group.held:
        must, got = "must be between two updates", "batches that accumulate"
        return must, got, "Call it in on_step_end, or after a step that has updated."
    return None


def _continue(optimizer: Optimizer, before: Optimizer, *, factor: bool) -> None:
    """Have an optimizer go on from the state of another one that was made much alike."""
    optimizer.factor = before.factor if factor else 1.0
    known = before.held
    for slot, array in optimizer.held.items():
        if slot in known and known[slot].dtype == array.dtype:
            array[...] = known[slot]
    for member, other in zip(optimizer.members, before.members, strict=True):
        member.steps = other.steps
        member.schedule.load_state(other.schedule.state())


@contextmanager
def _apart(trainer: "Trainer") -> Iterator[None]:
    """Return a context after which the trainer has what it had, to the last bit; collective."""
    update, comm = trainer._update, trainer.comm
    reducer, group = update.reducer, update.group
    kept = _Kept(trainer.model, reducer, comm)
    # Of these only attributes change.
    changing = update, group, trainer._guard, trainer._scaling
    parts = [vars(part).copy() for part in changing]
    step, requested = trainer.step_count, reducer.requested
    try:
        yield
    except BaseException:
        # Others may not come.
        kept.restore(lambda: None)
        raise
    else:
        kept.restore(lambda: comm.host_barrier((CollectiveKind.GATHER, 0)))
    finally:
        batches, newest = update.batches, group.newest
        for part, attributes in zip(changing, parts, strict=True):
            vars(part).update(attributes)
        # The watchdog sees by it that there is progress.
        update.batches = batches
        # Its memory is not that of the batch before any more.
        group.newest = newest
        trainer.step_count = step
        reducer.requested = requested


class _Kept:
    """A copy of what steps change of a model.

    Parameters
    ----------
    model
        The model.
    reducer
        It has the parameters, of which the first rank of each host has the copy, and residuals.
    comm
        The ranks.
    """

    def __init__(self, model: Module, reducer: Reducer, comm: Communicator) -> None:
        self._flat = flat = reducer.flat
        self._compressed = reducer.compressed
        self._residuals = self._compressed.snapshot() if self._compressed is not None else None
        self._values = flat.values.copy() if comm.rank == comm.topology.first else None
        self._states = [(state.value, state.value.copy()) for _, state in unique_states(model)]

    def restore(self, meet: Callable[[], None]) -> None:
        """Put it back, where ranks of a host `meet` before and after that."""
        meet()
        Parameter.writes += 1
        if self._values is not None:
            self._flat.values[...] = self._values
        for value, kept in self._states:
            value[...] = kept
        if self._compressed is not None and self._residuals is not None:
            self._compressed.restore(self._residuals)
        self._flat.zero_gradients()
        meet()
