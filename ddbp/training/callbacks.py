"""Callbacks: what happens beside training, on every rank, at the same points."""

import inspect
from typing import TYPE_CHECKING, Any

from ddbp.observers.observer import StepHook
from ddbp.snapshot import Schema, State, like
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

    All ranks must have callbacks of the same classes and, where a class has a `__repr__` of its
    own, of the same representations.
    """

    optional = False
    """Whether it only watches: a state may be loaded that was taken without such a callback, which
    then gets an empty one, and one that was taken with it where there is none.
    """
    watches_memory = False
    """Whether it looks at `trainer.optimizer.checksums`, which there are then."""

    def on_attach(self, trainer: "Trainer") -> None:
        """Run when a trainer has been made with this callback: it begins anew."""

    def on_freeze(self, trainer: "Trainer") -> None:
        """Run when parameters have been frozen or unfrozen: `trainer.partition` is another one."""

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        """Run when ranks have been lost, or newcomers have been let in: `trainer.partition` is
        another one. With newcomers, `load_state` has been run before, on all ranks, and memory that
        ranks share must be made anew.
        """

    def on_resume(self, trainer: "Trainer") -> None:
        """Run when the trainer goes on from a checkpoint, after states are loaded."""

    def on_run_begin(self, trainer: "Trainer") -> None:
        """Run before `on_fit_begin` of a fit that does not go on from a state.

        What a callback remembers of an earlier fit, of this trainer or of another one, is to be
        forgotten here.
        """

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        """Run before the first epoch of a fit, or before it goes on."""

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


class OptionsCallback(Callback):
    """Base of callbacks that keep their options in attributes of the same names: these are shown,
    and must be the same on all ranks. A `path` is none of them: hosts may differ in it.
    """

    def __repr__(self) -> str:
        names = [*inspect.signature(type(self)).parameters]
        # A class of a script's own may have other arguments.
        shown = [name for name in names if name != "path" and hasattr(self, name)]
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({options})"


def require_own(callback: Callback, trainer: "Trainer", made_with: object) -> None:
    """Refuse a callback that keeps what is of one trainer where another one, with which it was made
    last, has taken it over.

    Raises
    ------
    RuntimeError
        It has.
    """
    if made_with is not trainer:
        must, fix = "a trainer must have one of its own", "Make another for each."
        got = "that which a later trainer was made with"
        raise RuntimeError(message(type(callback).__name__, must, got, fix))
