"""The loop of `fit`: epochs, their records, and who is told of them."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddbp.comm.base import CollectiveKind
from ddbp.data.source import Dataset
from ddbp.observers.observer import StepHook, TrainingOver, tell_of_error
from ddbp.report import page
from ddbp.report.run import Run
from ddbp.snapshot import NUMBER, Entry, Schema, State, integer, listing
from layers.errors import message

from . import outcome, replay
from .batch import Batch, LocalBatch
from .batch_stream import BatchStream
from .callbacks import Record
from .environment import environment
from .history import History
from .run_folder import RunFolder
from .run_log import RunLog
from .update import Update

if TYPE_CHECKING:
    from .trainer import Trainer


_RECORD = Entry("a record", lambda entry: type(entry) is dict)
_RECORDS = Entry(
    "the records of each fit",
    lambda entry: type(entry) is dict and all(map(listing(_RECORD).holds, entry.values())),
)


class FitLoop(StepHook):
    """Trains epoch by epoch, and can go on where another one was.

    Parameters
    ----------
    stream
        Where batches come from.
    update
        What follows backward passes.
    run_dir
        The folder where records and final parameters go, if anywhere.

    Attributes
    ----------
    history
        The records of the epochs of this run.
    running
        Whether it is in `run`.
    validation
        The data set that is evaluated after each epoch, if any.
    between
        What a validation calls between batches.
    """

    def __init__(
        self,
        stream: BatchStream,
        update: Update,
        run_dir: Path | None,
    ) -> None:
        self.history = History()
        self.running = False
        self.validation: Dataset | None = None
        self._stream = stream
        self._update = update
        self._run_dir = run_dir
        self._folder: RunFolder | None = None
        self._log = None if run_dir is None else RunLog(run_dir)
        self._configuration: dict[str, Any] | None = None
        # The records that are in the folder; the run that the history is of, and the histories of
        # those before, by their numbers.
        self._logged: list[Record] = []
        self._run = -1
        self._earlier: dict[str, History] = {}
        self._begin_epoch()

    def lead(self, trainer: "Trainer") -> None:
        """Open the folder if this rank leads now; its history goes on."""
        leads = trainer.comm.leads and self._run_dir is not None
        if not leads:
            self._folder = None
        elif self._folder is None and self._run_dir is not None:
            self._folder = RunFolder(self._run_dir)
            if self._configuration is not None:
                self._folder.write_configuration(self._configuration)
                self._folder.write_metrics(self._logged)
        if self._log is not None:
            self._log.follow(trainer)

    def begin_folder(self) -> None:
        """Remove what another run has left in the folder, if there is one."""
        if self._folder is not None:
            self._folder.clear()

    def note(self, line: str) -> None:
        """Write to the folder, if there is one, what was done about numbers that are not finite."""
        if self._folder is not None:
            self._folder.note(line)

    def _begin_epoch(self) -> None:
        # Sums over the updates of the epoch: of what losses are made of, of what they are divided
        # by, and of samples. A window of time steps is so much of its batches' samples.
        self._total = 0.0
        self._counted = 0.0
        self._seen = 0.0
        self._weight = 1.0
        self.between: Callable[[], None] | None = None
        # How long the epoch took until the last update, and since when it goes on.
        self._seconds = 0.0
        self._started = time.perf_counter()
        self._validating = False
        self._stream.loader.reset()

    def write_configuration(
        self, trainer: "Trainer", given: Dataset, data: Dataset, epochs: int
    ) -> None:
        """Write what a run on data, as `given`, is made of to the folder, if there is one;
        collective.

        Raises
        ------
        ValueError
            The run goes on in the midst of an epoch of other data; nothing is written then.
        """
        self._stream.require_same(data)
        facts = trainer.comm.describe() | {"epochs": epochs, "data": given}
        facts["callbacks"] = [type(each).__name__ for each in trainer.callbacks]
        facts["process"] = replay.origin(trainer)
        facts["memory"] = trainer._memory.facts
        facts["network"] = None if trainer.advice is None else trainer.advice.facts
        if self._run_dir is not None:
            names = ("model", "loss", "optimizer", "transforms")
            chosen = {name: getattr(trainer, name) for name in names} | trainer.options.as_dict()
            self._configuration = chosen | facts | {"environment": environment()}
        if self._folder is not None and self._configuration is not None:
            self._folder.write_configuration(self._configuration)
            self._folder.write_architecture(trainer.predictor)

    def run(
        self,
        trainer: "Trainer",
        train: Callable[[LocalBatch], float],
        data: Dataset,
        epochs: int,
        steps_per_epoch: int,
        validation: Dataset | None,
    ) -> History:
        """Train until the run has had so many epochs, and return their records; collective. `train`
        takes a step on what is computed at once.
        """
        self.validation = validation
        if (over := self.passed()) is not None:
            return over
        number = self._stream.runs
        self._stream.passes()
        goes_on = self._stream.begin(data)
        if not goes_on:
            if self._run >= 0:
                self._earlier[str(self._run)] = self.history
            self.history = History()
            self._run = number
            if self._folder is not None and not self._logged:
                self._folder.clear_models()
            self._begin_epoch()
            trainer.stop = False
        self._write_records()
        self.running = True
        if self._log is not None:
            self._log.begin(trainer, epochs, steps_per_epoch)
        try:
            for callback in () if goes_on else trainer.callbacks:
                callback.on_run_begin(trainer)
            for callback in trainer.callbacks:
                callback.on_fit_begin(trainer, epochs, steps_per_epoch)
            joined = trainer.join("fit")
            if joined is None:
                return self._of_run(number)
            if joined:
                goes_on = self._stream.begin(data)
            if not goes_on:
                trainer._guard.begin(trainer)
            # An epoch that has begun comes to its end.
            stop = trainer.stop and not self._stream.mid_epoch
            for _ in () if stop else self._stream.epochs(epochs):
                self._run_epoch(trainer, train, data, validation)
                if trainer.stop:
                    break
            if trainer.recovered(trainer._signals.asked):
                trainer._signals.save()
            end_round(trainer)
            try:
                for callback in trainer.callbacks:
                    callback.on_fit_end(trainer, self.history)
            finally:
                trainer.recovered(self._write_parameters, trainer)
            self._end_log(trainer, data, validation)
        except BaseException as error:
            tell_of_error(trainer, error)
            self._end_log(trainer, error=error)
            raise
        finally:
            self.running = False
        self._stream.end()
        return self.history

    def passed(self) -> History | None:
        """Return the records of the next run if it was over in the state that was loaded, and come
        past it; None if it is to be trained.
        """
        number = self._stream.runs
        if number >= self._stream.over:
            return None
        self._stream.passes()
        return self._of_run(number)

    def _of_run(self, number: int) -> History:
        """Return the records of a run that is over."""
        earlier = self._earlier.get(str(number), History())
        return self.history if number == self._run else earlier

    def _write_parameters(self, trainer: "Trainer") -> None:
        if self._folder is not None:
            self._folder.write_parameters(trainer.model)
        if trainer.comm.survives:
            # If the rank that writes them is lost, another one does.
            trainer.comm.host_barrier((CollectiveKind.GATHER, 0))

    def _end_log(
        self,
        trainer: "Trainer",
        data: Dataset | None = None,
        validation: Dataset | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Note how the run has ended, and write the report, with what the model makes of samples if
        there are data. What goes wrong is a warning.
        """
        if self._log is not None:
            self._log.end(trainer, error)
        if self._folder is None:
            return
        folder = self._folder.path
        try:
            if data is not None:
                outcome.write(trainer, data, validation, folder)
            page.write([Run.read(folder)], folder / page.NAME)
        except Exception as wrong:
            # An error that ends the run says enough.
            if error is None:
                must, fix = f"{folder} should hold a report", f"Try `ddbp report {folder}`."
                got = f"{type(wrong).__name__}: {wrong}".rstrip(".")
                warnings.warn(message("Trainer", must, got, fix), RuntimeWarning, stacklevel=2)

    def _run_epoch(
        self,
        trainer: "Trainer",
        train: Callable[[LocalBatch], float],
        data: Dataset,
        validation: Dataset | None,
    ) -> None:
        for callback in trainer.callbacks:
            callback.on_epoch_begin(trainer, trainer.epoch + 1)
        trainer.optimizer.begin_epoch(trainer.epoch)
        self._started = time.perf_counter() - self._seconds
        samples: float = trainer.options.samples(len(data))
        try:
            for part in self._stream.parts(data):
                self._weight = part.share
                train(part)
        except TrainingOver:
            trainer.stop = True
            self._stream.given_out = False
            samples = self._seen
        total, counted, seen = trainer._update.settle()
        self._count(total, counted, seen)
        seconds = time.perf_counter() - self._started
        guard = trainer._guard
        error = None if self._stream.interrupted else guard.of_parameters(trainer.step_count - 1)
        if error is not None and not guard.recovers(trainer, error):
            raise error
        if self._stream.interrupted:
            return
        record: Record = {
            "epoch": trainer.epoch,
            "step": trainer.step_count,
            "loss": self._total / self._counted if self._counted else math.nan,
            "samples_per_second": samples / seconds,
            "seconds": seconds,
            **guard.counts(),
        }
        if self._stream.loader.tells:
            record["data_seconds"] = self._stream.loader.seconds
        if validation is not None:
            self._validating = True
            self.between = partial(self._end_validation, trainer)
            measures = trainer.evaluate(validation)
            record |= {f"validation_{name}": value for name, value in measures.items()}
        self._begin_epoch()
        watched = "loss" if validation is None else "validation_loss"
        trainer.optimizer.observe(record[watched])
        self.history.append(record)
        for callback in trainer.callbacks:
            callback.on_epoch_end(trainer, record)
        if self._folder is not None:
            self._folder.log(record)
        self._logged.append(record)
        if self._log is not None:
            self._log.note_epoch(trainer)

    def _end_validation(self, trainer: "Trainer") -> None:
        """Save and end where that was asked for, as after the last step; collective."""
        if trainer._signals.asked():
            self._validating = False
            self._stream.reopen()
            trainer._signals.save()

    def skip(self, seconds: float) -> None:
        """Leave out time that went by in something else."""
        self._started += seconds

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        if self.running:
            counted = self._update.group.counted_of(self._weight)
            total = loss * counted if counted else 0.0
            self._count(total, counted, self._weight * self._update.group.updated)
            self._seconds = time.perf_counter() - self._started
            if self._log is not None:
                self._log.note_step(trainer, step, loss)

    def _count(self, total: float, counted: float, seen: float) -> None:
        self._total += total
        self._counted += counted
        self._seen += seen

    def on_exception(self, trainer: "Trainer", error: BaseException) -> None:
        if self._configuration is not None and trainer.comm.leads:
            replay.note(trainer, error)

    def state(self) -> dict[str, Any]:
        """Return the records, and what is known of the epoch that has begun."""
        if self._validating:
            must, fix = (
                "a state must be taken between two steps or at the end of an epoch",
                "Take it in on_step_end or on_epoch_end.",
            )
            raise RuntimeError(message("Trainer.state", must, "a call within a validation", fix))
        if self._log is not None:
            self._log.flush()
        return {
            "history": [*self.history],
            "run": self._run,
            "earlier": {number: [*records] for number, records in self._earlier.items()},
            "total": self._total,
            "counted": self._counted,
            "seen": self._seen,
            "seconds": self._seconds,
        }

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes."""
        numbers = dict.fromkeys(("total", "counted", "seen", "seconds"), NUMBER)
        return {
            "history": listing(_RECORD),
            "run": integer(-1),
            "earlier": _RECORDS,
            **numbers,
        }

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""
        self.history = History(state["history"])
        self._run = state["run"]
        self._earlier = {number: History(records) for number, records in state["earlier"].items()}
        self._logged = [*chain.from_iterable(self._earlier.values()), *self.history]
        self._total = state["total"]
        self._counted = state["counted"]
        self._seen = state["seen"]
        self._seconds = state["seconds"]
        self._validating = False
        if self.running:
            self._write_records()

    def _write_records(self) -> None:
        """Have the folder, if there is one, hold the records so far and no others."""
        if self._folder is not None:
            self._folder.write_metrics(self._logged)


def end_round(trainer: "Trainer") -> float:
    """Have what was trained since the last update change the model, as a step; return the loss of
    its batches, NaN if there is nothing; collective. At the end of an epoch, which has told of
    these, the loss of that is the step's.
    """
    value = trainer._update.close(trainer.step_count, trainer._phase_hooks)
    if value is None:
        return math.nan
    if trainer._fit.running and trainer.history:
        value = trainer.history[-1]["loss"]
    trainer.step_count += 1
    for tell in trainer._hooks.step_end:
        tell(trainer, trainer.step_count, value)
    return value


def batches(trainer: "Trainer", data: Dataset, epochs: int) -> Iterator[Batch]:
    """Yield what is left of so many epochs of a script's own loop, batch by batch; collective."""
    stream, signals = trainer._stream, trainer._signals
    if stream.passes():
        return
    goes_on = stream.begin(data)
    joined = trainer.join("batches")
    if joined is None:
        return
    if joined:
        goes_on = stream.begin(data)
    try:
        with signals:
            if not goes_on:
                trainer._guard.begin(trainer)
            for _ in stream.epochs(epochs):
                trainer.optimizer.begin_epoch(trainer.epoch)
                yield from map(trainer._recorded, stream.batches(data))
            if trainer.recovered(signals.asked):
                signals.save()
    except TrainingOver:
        stream.given_out = False
        return
    except GeneratorExit:
        trainer._update.rest()
        raise
    stream.end()
