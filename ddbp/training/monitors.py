"""Callbacks that watch a number of the records: when to stop, and which weights to keep."""

import math
import os
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.reduction.replicate import KeptWeights
from ddbp.snapshot import NUMBER, Entry, Pieces, Schema, State, StoredArray, below, integer
from layers.checks import boolean, non_negative, one_of, positive_int
from layers.errors import message
from layers.types import Array

from .callbacks import OptionsCallback, Record
from .paths import path_of
from .run_folder import save_parameters

if TYPE_CHECKING:
    from .trainer import Trainer

_ARRAY = Entry("an array", lambda entry: isinstance(entry, np.ndarray | StoredArray))


class Monitor:
    """The best value so far of a number of the records.

    Parameters
    ----------
    owner
        Who refuses what is wrong.
    name
        Of the number; None for the validation loss, or the training loss without validation.
    mode
        "min" or "max": what is best; None for what the name says.
    delta
        By how much a value must be better than the best.
    """

    def __init__(self, owner: str, name: str | None, mode: str | None, delta: float) -> None:
        if mode is not None:
            fix = 'Write "min" for losses and errors, "max" for accuracies and scores.'
            one_of(owner, "mode", mode, ("min", "max"), fix)
        given: Any = name
        if given is not None and not isinstance(given, str):
            must, fix = "monitor must be the name of a number", 'Write monitor="validation_loss".'
            raise TypeError(message(owner, must, repr(name), fix))
        if name is not None and mode is None:
            if name.endswith(("loss", "error")):
                mode = "min"
            elif name.endswith("accuracy"):
                mode = "max"
            else:
                must = f"mode must be given for {name!r}"
                fix = (
                    'Write mode="max" if greater values are better, else mode="min"; names that end'
                    " in loss, error or accuracy need none."
                )
                raise ValueError(message(owner, must, mode, fix))
        self._owner = owner
        self._name = name
        self._sign = -1.0 if mode == "max" else 1.0
        self.delta = non_negative(owner, "delta", delta, "0 counts any change for the better.")
        self.begin()

    def begin(self) -> None:
        """Forget all values."""
        self.best = self._sign * math.inf
        self._nan: str | None = None

    def end(self, trainer: "Trainer") -> None:
        """Warn on rank 0 of a number that was NaN in all epochs."""
        if self._nan is not None and math.isinf(self.best) and trainer.comm.leads:
            must, fix = "monitor must be a number in some epoch", "See why it is NaN."
            text = message(self._owner, must, f"{self._nan!r}, which was NaN in all", fix)
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def improved(self, trainer: "Trainer", record: Record) -> bool:
        """Return whether a record has the best value so far, which is kept then; collective.

        Raises
        ------
        ValueError
            The record has no such number.
        """
        name = self._name or ("validation_loss" if "validation_loss" in record else "loss")
        if not isinstance(record.get(name), Real):
            numbers = [key for key, value in record.items() if isinstance(value, Real)]
            fix = (
                f"It has {', '.join(numbers)}; validation measures need fit(…, validation=…), and"
                " what a callback adds needs that one to come first."
            )
            must = "monitor must be a number of the record"
            raise ValueError(message(self._owner, must, repr(name), fix))
        # Times are not the same on all ranks.
        value = np.array([record[name]], np.float64)
        trainer.recovered(trainer.comm.broadcast, value)
        self._nan = name if math.isnan(value.item()) else None
        if not self._sign * value.item() < self._sign * self.best - self.delta:
            return False
        self.best = value.item()
        return True


class BestWeights(OptionsCallback):
    """Keep the parameters and states of the best epoch, and put them back at the end of `fit`.

    Parameters
    ----------
    monitor
        What of the records decides; the validation loss unless said, and the training loss without
        validation.
    mode
        "min" or "max": what is best. Names that end in "loss", "error" or "accuracy" say it
        themselves.
    delta
        By how much a value must be better than the best so far.
    restore
        Whether to put them back.
    path
        A safetensors file to write them to whenever there are better ones; see `load_parameters`.

    Attributes
    ----------
    epoch
        That of the best value; 0 before the first.

    Notes
    -----
    The ranks of a host keep one copy together, in memory that they share. The moments of the
    optimizer stay those of the last step.
    """

    def __init__(
        self,
        monitor: str | None = None,
        *,
        mode: str | None = None,
        delta: float = 0.0,
        restore: bool = True,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._monitor = Monitor("BestWeights", monitor, mode, delta)
        self.monitor = monitor
        self.mode = mode
        self.delta = self._monitor.delta
        self.restore = boolean("BestWeights", "restore", restore)
        self.path = None if path is None else path_of("BestWeights", "path", path)
        self._weights: KeptWeights | None = None
        self._loaded: dict[str, Array] = {}
        self.epoch = 0

    @property
    def best(self) -> float:
        """The best value so far."""
        return self._monitor.best

    def on_run_begin(self, trainer: "Trainer") -> None:
        self._monitor.begin()
        self._loaded = {}
        self.epoch = 0

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        self._weights = trainer.recovered(
            KeptWeights, trainer.model, trainer.comm, trainer._update.comm
        )
        trainer.recovered(self._load)

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        if newcomers and self._weights is not None:
            self._weights = KeptWeights(trainer.model, trainer.comm, trainer._update.comm)
            self._load()

    def on_resume(self, trainer: "Trainer") -> None:
        # Else the next fit begins with them.
        if trainer._fit.running:
            self._load()

    def _load(self) -> None:
        """Keep the weights of the state that was loaded, if it has any; collective."""
        if self._loaded and self._weights is not None:
            self._weights.load(self._loaded)
            self._loaded = {}

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        assert self._weights is not None
        if self._monitor.improved(trainer, record):
            self.epoch = record["epoch"]
            trainer.recovered(self._weights.keep)
            if self.path is not None and trainer.comm.leads:
                save_parameters(trainer.model, self.path)

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        self._monitor.end(trainer)
        if self.restore and self.epoch:
            assert self._weights is not None
            trainer.recovered(self._weights.restore)

    def state(self) -> dict[str, Any]:
        kept: Mapping[str, Array | Pieces] = self._loaded
        if self.epoch and not kept:
            assert self._weights is not None
            kept = self._weights.arrays()
        weights = {f"weights.{name}": array for name, array in kept.items()}
        return {"best": self.best, "epoch": self.epoch, **weights}

    def state_schema(self, state: State) -> Schema:
        names = [name for name in state if name.startswith("weights.")]
        return {"best": NUMBER, "epoch": integer(0), **dict.fromkeys(names, _ARRAY)}

    def load_state(self, state: State) -> None:
        self._monitor.best = state["best"]
        self.epoch = state["epoch"]
        self._loaded = {name: np.asarray(each) for name, each in below("weights", state).items()}


class EarlyStopping(OptionsCallback):
    """Stop when `monitor` has not become better for `patience` epochs.

    Parameters
    ----------
    patience
        Epochs, at least 1.
    monitor
        What of the records decides; the validation loss unless said, and the training loss without
        validation.
    mode
        "min" or "max": what is best. Names that end in "loss", "error" or "accuracy" say it
        themselves.
    delta
        By how much a value must be better than the best so far.
    restore_best_weights
        Whether the parameters and states of the best epoch are put back at the end of `fit`, as
        `BestWeights` does.
    """

    def __init__(
        self,
        *,
        patience: int = 5,
        monitor: str | None = None,
        mode: str | None = None,
        delta: float = 0.0,
        restore_best_weights: bool = False,
    ) -> None:
        self.patience = positive_int("EarlyStopping", "patience", patience, "5 is usual.")
        self._monitor = Monitor("EarlyStopping", monitor, mode, delta)
        self.monitor = monitor
        self.mode = mode
        self.delta = self._monitor.delta
        self.restore_best_weights = boolean(
            "EarlyStopping", "restore_best_weights", restore_best_weights
        )
        self._bad = 0
        self._weights = (
            BestWeights(monitor, mode=mode, delta=delta) if restore_best_weights else None
        )

    @property
    def best(self) -> float:
        """The best value so far."""
        return self._monitor.best

    def on_run_begin(self, trainer: "Trainer") -> None:
        self._monitor.begin()
        self._bad = 0
        if self._weights is not None:
            self._weights.on_run_begin(trainer)

    def on_fit_begin(self, trainer: "Trainer", epochs: int, steps_per_epoch: int) -> None:
        if self._weights is not None:
            self._weights.on_fit_begin(trainer, epochs, steps_per_epoch)

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        if self._weights is not None:
            self._weights.on_regroup(trainer, newcomers)

    def on_resume(self, trainer: "Trainer") -> None:
        if self._weights is not None:
            self._weights.on_resume(trainer)

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        self._bad = 0 if self._monitor.improved(trainer, record) else self._bad + 1
        trainer.stop = trainer.stop or self._bad >= self.patience
        if self._weights is not None:
            self._weights.on_epoch_end(trainer, record)

    def on_fit_end(self, trainer: "Trainer", history: list[Record]) -> None:
        if self._weights is None:
            self._monitor.end(trainer)
        else:
            self._weights.on_fit_end(trainer, history)

    def state(self) -> dict[str, Any]:
        weights = {} if self._weights is None else self._weights.state()
        own = {"best": self.best, "bad": self._bad}
        return own | {f"best_weights.{name}": entry for name, entry in weights.items()}

    def state_schema(self, state: State) -> Schema:
        result: dict[str, Entry] = {"best": NUMBER, "bad": integer(0)}
        if self._weights is not None:
            schema = self._weights.state_schema(below("best_weights", state))
            result |= {f"best_weights.{name}": entry for name, entry in schema.items()}
        return result

    def load_state(self, state: State) -> None:
        self._monitor.best = state["best"]
        self._bad = state["bad"]
        if self._weights is not None:
            self._weights.load_state(below("best_weights", state))
