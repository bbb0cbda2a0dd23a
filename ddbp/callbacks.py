"""Callbacks: what happens beside training, on every rank, at the same points."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trainer import Trainer

Record = dict[str, Any]


class Callback:
    """Base of callbacks; override what you need. Methods run on all ranks, so collective calls are allowed in them."""

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        """Run before the first epoch."""

    def on_epoch_begin(self, trainer: "Trainer", epoch: int) -> None:
        """Run before each epoch; epochs count from 1."""

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        """Run after each update; `loss` is that of the global batch."""

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        """Run after each epoch and its validation; may add to the record."""

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        """Run after the last epoch."""


class EarlyStopping(Callback):
    """Stop when `monitor` (the validation loss unless said) has not fallen by more than `delta` for `patience` epochs."""

    def __init__(self, *, patience: int = 5, monitor: str = "validation_loss", delta: float = 0.0) -> None:
        self.patience, self.monitor, self.delta = patience, monitor, delta
        self._best, self._bad = float("inf"), 0

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        value = record[self.monitor if self.monitor in record else "loss"]
        if value < self._best - self.delta:
            self._best, self._bad = value, 0
        else:
            self._bad += 1
            trainer.stop = trainer.stop or self._bad >= self.patience
