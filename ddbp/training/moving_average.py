"""The exponential moving average of the weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.data.source import Dataset
from ddbp.reduction.partition import Partition
from ddbp.snapshot import Schema, State, integer, like
from layers.checks import boolean, fraction
from layers.errors import message
from layers.kernels import optimizer as kernels
from layers.kernels import underflow
from layers.types import Array, Integers

from .callbacks import OptionsCallback, Record
from .modify import modified, modify_parameters

if TYPE_CHECKING:
    from .trainer import Trainer

_OWNER = "ExponentialMovingAverage"
_Modifying = Callable[["Trainer"], AbstractContextManager[bool]]


class ExponentialMovingAverage(OptionsCallback):
    """Keeps a = d a + (1 - d) w of all parameters after each update (Polyak and Juditsky 1992, with
    exponential weights), which often generalises better than the last w.

    Each rank keeps the part that it updates. The first update gives a = w. Running statistics of
    batch norms are not averaged.

    Parameters
    ----------
    decay
        d, in [0, 1): about 1 / (1 - d) updates count.
    warm_up
        Whether d is at most (1 + t) / (10 + t) in update t, so that the first ones are forgotten
        sooner.
    validation
        Evaluated with the average at the end of each epoch, as `average_loss` and so on in the
        record.

    Attributes
    ----------
    updates
        How many are in the average.
    """

    def __init__(
        self,
        decay: float = 0.999,
        *,
        warm_up: bool = True,
        validation: Dataset | None = None,
    ) -> None:
        self.decay = fraction(_OWNER, "decay", decay, "0.999 is usual.")
        self.warm_up = boolean(_OWNER, "warm_up", warm_up)
        self.validation = validation
        self.updates = 0
        self._part: Partition | None = None

    def on_attach(self, trainer: "Trainer") -> None:
        self.updates = 0
        self._loaded: State = {}
        self._follow(trainer)

    def _follow(self, trainer: "Trainer") -> None:
        """Go on with the partition of a trainer, of which there is no average yet."""
        self._part = part = trainer.partition
        self._slots = trainer.comm.slots
        self._before: Array | None = None
        if not trainer.comm.survives:
            self._average = part.zeros()
            return
        # An update reads one array and writes the other, so that it can be done again.
        self._names = [f"average {id(self)} {number}" for number in range(2)]
        self._average, self._before = map(part.shared, self._names)
        # How many updates each slot has taken part in since then.
        self._counts: Integers = trainer.comm.host_array((1 + max(self._slots),), np.int64)
        self._counted = self.updates

    def on_freeze(self, trainer: "Trainer") -> None:
        assert self._part is not None
        known = self._part.to_named(self._average)
        self._follow(trainer)
        # Of what has just been unfrozen all values were the same so far.
        named = self._part.to_named(self._part.values)
        self._part.from_named(self._average, {name: known.get(name, named[name]) for name in named})

    def on_regroup(self, trainer: "Trainer", newcomers: bool) -> None:
        if newcomers:
            self._follow(trainer)
            trainer.partition.from_named(self._average, self._loaded)
            self._loaded = {}
            return
        self._part = trainer.partition
        self._average, self._before = map(self._part.shared, self._names)
        if (self._counts[self._slots] < self.updates - self._counted).any():
            # Whoever is lost in it is lost before the next step: parameters are the same still.
            self._update()
        self._slots = trainer.comm.slots

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        self.updates += 1
        if self._before is not None:
            self._names.reverse()
            self._average, self._before = self._before, self._average
        self._update()
        if self._before is not None:
            self._counts[trainer.comm.slot] = self.updates - self._counted

    def _update(self) -> None:
        assert self._part is not None
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates) if self.warm_up else 1.0)
        if self.updates == 1:
            decay = 0.0
        if self._before is not None:
            self._average[...] = self._before
        mode = underflow.flush()
        try:
            for chunk in self._part.chunks:
                kernels.average(self._average[chunk.start : chunk.stop], chunk.values, decay)
        finally:
            underflow.restore(mode)

    def on_epoch_end(self, trainer: "Trainer", record: Record) -> None:
        if self.validation is not None:
            with self.applied(trainer):
                values = trainer.evaluate(self.validation)
            record |= {f"average_{name}": value for name, value in values.items()}

    @contextmanager
    def applied(self, trainer: "Trainer") -> Iterator[None]:
        """Return a context in which the parameters are the averages; collective.

        >>> with average.applied(trainer):
        ...     ddbp.save_parameters(trainer.model, "average.safetensors")
        """
        with trainer._update.resting():
            kept = {name: p.value.copy() for name, p in trainer.model.named_parameters()}
            self._apply(trainer, modified)
            try:
                yield
            finally:
                trainer.recovered(_set_parameters, trainer, kept, modified)

    def apply(self, trainer: "Trainer") -> None:
        """Set the parameters to the averages; collective.

        Raises
        ------
        RuntimeError
            There has been no update yet, or another trainer has been made with this callback since.
        """
        self._apply(trainer, modify_parameters)

    def _apply(self, trainer: "Trainer", modifying: _Modifying) -> None:
        if self._part is not trainer.partition or not self.updates:
            must, fix = "there must be an average", "Pass it to Trainer in callbacks=, and train."
            raise RuntimeError(message(_OWNER, must, f"{self.updates} updates", fix))
        average = trainer.recovered(lambda: trainer.partition.to_named(self._average))
        trainer.recovered(_set_parameters, trainer, average, modifying)

    def state(self) -> dict[str, Any]:
        assert self._part is not None
        return {"updates": self.updates, **self._part.pieces(self._average)}

    def state_schema(self, state: State) -> Schema:
        return {**like(self.state()), "updates": integer(0)}

    def load_state(self, state: State) -> None:
        assert self._part is not None
        self.updates = state["updates"]
        self._loaded = state if self._before is not None else {}
        self._part.from_named(self._average, state)


def _set_parameters(trainer: "Trainer", values: Mapping[str, Array], modifying: _Modifying) -> None:
    with modifying(trainer) as mine:
        if mine:
            for name, parameter in trainer.model.named_parameters():
                if name in values:
                    parameter.value = values[name]
