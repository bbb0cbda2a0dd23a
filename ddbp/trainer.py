"""The trainer: one step is forward, backward, one reduction in one order, and an update of each rank's slice."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layers import FlatParameters, Layer, Tape, Value, Workspace
from layers.errors import message
from layers.types import Array, Integers

from . import checks, recording, states
from .callbacks import Callback, Record
from .communicator import Communicator, communicator, require_agreement
from .compiling import announce_compilation, compile_update
from .data import ArrayDataset, Rows, batches, permutation
from .metrics import Metric, default_metrics
from .optim import Optimizer, add_penalty, clip
from .progress import Progress
from .reduction import Reduction, Slice, total_over_ranks
from .run_folder import RunFolder
from .shards import ShardPlan, chosen, shard_sums, tree_total
from .threads import use_one_thread
from .truncation import Truncation


class Batch(NamedTuple):
    """This rank's part of a global batch: x as a `Value` on the batch's tape, the targets y, and the size of the global batch."""

    x: Value
    y: Array
    samples: int


class Trainer:
    """Trains a model, alone or on many ranks.

    The global batch is cut into `shards` shards; a rank computes all of its shards as one batch, and the shard gradients are
    summed in one fixed tree. So with a given number of shards, parameters are the same bits for any number of ranks.

    Parameters
    ----------
    model
        A layer; its parameters are moved into flat memory, and overwritten by those of rank 0, as are its states.
    loss
        Called with (prediction, target); may be left out in custom loops.
    optimizer
        See `ddbp.optim`.
    batch_size
        Samples of the global batch, over all ranks.
    seed
        Of the order of the data and of random masks.
    shards
        S; what DDBP_SHARDS says or else one per rank, which is fastest, unless given.
    clip_norm, clip_value
        Limits of the gradient's global Euclidean norm, and of each of its elements.
    truncate
        Take a step on each window of so many time steps of x (N, T, …) and y (N, T, …), carrying the state: see `ddbp.truncation`.
    l1, l2
        Add l1 |w|₁ + l2 |w|²/2 over the regularized parameters (weights, not biases) to the loss.
    metrics
        Name to function, see `ddbp.metrics`; those that go with the loss unless said.
    callbacks
        See `ddbp.callbacks`.
    run_dir
        Folder for configuration, metrics and final parameters; none is written unless given.
    quiet
        Show no progress.

    Raises
    ------
    ValueError
        An option is out of range: more ranks than samples in a batch, more ranks than shards, …
    CommunicationError
        Ranks were started with different models, options or code.
    """

    def __init__(
        self,
        model: Layer,
        *,
        loss: Callable[[Any, Any], Any] | None = None,
        optimizer: Optimizer,
        batch_size: int,
        seed: int = 0,
        shards: int | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        truncate: int | None = None,
        l1: float = 0.0,
        l2: float = 0.0,
        metrics: Mapping[str, Metric] | None = None,
        callbacks: Sequence[Callback] = (),
        run_dir: str | Path | None = None,
        quiet: bool = False,
    ) -> None:
        use_one_thread()
        if not quiet:
            announce_compilation()
        self.comm: Communicator = communicator()
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.seed = checks.natural("seed", seed)
        self.batch_size = checks.whole("batch_size", batch_size)
        checks.limits(clip_norm=clip_norm, clip_value=clip_value)
        checks.factors(l1=l1, l2=l2)
        checks.ranks_have_samples(self.batch_size, self.comm.size)
        self.clip_norm, self.clip_value, self.l1, self.l2 = clip_norm, clip_value, float(l1), float(l2)
        self.truncate = None if truncate is None else Truncation(model, truncate)
        self._forward: Callable[[Value], Value] = self.truncate or model
        self.metrics = dict(default_metrics(loss) if metrics is None else metrics)
        self.stop = False
        self.step_count = 0
        self.epoch = 0
        self._plan = ShardPlan(chosen(shards, self.comm.size), self.comm.size, self.comm.rank)
        self.shards = self._plan.shards
        checks.same_start(self)
        self._flat = FlatParameters(model, shards=self._plan.local)
        states.broadcast(model, self._flat, self.comm)
        require_agreement(self.comm, {"initial parameters": self.parameters_sha256()}, "The broadcast failed; report this.")
        self._reduction = Reduction(self._flat, self._plan, self.comm)
        self._part = Slice(self._flat, self._reduction)
        self.optimizer.bind(self._part)
        compile_update(self.comm, self.optimizer, self._flat.dtype)
        self._recording = recording.start(model, self._flat, self._plan, self.comm)
        self._shard_gather = states.ShardGather(self._plan, self.comm)
        self._workspace = Workspace()
        self._rows = Rows()
        self._warm = False
        self._batches_made = 0
        self._folder = RunFolder(run_dir) if run_dir is not None and self.comm.rank == 0 else None
        self.callbacks = [*callbacks, *([] if quiet else [Progress()])]

    # Custom loops

    def batches(self, dataset: ArrayDataset, epochs: int = 1) -> Iterator[Batch]:
        """Yield this rank's part of every global batch, in the order of (seed, epoch), each with a new tape.

        The arrays of a batch are overwritten by the next one.

        >>> for batch in trainer.batches(data, epochs=5):
        ...     loss = criterion(model(batch.x), batch.y)
        ...     trainer.step(loss)
        """
        data = self._prepared(dataset)
        for _ in range(epochs):
            order = permutation(len(data), self.seed, self.epoch)
            for rows in batches(len(data), self.batch_size, order):
                if self._over:
                    return
                yield self._batch(data, rows)
            self.epoch += 1

    def batch(self, x: Array, y: Array) -> Batch:
        """Return this rank's part of the given global batch, with a new tape."""
        start, stop, bounds = self._plan.rows(len(x))
        return self._recorded(x[start:stop], y[start:stop], start, bounds, len(x))

    def step(self, loss: Value, **backward: Any) -> float:
        """Propagate backwards and update; return the loss of the global batch (with penalties, if any)."""
        loss.backward(**backward)
        return self.update(loss)

    def update(self, loss: Value) -> float:
        """Reduce the gradients, clip, update and publish; return the loss of the global batch."""
        if self._over:
            # `ddbp verify --steps` asks for no more, and a loop of the script's own ends with the script only.
            raise SystemExit(0)
        if self._recording is not None:
            self._recording.before_step()
        step, samples = self.step_count, loss.tape.samples
        assert samples is not None
        self._flat.fill_stale()
        # The number of batches made, not that of steps: a rank that skips a batch is found out at once.
        pending = loss.tape.pending
        observed = sum(numbers.shape[1] for numbers, _ in pending) if pending else 0
        sums = self._reduction.reduce(self._batches_made - 1, samples, shard_sums(loss, samples, self._plan.local), observed)
        value: float = (sums.item() if len(sums) == 1 else tree_total(sums).item()) / samples
        if not math.isfinite(value):
            checks.refuse_loss(loss, value, step)
        if self.l1 or self.l2:
            value += self._part.penalty(self.l1, self.l2, self._flat)
            add_penalty(self._part, self.l1, self.l2)
        if self.clip_norm is not None or self.clip_value is not None:
            clip(self._part, self.clip_norm, self.clip_value)
        if pending:
            loss.tape.settle()
        self.optimizer.step(self._part)
        self._reduction.publish(step)
        self._flat.zero_gradients()
        loss.tape.release()
        self._warm = True
        self.step_count += 1
        if self._recording is not None:
            self._recording.step(value)
        return value

    def train_step(self, x: Array, y: Array) -> float:
        """Take one step on a global batch (every rank passes the whole of it), or one per window; return its loss."""
        return sum(self._train(part) * weight for part, weight in self._parts(self.batch(x, y)))

    # Whole runs

    def fit(self, dataset: ArrayDataset, *, epochs: int, validation: ArrayDataset | None = None) -> list[Record]:
        """Train for so many epochs and return a record per epoch: epoch, loss, validation metrics, samples_per_second, seconds.

        Raises
        ------
        ValueError
            The batch is larger than the data set; the data do not fit the model.
        FloatingPointError
            The loss is no longer finite.
        CommunicationError
            Ranks hold different data, or are asked for different numbers of epochs.
        """
        epochs = checks.whole("epochs", epochs)
        data = self._prepared(dataset)
        if validation is not None:
            self._prepared(validation)
        checks.same_data(self, dataset, validation, epochs)
        windows = 1 if self.truncate is None else self.truncate.count(data.x, data.y)
        steps = windows * -(-len(data) // self.batch_size)
        checks.write_configuration(self, self._folder, dataset, epochs)
        history: list[Record] = []
        self.stop = False
        for callback in self.callbacks:
            callback.on_fit_begin(self, epochs, steps)
        for _ in range(epochs):
            record = self._fit_epoch(data)
            if validation is not None:
                record |= {f"validation_{name}": value for name, value in self.evaluate(validation).items()}
            self.optimizer.schedule.observe(record["loss" if validation is None else "validation_loss"])
            for callback in self.callbacks:
                callback.on_epoch_end(self, record)
            history.append(record)
            if self._folder is not None:
                self._folder.log(record)
            if self.stop or self._over:
                break
        if self._folder is not None:
            self._folder.write_parameters(self.model)
        for callback in self.callbacks:
            callback.on_fit_end(self, history)
        return history

    def evaluate(self, dataset: ArrayDataset) -> dict[str, float]:
        """Return loss and metrics over a data set, every sample counted once, the same on all ranks for any number of them."""
        data = self._prepared(dataset)
        if self.loss is None:
            raise ValueError(message("Trainer.evaluate", "the trainer must have a loss", None, "Pass loss= to Trainer."))
        names = ["loss", *self.metrics]
        totals = []
        for rows in batches(len(data), self.batch_size):
            start, stop, bounds = self._plan.rows(len(rows))
            x, y = data.x[rows[start:stop]], data.y[rows[start:stop]]
            sums = np.zeros((self._plan.local, len(names)))
            prediction, loss = self._practised(self._evaluation, x, y, bounds, len(rows))
            sums[:, 0] = shard_sums(loss, len(rows), self._plan.local)
            for column, metric in enumerate(self.metrics.values(), 1):
                values = metric(prediction.array, y)
                sums[:, column] = [values[a:b].sum(dtype=np.float64) for a, b in pairwise(bounds)]
            totals.append(sums)
        means = total_over_ranks(np.array(totals), self._plan, self.comm) / len(data)
        result: dict[str, float] = dict(zip(names, means.tolist(), strict=True))
        if self._recording is not None:
            self._recording.evaluation(result)
        return result

    def predict(self, x: Array) -> Array:
        """Return the model's output for x (N, …), computed batch by batch on this process alone; nothing is recorded."""
        x = np.asarray(x)
        if x.dtype.kind == "f":
            x = x.astype(self._flat.dtype, copy=False)
        return np.concatenate([self.model(x[i : i + self.batch_size]) for i in range(0, max(1, len(x)), self.batch_size)])

    def parameters_sha256(self) -> str:
        """Return a digest of all parameters and states."""
        return states.digest(self.model, self._flat)

    # Parts of a step

    @property
    def _over(self) -> bool:
        """Whether `ddbp verify` has seen enough steps."""
        return self._recording is not None and self._recording.over

    def _batch(self, data: ArrayDataset, rows: Integers) -> Batch:
        start, stop, bounds = self._plan.rows(len(rows))
        mine = rows[start:stop]
        return self._recorded(self._rows.take("x", data.x, mine), self._rows.take("y", data.y, mine), start, bounds, len(rows))

    def _recorded(self, x: Array, y: Array, start: int, bounds: Integers, samples: int) -> Batch:
        self._batches_made += 1
        tape = Tape(
            training=True,
            shards=bounds,
            samples=samples,
            first_sample=start,
            seed=self.seed,
            step=self.step_count,
            workspace=self._workspace,
            gather=self._shard_gather,
            deferred=True,
        )
        return Batch(tape.input(x, gradient=False), y, samples)

    def _parts(self, batch: Batch) -> Iterable[tuple[Batch, float]]:
        """Return what one step each is taken on, and its part of the batch's loss: the batch, or the windows of its sequences."""
        if self.truncate is None:
            return ((batch, 1.0),)
        first, bounds = batch.x.tape.first_sample, batch.x.tape.bounds(len(batch.y))
        windows = self.truncate.windows(batch.x.array, batch.y)
        return ((self._recorded(x, y, first, bounds, batch.samples), weight) for x, y, weight in windows)

    def _train(self, batch: Batch) -> float:
        if self.loss is None:
            raise ValueError(message("Trainer", "the trainer must have a loss", None, "Pass loss= to Trainer."))
        return self.update(self._practised(self._passes, batch))

    def _passes(self, batch: Batch) -> Value:
        """Propagate forward and backward; return the loss."""
        assert self.loss is not None
        if batch.x.tape.calls:
            batch.x.tape.restart()
        loss: Value = self.loss(self._forward(batch.x), batch.y)
        loss.backward()
        return loss

    def _evaluation(self, x: Array, y: Array, bounds: Integers, samples: int) -> tuple[Value, Value]:
        """Return the model's output and the loss of this rank's part of a batch."""
        assert self.loss is not None
        tape = Tape(shards=bounds, samples=samples, gather=self._shard_gather)
        prediction = self.model(tape.input(x, gradient=False))
        return prediction, self.loss(prediction, y)

    def _practised(self, passes: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `passes` gives for the arguments; until warm one rank of each host goes first, as kernels may be compiled."""
        if self._warm:
            return passes(*arguments)
        with self.comm.leader_first(), self._shard_gather.alone():
            result = passes(*arguments)
        if self._shard_gather.asked_alone:
            # A layer needs the other ranks in the middle of a pass: that was practice, and now all begin together.
            self._shard_gather.asked_alone = False
            self._flat.zero_gradients()
            return passes(*arguments)
        return result

    def _fit_epoch(self, data: ArrayDataset) -> Record:
        for callback in self.callbacks:
            callback.on_epoch_begin(self, self.epoch + 1)
        started = time.perf_counter()
        total = seen = 0.0
        for batch in self.batches(data):
            for part, weight in self._parts(batch):
                if self._over:
                    break
                loss = self._train(part)
                total += loss * weight * part.samples
                seen += weight * part.samples
                for callback in self.callbacks:
                    callback.on_step_end(self, self.step_count, loss)
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch,
            "step": self.step_count,
            "loss": total / len(data) if not self._over else total / seen if seen else math.nan,
            "samples_per_second": len(data) / seconds,
            "seconds": seconds,
        }

    # Checks

    def _prepared(self, dataset: ArrayDataset) -> ArrayDataset:
        if not isinstance(dataset, ArrayDataset):
            raise TypeError(message("Trainer", "data must be an ArrayDataset", type(dataset).__name__, "Use ArrayDataset(x, y)."))
        return dataset.astype(self._flat.dtype)
