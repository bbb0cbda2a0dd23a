"""The trainer: one step is forward, backward, one reduction in one order, and an update of each
rank's slice.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ddbp.comm.agreement import require_agreement
from ddbp.comm.base import Communicator
from ddbp.comm.current import communicator
from ddbp.comm.threads import use_one_thread
from ddbp.observers import status_reporter, step_log
from ddbp.observers.observer import StepHooks, StepPhase, TrainingOver
from ddbp.optim.clipping import adjustment, limit_norm
from ddbp.optim.optimizer import Optimizer
from ddbp.reduction import replicate
from ddbp.reduction.partition import Partition
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shard_gather import ShardGather
from ddbp.reduction.shards import ShardPlan, chosen, shard_sums
from ddbp.reduction.wire import Wire
from layers import Layer, Tape, TapeHook, Value, Workspace
from layers.engine.hooks import TapeHooks
from layers.errors import message
from layers.types import Array, Integers

from . import checks, evaluation
from .accumulation import Accumulation
from .callbacks import Callback, Record
from .data import ArrayDataset, Batch, Rows, batches, permutation
from .metrics import Metric, default_metrics
from .progress import Progress
from .run_folder import RunFolder
from .truncated_bptt import Truncation
from .warm_up import announce_compilation, compile_update, one_first


class Trainer:
    """Trains a model, alone or on many ranks.

    The global batch is cut into `shards` shards; a rank computes all of its shards as one batch,
    and the shard gradients are summed in one fixed tree. So with a given number of shards,
    parameters are the same bits for any number of ranks.

    Parameters
    ----------
    model
        A layer; its parameters are moved into flat memory, and overwritten by those of rank 0, as
        are its states.
    loss
        Called with (prediction, target); may be left out in custom loops.
    optimizer
        See `ddbp.optim`. It belongs to the trainer that was made last with it, for which its state
        begins anew.
    batch_size
        Samples of the global batch, over all ranks.
    accumulate
        Batches for each update; an epoch's last ones may be fewer. See `no_sync`.
    seed
        Of the order of the data and of random masks.
    shards
        S; what DDBP_SHARDS says or else one per rank, which is fastest, unless given.
    clip_norm, clip_value
        Limits of the gradient's global Euclidean norm, and of each of its elements.
    truncate
        Take a step on each window of so many time steps of x (N, T, …) and y (N, T, …), carrying
        the state: see `ddbp.training.truncated_bptt`.
    wire
        Send gradients between hosts as "float16", "bfloat16" or by a `Wire` of your own: see
        `ddbp.reduction.wire`.
    l1, l2
        Add l1 |w|₁ + l2 |w|²/2 over the regularized parameters (weights, not biases) to the loss.
    metrics
        Name to function, see `ddbp.training.metrics`; those that go with the loss unless said.
    callbacks
        `Callback`s and `layers.TapeHook`s, in the order in which they are told.
    run_dir
        Folder for configuration, metrics and final parameters; none is written unless given.
    quiet
        Show no progress.

    Raises
    ------
    ValueError
        An option is out of range: more ranks than samples in a batch, more ranks than shards, …
    CommunicationError
        Ranks were started with different models, options or code, or share too little memory.
    """

    def __init__(
        self,
        model: Layer,
        *,
        loss: Callable[[Any, Any], Any] | None = None,
        optimizer: Optimizer,
        batch_size: int,
        accumulate: int = 1,
        seed: int = 0,
        shards: int | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        truncate: int | None = None,
        wire: str | Wire | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        metrics: Mapping[str, Metric] | None = None,
        callbacks: Sequence[Callback | TapeHook] = (),
        run_dir: str | Path | None = None,
        quiet: bool = False,
    ) -> None:
        use_one_thread()
        if not quiet:
            announce_compilation()
        self.comm: Communicator = communicator()
        reporter = status_reporter.start(self.comm.rank, model, loss)
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.seed = checks.non_negative_int("seed", seed)
        self.batch_size = checks.positive_int("batch_size", batch_size)
        self.accumulate = checks.positive_int("accumulate", accumulate)
        checks.gradient_changes(clip_norm, clip_value, l1, l2)
        checks.callbacks(callbacks)
        checks.ranks_have_samples(self.batch_size, self.comm.size)
        self.clip_norm, self.clip_value, self.l1, self.l2, self.wire = (
            clip_norm,
            clip_value,
            float(l1),
            float(l2),
            wire,
        )
        self.truncate = None if truncate is None else Truncation(model, truncate)
        self._forward: Callable[[Value], Value] = self.truncate or model
        self.metrics = dict(default_metrics(loss) if metrics is None else metrics)
        self.stop, self.step_count, self.epoch = False, 0, 0
        self._plan = ShardPlan(chosen(shards, self.comm.size), self.comm.size, self.comm.rank)
        self.shards = self._plan.shards
        checks.same_start(self)
        replicate.broadcast(model, self.comm)
        self._reduction = Reducer(model, self._plan, self.comm, wire)
        self._flat = self._reduction.flat
        require_agreement(
            self.comm,
            {"initial parameters": self.parameters_sha256()},
            "The broadcast failed; report this.",
        )
        self._part = Partition(
            self._reduction,
            whole=optimizer.whole or clip_norm is not None,
            adjust=adjustment(l1, l2, clip_value),
        )
        self.optimizer.bind(self._part)
        compile_update(self.comm, self.optimizer, self._flat.dtype)
        log = step_log.start(model, self._flat, self._plan, self.comm)
        self._shard_gather = ShardGather(self._plan, self.comm)
        self._data = checks.DataSets(self.comm, self._flat.dtype)
        self._workspace, self._rows = Workspace(), Rows()
        self._warm, self._batches_made = False, 0
        self._group = Accumulation(self.accumulate, self._reduction)
        self._folder = RunFolder(run_dir) if run_dir is not None and self.comm.rank == 0 else None
        hooks = (reporter, log, *callbacks, None if quiet else Progress())
        self.callbacks = tuple(hook for hook in hooks if isinstance(hook, Callback))
        self._hooks = StepHooks.of(hooks)
        self._tape_hooks = TapeHooks.of(hooks)
        self._last_begun = -1

    # Custom loops

    def batches(self, dataset: ArrayDataset, epochs: int = 1) -> Iterator[Batch]:
        """Yield this rank's part of every global batch, in the order of (seed, epoch), each with a
        new tape.

        The arrays of a batch are overwritten by the next one. Ranks compare a data set when it is
        first used.

        >>> for batch in trainer.batches(data, epochs=5):
        ...     loss = criterion(model(batch.x), batch.y)
        ...     trainer.step(loss)
        """
        try:
            yield from self._batches(self._data.one(dataset), epochs)
        except TrainingOver:
            return

    def _batches(self, data: ArrayDataset, epochs: int) -> Iterator[Batch]:
        for _ in range(epochs):
            order = permutation(len(data), self.seed, self.epoch)
            for rows in batches(len(data), self.batch_size, order):
                batch = self._batch(data, rows)
                if rows[-1] == order[-1]:
                    self._group.last = batch.x.tape
                yield batch
            self.epoch += 1

    def batch(self, x: Array, y: Array) -> Batch:
        """Return this rank's part of the given global batch, with a new tape."""
        start, stop, bounds = self._plan.rows(len(x))
        return self._recorded(x[start:stop], y[start:stop], start, bounds, len(x))

    def step(self, loss: Value, **backward: Any) -> float:
        """Propagate backwards and update; return the loss of the global batch (with penalties, if
        any).

        While batches accumulate there is no update: the result is NaN, as nothing is known of the
        other ranks yet. The update returns the mean loss over all samples since the one before.
        """
        return self._step(self._group.backward, loss, **backward)

    def no_sync(self) -> AbstractContextManager[None]:
        """Return a context in which `step` and `update` only accumulate gradients, for the next one
        outside of it to update by.

        The update is by the mean over all samples of all batches since the one before, whatever
        their sizes. What has accumulated when an epoch or a loop ends waits for the next update.
        """
        return self._group.hold()

    def update(self, loss: Value) -> float:
        """Reduce the gradients, clip, update and publish, or accumulate: what `step` does after
        propagating backwards.
        """
        return self._step(self._group.require_no_factor, loss)

    def _step(self, propagate: Callable[..., Value], *arguments: Any, **options: Any) -> float:
        """Take a step on the loss that `propagate` returns for the arguments."""
        try:
            return self._update(propagate(*arguments, **options))
        except Exception as error:
            for tell in self._hooks.exception:
                tell(self, error)
            raise

    def _update(self, loss: Value) -> float:
        step, group = self.step_count, self._group
        group.add(loss, shard_sums(loss, self._plan.local))
        self._warm = True
        if group.goes_on(loss.tape):
            if not math.isfinite(group.sums.sum()):
                checks.refuse_loss(self._flat, loss, group.sums.sum(), step)
            loss.tape.release()
            return math.nan
        self._hooks.come_to(self, StepPhase.EXCHANGE)
        self._flat.complete()
        pending = loss.tape.pending = [*group.observed, *loss.tape.pending]
        observed = sum(numbers.shape[1] for numbers, _ in pending) if pending else 0
        # With the number of batches made: a rank that skips one is found out at once.
        total = self._reduction.exchange(
            step, group.samples, group.sums, observed, self._batches_made
        )
        self._hooks.come_to(self, StepPhase.UPDATE)
        value, self._part.scale = group.loss(total), group.scale
        group.clear()
        self._part.forget()
        # Nothing is lost yet: what is to be added next will overwrite.
        self._flat.zero_gradients()
        if not math.isfinite(value):
            checks.refuse_loss(self._flat, loss, value, step)
        if self.l1 or self.l2:
            value += self._part.penalty(self.l1, self.l2)
        if self.clip_norm is not None:
            limit_norm(self._part, self.clip_norm, step)
        if pending:
            loss.tape.settle()
        self.optimizer.step(self._part)
        self._hooks.come_to(self, StepPhase.PUBLISH)
        self._reduction.publish(step)
        loss.tape.release()
        self.step_count += 1
        for tell in self._hooks.step_end:
            tell(self, self.step_count, value)
        return value

    def train_step(self, x: Array, y: Array) -> float:
        """Take a `step` on a global batch (every rank passes the whole of it), or one per window;
        return its loss.
        """
        if self.truncate is None:
            return self._train(self.batch(x, y))
        checks.windows_update(self.accumulate, self._group.held)
        return sum(
            self._train(part) * weight for part, weight in self._parts(iter([self.batch(x, y)]))
        )

    # Whole runs

    def fit(
        self, dataset: ArrayDataset, *, epochs: int, validation: ArrayDataset | None = None
    ) -> list[Record]:
        """Train for so many epochs and return a record per epoch: epoch, loss, validation metrics,
        samples_per_second, seconds.

        Raises
        ------
        ValueError
            The batch is larger than the data set; the data do not fit the model.
        FloatingPointError
            The loss is no longer finite, or a parameter or, with `clip_norm`, a gradient.
        CommunicationError
            Ranks hold different data, or are asked for different numbers of epochs.
        """
        epochs = checks.positive_int("epochs", epochs)
        checks.no_context(self._group.held)
        data = self._data.of_fit(dataset, validation, epochs, self.batch_size)
        windows = 1 if self.truncate is None else self.truncate.count(data.x, data.y)
        steps = windows * -(-len(data) // (self.batch_size * self.accumulate))
        checks.write_configuration(self, self._folder, dataset, epochs)
        history: list[Record] = []
        self.stop = False
        for callback in self.callbacks:
            callback.on_fit_begin(self, epochs, steps)
        for _ in range(epochs):
            record = self._fit_epoch(data)
            if validation is not None:
                record |= {
                    f"validation_{name}": value for name, value in self.evaluate(validation).items()
                }
            self.optimizer.schedule.observe(
                record["loss" if validation is None else "validation_loss"]
            )
            for callback in self.callbacks:
                callback.on_epoch_end(self, record)
            history.append(record)
            if self._folder is not None:
                self._folder.log(record)
            if self.stop:
                break
        if self._folder is not None:
            self._folder.write_parameters(self.model)
        for callback in self.callbacks:
            callback.on_fit_end(self, history)
        return history

    def evaluate(self, dataset: ArrayDataset) -> dict[str, float]:
        """Return loss and metrics over a data set, every sample counted once, the same on all ranks
        for any number of them.
        """
        data = self._data.one(dataset)
        if self.loss is None:
            raise ValueError(
                message(
                    "Trainer.evaluate",
                    "the trainer must have a loss",
                    None,
                    "Pass loss= to Trainer.",
                )
            )
        run_pass, metrics = (
            partial(self._warmed_up, self._evaluation),
            {"loss": None, **self.metrics},
        )
        for begin in self._hooks.evaluation_begin:
            begin(self)
        result = evaluation.evaluate(
            run_pass, data, metrics, self.batch_size, self._plan, self.comm
        )
        for end in self._hooks.evaluation_end:
            end(self, result)
        return result

    def predict(self, x: Array) -> Array:
        """Return the model's output for x (N, …), computed batch by batch on this process alone;
        nothing is recorded.
        """
        x = np.asarray(x)
        if x.dtype.kind == "f":
            x = x.astype(self._flat.dtype, copy=False)
        return np.concatenate(
            [
                self.model(x[i : i + self.batch_size])
                for i in range(0, max(1, len(x)), self.batch_size)
            ]
        )

    def parameters_sha256(self) -> str:
        """Return a digest of all parameters and states."""
        return replicate.digest(self.model, self._flat)

    # Parts of a step

    def _batch(self, data: ArrayDataset, rows: Integers) -> Batch:
        start, stop, bounds = self._plan.rows(len(rows))
        mine = rows[start:stop]
        return self._recorded(
            self._rows.take("x", data.x, mine),
            self._rows.take("y", data.y, mine),
            start,
            bounds,
            len(rows),
        )

    def _recorded(self, x: Array, y: Array, start: int, bounds: Integers, samples: int) -> Batch:
        self._flat.require_bound("Trainer")
        self.optimizer.require_bound(self._part)
        if self._last_begun != self.step_count:
            for tell in self._hooks.step_begin:
                tell(self, self.step_count)
            self._last_begun = self.step_count
        self._batches_made += 1
        tape = Tape(
            training=True,
            shards=bounds,
            samples=samples,
            # As if the batches that accumulate were one: random masks are those of its samples.
            first_sample=start + self._group.samples,
            seed=self.seed,
            step=self.step_count,
            workspace=self._workspace,
            gather=self._shard_gather,
            deferred=True,
            hooks=self._tape_hooks,
        )
        return Batch(tape.input(x, gradient=False), y, samples)

    def _parts(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
        """Yield what is computed at once, and its part of a batch's loss: batches, or windows of a
        group's batches in turn.
        """
        if self.truncate is None:
            yield from ((batch, 1.0) for batch in batches)
            return
        while group := [
            batch.kept() if self.accumulate > 1 else batch
            for batch in islice(batches, self.accumulate)
        ]:
            for number, x, y, weight in self.truncate.in_turns(
                [(batch.x.array, batch.y) for batch in group]
            ):
                tape = group[number].x.tape
                part = self._recorded(
                    x, y, tape.first_sample, tape.bounds(len(y)), group[number].samples
                )
                if number == len(group) - 1:
                    self._group.last = part.x.tape
                yield part, weight

    def _train(self, batch: Batch) -> float:
        if self.loss is None:
            raise ValueError(
                message("Trainer", "the trainer must have a loss", None, "Pass loss= to Trainer.")
            )
        return self._step(self._warmed_up, self._passes, batch)

    def _passes(self, batch: Batch) -> Value:
        """Propagate forward and backward; return the loss."""
        assert self.loss is not None
        if batch.x.tape.calls:
            batch.x.tape.restart()
        loss: Value = self.loss(self._forward(batch.x), batch.y)
        self._group.backward(loss)
        return loss

    def _evaluation(
        self, x: Array, y: Array, bounds: Integers, samples: int
    ) -> tuple[Value, Value]:
        """Return the model's output and the loss of this rank's part of a batch."""
        assert self.loss is not None
        tape = Tape(
            shards=bounds, samples=samples, gather=self._shard_gather, hooks=self._tape_hooks
        )
        prediction = self.model(tape.input(x, gradient=False))
        return prediction, self.loss(prediction, y)

    def _warmed_up(self, run_pass: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `run_pass` gives for the arguments; until warm one rank of each host goes
        first, as kernels may be compiled.
        """
        if self._warm:
            return run_pass(*arguments)
        return one_first(self.comm, self._shard_gather, self._flat, lambda: run_pass(*arguments))

    def _fit_epoch(self, data: ArrayDataset) -> Record:
        for callback in self.callbacks:
            callback.on_epoch_begin(self, self.epoch + 1)
        started, total, seen = time.perf_counter(), 0.0, 0.0
        samples: float = len(data)
        try:
            for part, weight in self._parts(self._batches(data, 1)):
                loss = self._train(part)
                if self._group.batches:
                    continue
                total += loss * weight * self._group.updated
                seen += weight * self._group.updated
        except TrainingOver:
            self.stop = True
            samples = seen
        seconds = time.perf_counter() - started
        checks.finite_parameters(self._flat, self.step_count - 1)
        return {
            "epoch": self.epoch,
            "step": self.step_count,
            "loss": total / samples if samples else math.nan,
            "samples_per_second": samples / seconds,
            "seconds": seconds,
        }
