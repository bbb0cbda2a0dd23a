"""Callbacks: what happens beside training, on every rank, at the same points."""

from typing import TYPE_CHECKING, Any

from ddbp.observers.observer import StepHook
from ddbp.snapshot import NUMBER, Schema, State, integer, like
from layers.checks import non_negative
from layers.errors import message

if TYPE_CHECKING:
    from .trainer import Trainer

Record = dict[str, Any]


class Callback(StepHook):
    """Base of callbacks; override what you need. Methods run on all ranks but for `on_exception`,
    so collective calls are allowed in them.

    The events of steps and evaluations, see `StepHook`, come in `fit` and in custom loops alike;
    those of epochs and of the run come in `fit`. A callback that is a `layers.TapeHook`, too, is
    told what happens in each forward and backward pass.
    """

    def on_attach(self, trainer: "Trainer") -> None:
        """Run when a trainer has been made with this callback: it begins anew."""

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        """Run before the first epoch."""

    def on_epoch_begin(self, trainer: "Trainer", epoch: int) -> None:
        """Run before each epoch; epochs count from 1."""

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        """Run after each epoch and its validation; may add to the record."""

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        """Run after the last epoch."""

    def state(self) -> dict[str, Any]:
        """Return what a run that goes on elsewhere must know: arrays, and what JSON can hold, by
        name; the same on all ranks.
        """
        return {}

    def state_schema(self, state: State) -> Schema:
        """Return what all entries of a state must be, if it is to be loaded."""
        return like(self.state())

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""


class EarlyStopping(Callback):
    """Stop when `monitor` has not fallen by more than `delta` for `patience` epochs.

    It is the validation loss unless said, and the training loss where there is no validation.
    """

    def __init__(
        self, *, patience: int = 5, monitor: str | None = None, delta: float = 0.0
    ) -> None:
        if not patience >= 1:
            raise ValueError(
                message(
                    "EarlyStopping", "patience must be one epoch or more", patience, "5 is usual."
                )
            )
        self.patience = patience
        self.monitor = monitor
        self.delta = non_negative("EarlyStopping", "delta", delta, "0 counts any fall.")
        self._best = float("inf")
        self._bad = 0

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        name = self.monitor or ("validation_loss" if "validation_loss" in record else "loss")
        if name not in record:
            fix = f"It has {', '.join(record)}; validation measures need fit(…, validation=…)."
            raise ValueError(
                message("EarlyStopping", "monitor must be in the record", repr(name), fix)
            )
        if record[name] < self._best - self.delta:
            self._best = record[name]
            self._bad = 0
        else:
            self._bad += 1
            trainer.stop = trainer.stop or self._bad >= self.patience

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "bad": self._bad}

    def state_schema(self, state: State) -> Schema:
        return {"best": NUMBER, "bad": integer(0)}

    def load_state(self, state: State) -> None:
        self._best = state["best"]
        self._bad = state["bad"]
