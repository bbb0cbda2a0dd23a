"""The trainer: one step is forward, backward, one reduction in one order, and an update of each
rank's partition.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from ddbp.comm.current import communicator
from ddbp.comm.threads import use_one_thread
from ddbp.data.augment import Augmentation
from ddbp.data.source import Dataset
from ddbp.observers import status_reporter, step_log, watchdog
from ddbp.observers.observer import Request, StepHooks, TapeWatchers, telling_of_errors
from ddbp.optim.clipping import NotFiniteError
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.transform import GradientTransform, require_transforms
from ddbp.reduction import replicate
from ddbp.reduction.partition import Partition
from ddbp.reduction.shard_gather import ShardGather
from ddbp.reduction.wire import Wire
from ddbp.seldom import workers
from ddbp.seldom.exchange import Exchange
from layers import FlatParameters, Module, Parameter, Rule, TapeHook, Value, Workspace
from layers.checks import boolean, positive_int

from . import advice, arguments, checks, evaluation, fit_loop, fix, fork, replay, rounds, snapshots
from .accumulation import Accumulation
from .batch import Batch, LocalBatch
from .batch_stream import BatchStream, taped
from .callbacks import Callback
from .checkpoints import Checkpoints, in_run, require_none_of_another_run, to_resume
from .compilation import compile_step
from .history import History
from .in_ranks import fit_in_ranks
from .loss_scale import LossScale, LossScaling
from .memory import Budget
from .metrics import Metric
from .nonfinite import Guard, Rollback
from .options import OptionsOfBefore, TrainerOptions
from .progress import Progress
from .recovery import Origin, Recovering, Recovery
from .signals import Signals
from .truncated_bptt import Truncation
from .update import Update
from .warm_up import WarmUp, announce_compilation


class Trainer(
    OptionsOfBefore, Recovering, fork.Forking, evaluation.Evaluating, snapshots.Continuing
):
    """Trains a model, alone or on many ranks.

    The global batch is cut into `shards` shards; a rank computes all of its shards as one batch,
    and the shard gradients are summed in one fixed tree. So with a given number of shards,
    parameters are the same bits for any number of ranks, and for those that are left when some are
    killed under `ddbp launch --survive`.

    Parameters
    ----------
    model
        A layer; its parameters are moved into flat memory, and overwritten by those of rank 0, as
        are its states.
    loss
        Called with (prediction, target), and the weights of the data if they have any, or the name
        of a loss, as "mse"; may be left out in custom loops.
    optimizer
        See `ddbp.optim`; or the name of one, such as "adam", at its usual rate. It belongs to the
        trainer that was made last with it, for which its state begins anew.
    batch_size, drop_last, accumulate, seed, shards, clip_norm, clip_value, truncate, wire, l1, l2
        What decides what is computed: see `TrainerOptions`.
    compression, exchange, precision, loss_scale, on_nonfinite, rule, augment
        How gradients travel, how seldom workers exchange, what products are computed in, what
        losses are multiplied by, what is done about numbers that are not finite, what is learned
        by, how samples are changed at random: there.
    transforms
        Functions that change the gradient before the optimizer sees it, in their order: see
        `ddbp.optim.transform`.
    metrics
        Name to function, see `ddbp.training.metrics`, or a list of functions and names; those that
        go with the loss unless said.
    callbacks
        `Callback`s and `layers.TapeHook`s, in the order in which they are told.
    doctor
        Have a `ddbp.Doctor` watch over the run, and say what is wrong with it; "strict" ends
        training with a `DoctorError` then. One among the callbacks is taken as it is.
    run_dir
        Folder for configuration, metrics and final parameters; none is written unless given.
    resume
        Go on from a checkpoint: "auto" from the newest whole one in the run folder, or begin if
        there is none; or the path of one, or of a folder that has some. See `Checkpoints`.
    resume_options
        What may differ from the run that goes on, such as ("optimizer", "clip_norm").
    memory
        What a step may take beside parameters on each rank, as "200 MB" or a number of bytes: what
        must be, is computed again, in the way that costs least time. See `ddbp.training.memory`.
    network
        "auto" has the network between hosts be measured first, and says after some steps which
        exchange is enough for it; `trainer.advice` has what was found. A data set has that
        exchange chosen, after some steps on its first batch with a copy of the model.
    prefetch
        Have a thread read and augment the next batch while a step is computed.
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
        model: Module,
        *,
        loss: str | Callable[..., Any] | None = None,
        optimizer: str | Optimizer,
        batch_size: int,
        drop_last: bool = False,
        accumulate: int = 1,
        seed: int = 0,
        shards: int | str | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        truncate: int | None = None,
        wire: str | Wire | None = None,
        compression: Any = None,
        l1: float = 0.0,
        l2: float = 0.0,
        precision: str = "float32",
        loss_scale: LossScale | None = None,
        on_nonfinite: str | Rollback = "stop",
        exchange: str | Exchange | None = None,
        rule: str | Rule | None = None,
        augment: str | Sequence[Augmentation | str] = (),
        transforms: Sequence[GradientTransform] = (),
        metrics: Mapping[str, Metric | str] | Sequence[Metric | str] | None = None,
        callbacks: Sequence[Callback | TapeHook] = (),
        doctor: bool | str = False,
        run_dir: str | Path | None = None,
        resume: str | Path | None = None,
        resume_options: str | Sequence[str] = (),
        memory: int | str | None = None,
        network: Any = None,
        prefetch: bool = False,
        quiet: bool = False,
    ) -> None:
        use_one_thread()
        if not boolean("Trainer", "quiet", quiet):
            announce_compilation()
        comm = self.comm = communicator()
        model, loss = arguments.model(model), arguments.loss(loss)
        optimizer = arguments.optimizer(optimizer)
        callbacks = arguments.callbacks(callbacks, doctor)
        self._given: dict[str, Any] = {"callbacks": callbacks, "quiet": quiet, "prefetch": prefetch}
        self.model = model
        self.loss = loss
        self.transforms = require_transforms(transforms)
        options = TrainerOptions(
            batch_size=batch_size,
            drop_last=drop_last,
            accumulate=accumulate,
            seed=seed,
            shards=checks.shards(shards, model),
            clip_norm=clip_norm,
            clip_value=clip_value,
            truncate=truncate,
            wire=wire,
            compression=compression,
            l1=l1,
            l2=l2,
            precision=precision,
            loss_scale=loss_scale,
            on_nonfinite=on_nonfinite,
            exchange=exchange,
            rule=rule,
            augment=augment,
        )
        others = model, loss, optimizer, callbacks, comm
        network, options = advice.chosen(Trainer, network, memory, options, *others)
        reporter = status_reporter.start(comm.slot, model, loss)
        self.options, self.optimizer = fix.applied(self, options, optimizer)
        self.metrics = arguments.metrics(metrics, loss)
        self.step_count = 0
        self.stop = False
        plan = self._plan = self.options.plan(comm.rank, comm.size)
        window = self.options.truncate
        self._truncation = None if window is None else Truncation(model, window, comm, plan)
        self._memory = Budget(self, memory, quiet=quiet)
        checks.same_start(self, callbacks)
        replicate.broadcast(model, comm)
        self._gather = ShardGather(plan, comm)
        self._scaling = LossScaling(self.options.loss_scale)
        gather = rounds.gather_of_steps(self.options, self._gather)
        learned = gather, self._scaling, gather.comm
        self._guard = Guard(self.options.on_nonfinite, model, loss, self.optimizer, *learned)
        around = plan, comm, gather, self._guard, self._scaling, checks.memory(callbacks)
        update = rounds.kind(self.options, comm, callbacks)
        self._update = update(model, self.optimizer, self.options, self.transforms, *around)
        checks.same_parameters(self)
        log = step_log.start(model, plan, comm)
        self._warm_up = WarmUp(comm, self._gather, self._update.group.restart)
        self._workspace = Workspace()
        self._data = checks.DataSets(comm, self._flat.dtype, loss)
        stream = self.options, plan, self._truncation, self._update.group, prefetch
        self._stream = BatchStream(*stream)
        self._update.on_plan = self._stream.follow
        self.run_dir = arguments.path("run_dir", run_dir)
        self.resume = arguments.resume(resume, self.run_dir)
        self._differing = [resume_options] if isinstance(resume_options, str) else resume_options
        callbacks = replay.begin(self, fix.begin(self, callbacks))
        require_none_of_another_run(self, in_run(self))
        self._fit = fit_loop.FitLoop(self._stream, self._update, self.run_dir)
        self._fit.lead(self)
        self.advice = advice.begin(network)
        self._recovery = Recovery(self) if comm.survives else None
        checkpoints = [each for each in callbacks if isinstance(each, Checkpoints)]
        # What callbacks have been told is in a checkpoint.
        callbacks = sorted(callbacks, key=checkpoints.__contains__)
        last = self.advice, None if quiet else Progress()
        hooks = (reporter, log, self._fit, *callbacks, *last)
        self.callbacks = tuple(hook for hook in hooks if isinstance(hook, Callback))
        self._hooks = StepHooks.of(hooks)
        self._phase_hooks = tuple(partial(tell, self) for tell in self._hooks.phase)
        self.tape_watchers = TapeWatchers(hooks)
        self._last_begun = -1
        watchdog.watch(self, (Trainer._run_pass, Update.__call__, Accumulation.backward))
        self._guard.use(checkpoints)
        self._signals = Signals(self, checkpoints)
        for callback in self.callbacks:
            callback.on_attach(self)
        resume = None if comm.newcomer else self.resume
        found = to_resume(resume, self.run_dir, comm) if resume else None
        if (found := self._recovery.inherit(found) if self._recovery else found) is not None:
            self._go_on(found.snapshot())
        elif not comm.takes_over:
            self._fit.begin_folder()
        advice.measure(self)

    @property
    def partition(self) -> Partition:
        """What this rank updates of the parameters."""
        return self._update.part

    @property
    def _flat(self) -> FlatParameters:
        return self._update.flat

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return self._stream.epoch

    @property
    def history(self) -> History:
        """The records of the epochs of the last fit."""
        return self._fit.history

    # Custom loops

    def batches(self, dataset: Dataset, epochs: int = 1) -> Iterator[Batch]:
        """Yield this rank's part of every global batch, in the order of (seed, epoch), each with a
        new tape; after `load_state` what is left of the loop that the state is from.

        The next batch takes the memory of a batch, so its step comes before. Ranks compare a data
        set when it is first used.

        >>> for batch in trainer.batches(data, epochs=5):
        ...     loss = criterion(model(batch.x), batch.y)
        ...     trainer.step(loss)
        """
        data = self.recovered(self._data.one, dataset)
        checks.can_be_trained_on(self, data, "Trainer.batches")
        yield from fit_loop.batches(self, data, epochs)

    def batch(self, x: Any, y: Any, weights: Any = None) -> Batch:
        """Return this rank's part of a global batch, as `ArrayDataset` takes it, on a new tape."""
        checks.no_workers("Trainer.batch", self.options.exchange)
        rows = self._rows("Trainer.batch", x, y, weights)
        return self._recorded(rows, Origin.NOWHERE, copy=True)

    def step(self, loss: Value, **backward: Any) -> float:
        """Propagate backwards and update; return the loss of the global batch (with penalties, if
        any).

        While batches accumulate there is no update: the result is NaN, as nothing is known of the
        other ranks yet. The update returns the mean loss over all samples since the one before.
        """
        return self._step(self._update.group.backward, loss, **backward)

    def no_sync(self) -> AbstractContextManager[None]:
        """Return a context in which `step` and `update` only accumulate gradients, for the next one
        outside of it to update by.

        The update is by the mean over all samples of all batches since the one before, whatever
        their sizes. What has accumulated when an epoch or a loop ends waits for the next update.
        """
        checks.no_workers("Trainer.no_sync", self.options.exchange)
        return self._update.group.hold()

    def update(self, loss: Value) -> float:
        """Reduce the gradients, clip, update and publish, or accumulate: what `step` does after
        propagating backwards.
        """
        return self._step(self._update.group.require_no_factor, loss)

    def _take(self, propagate: Callable[..., Value], *arguments: Any, **options: Any) -> float:
        """Take a step on the loss that `propagate` returns for the arguments; return NaN if it is
        lost, and the batches of its group come once more, or no update is made.
        """
        recovery = self._recovery
        take = self._propagated if recovery is None else recovery.take
        try:
            value = take(propagate, *arguments, **options)
        except NotFiniteError as error:
            self._stream.given_out = False
            if not self._guard.recovers(self, error):
                raise
            return math.nan
        if value is None:
            return math.nan
        self._stream.given_out = False
        if self._update.over:
            self.step_count += 1
            for tell in self._hooks.step_end:
                tell(self, self.step_count, value)
        return value

    def _propagated(
        self, propagate: Callable[..., Value], *arguments: Any, **options: Any
    ) -> float:
        loss = propagate(*arguments, **options)
        self._warm_up.over = True
        return self._update(loss, self.step_count, self._phase_hooks)

    def train_step(self, x: Any, y: Any, weights: Any = None) -> float:
        """Take a `step` on a global batch (every rank passes the whole of it), or one per window;
        return its loss. What is given is what `ArrayDataset` takes.
        """
        batch = x, y, weights
        if self._truncation is not None:
            checks.windows_update(self.options.accumulate, self._update.group.held)
            train = partial(self._train, origin=Origin.GIVEN)
            rows = self._rows("Trainer.train_step", *batch)
            return self._truncation.mean(rows, train, self._update.group)
        value = math.nan
        for given in (batch,) if self._recovery is None else self._recovery.given(batch):
            for rows in self._stream.turns(self._rows("Trainer.train_step", *given)):
                value = self._train(rows, Origin.GIVEN)
        return value

    @telling_of_errors
    def end_round(self) -> float:
        """Have workers that train apart exchange what they have trained since the last exchange, as
        a step, and go on from there; return the loss of these batches, or NaN if there is nothing
        to exchange, as where gradients of all are exchanged in each step; collective.

        `fit`, and a loop over `batches` that comes to its end, do that themselves. It is for what
        follows calls of `train_step`, and a loop that was left.

        Raises
        ------
        RuntimeError
            It is the turn of another worker of this rank in the same batch.
        """
        return fit_loop.end_round(self)

    # Whole runs

    def fit(
        self,
        dataset: Dataset,
        *,
        epochs: int,
        validation: Dataset | None = None,
        class_weight: Mapping[int, float] | str | Any = None,
        ranks: int | None = None,
    ) -> History:
        """Train for so many epochs and return a record per epoch: epoch, loss, validation metrics,
        samples_per_second, seconds; after `load_state` for what is left of them, if the state is
        from a fit.

        Parameters
        ----------
        dataset, validation
            What to train on, and what to evaluate after each epoch: data sets in memory, or a
            `Source`, of which each rank reads its part of every batch.
        epochs
            Passes over the data.
        class_weight
            How much samples of each label count in training, if not alike: label to weight, 1 for
            those that are not named, or the weights of labels 0, 1, …; or "balanced", as of
            `ArrayDataset.weighted`.
        ranks
            How many processes of this host to start for it, as in a notebook; they give the bits of
            this one. Callbacks here are told of nothing, and get the states of those in the ranks.

        Raises
        ------
        ValueError
            The batch is larger than the data set; the data do not fit the model.
        FloatingPointError
            A loss, a gradient or a parameter is not finite: see `on_nonfinite`.
        CommunicationError
            Ranks hold different data, or are asked for different numbers of epochs.
        RankError
            One of `ranks` has failed; the trainer is as it was, and checkpoints are kept.
        """
        epochs = positive_int("Trainer", "epochs", epochs, "epochs=1 is the least.")
        checks.no_context(self._update.group.held)
        if ranks is not None:
            given = {"dataset": dataset, "epochs": epochs, "validation": validation}
            return fit_in_ranks(self, ranks, {**given, "class_weight": class_weight})
        if (class_weight := fix.class_weight(self, class_weight)) is not None:
            checks.require_data_set(dataset)
            dataset = dataset.weighted(class_weight, getattr(self.loss, "ignore", None))
        data = self.recovered(self._data.of_fit, dataset, validation, epochs, self.options)
        checks.can_be_trained_on(self, data, "Trainer.fit")
        windows = 1
        if self._truncation is not None:
            first = data.excerpt(1)
            windows = self._truncation.count(first.x, first.y)
        self._memory.prepare_for(self, data)
        steps = windows * self.options.steps(len(data))
        if self.comm.leads:
            workers.warn_if_seldom(self.options, len(data), epochs)
        self._fit.write_configuration(self, dataset, data, epochs)
        with self._signals:
            return self._fit.run(self, self._train, data, epochs, steps, validation)

    # State

    def request(self, request: Request) -> None:
        """Ask all ranks for something, on this one: by the end of the next step all know it."""
        self._update.reducer.request |= request

    @property
    def requested(self) -> int:
        """What ranks have asked for by the exchange of the last step, `Request`s, the same on all
        ranks.
        """
        return self._update.reducer.requested

    # Parts of a step

    @telling_of_errors
    def _rows(self, owner: str, x: Any, y: Any, weights: Any) -> LocalBatch:
        """Return this rank's rows of a global batch that `owner` was given."""
        if weights is None and self._data.is_ready(x, y):
            return self._stream.of_arrays(x, y)
        return self._stream.of(self._data.batch(owner, x, y, weights))

    def _record(
        self, rows: LocalBatch, origin: Origin = Origin.STREAM, copy: bool = False
    ) -> Batch:
        """Return rows with a new tape, which copies those that may change before its backward."""
        update = self._update
        update.require_bound()
        if self._recovery is not None:
            self._recovery.begin(origin)
        self._memory.prepare(self, rows)
        if self._last_begun != self.step_count:
            for tell in self._hooks.step_begin:
                tell(self, self.step_count)
            self._last_begun = self.step_count
        if update.flat.freezes != Parameter.freezes:
            self._follow()
        update.enter()
        update.batches += 1
        batch = taped(self, rows, copy=copy)
        if rows.ends_group:
            update.group.last = batch.tape
        return batch

    _recorded = telling_of_errors(_record)
    _step = telling_of_errors(_take)

    def _follow(self) -> None:
        """Go on with the parameters that are trained now."""
        if self._update.follow():
            for callback in self.callbacks:
                callback.on_freeze(self)

    @telling_of_errors
    def _train(self, rows: LocalBatch, origin: Origin = Origin.STREAM) -> float:
        """Take a step on rows; return its loss."""
        checks.has_loss("Trainer.train_step", self.loss)
        if not self._warm_up.over:
            self._warm_up.prepare = partial(compile_step, self, rows)
        return self._take(self._warm_up, self._run_pass, self._record(rows, origin))

    def _run_pass(self, batch: Batch) -> Value:
        """Propagate forward and backward; return the loss."""
        return self._update.group.run_pass(self._truncation or self.model, self.loss, batch)
