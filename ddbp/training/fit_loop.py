"""The loop of `fit`: epochs, their records, and who is told of them."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ddbp.snapshot import State
from layers import FlatParameters

from . import checks
from .batch_stream import BatchStream
from .callbacks import Record
from .data import ArrayDataset, LocalBatch
from .run_folder import RunFolder

if TYPE_CHECKING:
    from .trainer import Trainer


class FitLoop:
    """Trains epoch by epoch, and can go on where another one was.

    Parameters
    ----------
    stream
        Where batches come from.
    flat
        The parameters.
    train
        Trains on a part of a batch; returns the loss, and of how many samples an update was, if
        there was one.
    folder
        Where records and final parameters go, if anywhere.

    Attributes
    ----------
    history
        The records of the epochs of this run.
    running
        Whether it is in `run`.
    """

    def __init__(
        self,
        stream: BatchStream,
        flat: FlatParameters,
        train: Callable[[LocalBatch], tuple[float, int]],
        folder: RunFolder | None,
    ) -> None:
        self.history: list[Record] = []
        self.running = False
        self._stream = stream
        self._flat = flat
        self._train = train
        self._folder = folder
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        # Sums over the updates of the epoch: of the losses times the samples, and of these; and how
        # long they took.
        self._total = 0.0
        self._seen = 0.0
        self._seconds = 0.0

    def run(
        self,
        trainer: "Trainer",
        data: ArrayDataset,
        epochs: int,
        steps_per_epoch: int,
        validation: ArrayDataset | None,
    ) -> list[Record]:
        """Train until the run has had so many epochs, and return their records; collective."""
        if not self._stream.begin(data):
            self.history = []
            self._begin_epoch()
            trainer.stop = False
        self.running = True
        try:
            for callback in trainer.callbacks:
                callback.on_fit_begin(trainer, epochs, steps_per_epoch)
            while self._stream.left(epochs) > 0 and (self._stream.mid_epoch or not trainer.stop):
                self._run_epoch(trainer, data, validation)
                if trainer._over:
                    break
            if self._folder is not None:
                self._folder.write_parameters(trainer.model)
            for callback in trainer.callbacks:
                callback.on_fit_end(trainer, self.history)
        finally:
            self.running = False
        self._stream.end()
        return self.history

    def _run_epoch(
        self, trainer: "Trainer", data: ArrayDataset, validation: ArrayDataset | None
    ) -> None:
        for callback in trainer.callbacks:
            callback.on_epoch_begin(trainer, trainer.epoch + 1)
        self._take_steps(trainer)
        checks.finite_parameters(self._flat, trainer.step_count - 1)
        loss = self._total / len(data)
        if trainer._over:
            loss = self._total / self._seen if self._seen else math.nan
        record: Record = {
            "epoch": trainer.epoch,
            "step": trainer.step_count,
            "loss": loss,
            "samples_per_second": len(data) / self._seconds,
            "seconds": self._seconds,
        }
        self._begin_epoch()
        if validation is not None:
            measures = trainer.evaluate(validation)
            record |= {f"validation_{name}": value for name, value in measures.items()}
        watched = "loss" if validation is None else "validation_loss"
        trainer.optimizer.schedule.observe(record[watched])
        self.history.append(record)
        for callback in trainer.callbacks:
            callback.on_epoch_end(trainer, record)
        if self._folder is not None:
            self._folder.log(record)

    def _take_steps(self, trainer: "Trainer") -> None:
        """Train on what is left of the epoch that has begun."""
        before, started = self._seconds, time.perf_counter()
        for part in self._stream.parts():
            if trainer._over:
                break
            loss, samples = self._train(part)
            self._seconds = before + time.perf_counter() - started
            if not samples:
                continue
            self._total += loss * part.weight * samples
            self._seen += part.weight * samples
            for callback in trainer.callbacks:
                callback.on_step_end(trainer, trainer.step_count, loss)
        self._seconds = before + time.perf_counter() - started

    def state(self) -> dict[str, Any]:
        """Return the records, and what is known of the epoch that has begun."""
        return {
            "history": self.history,
            "total": self._total,
            "seen": self._seen,
            "seconds": self._seconds,
        }

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""
        self.history = [*state["history"]]
        self._total = state["total"]
        self._seen = state["seen"]
        self._seconds = state["seconds"]
        if self._folder is not None:
            self._folder.write_metrics(self.history)
