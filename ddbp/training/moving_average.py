"""The exponential moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddbp.reduction.partition import Partition
from ddbp.snapshot import Schema, State, integer, like
from layers.checks import fraction
from layers.errors import message
from layers.kernels import optimizer as kernels
from layers.kernels import underflow
from layers.types import Array

from .callbacks import OptionsCallback, Record
from .data import ArrayDataset
from .modify import modify_parameters

if TYPE_CHECKING:
    from .trainer import Trainer

_OWNER = "ExponentialMovingAverage"


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
        validation: ArrayDataset | None = None,
    ) -> None:
        self.decay = fraction(_OWNER, "decay", decay, "0.999 is usual.")
        self.warm_up = bool(warm_up)
        self.validation = validation
        self.updates = 0
        self._part: Partition | None = None

    def on_attach(self, trainer: "Trainer") -> None:
        self.updates = 0
        self._part = trainer.partition
        self._average = self._part.zeros()

    def on_freeze(self, trainer: "Trainer") -> None:
        assert self._part is not None
        known = self._part.to_named(self._average)
        self._part = trainer.partition
        # Of what has just been unfrozen all values were the same so far.
        named = self._part.to_named(self._part.values)
        self._average = self._part.zeros()
        self._part.from_named(self._average, {name: known.get(name, named[name]) for name in named})

    def on_step_end(self, trainer: "Trainer", step: int, loss: float) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates) if self.warm_up else 1.0)
        if self.updates == 1:
            decay = 0.0
        mode = underflow.flush()
        try:
            for chunk in trainer.partition.chunks:
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
        kept = {name: p.value.copy() for name, p in trainer.model.named_parameters()}
        self.apply(trainer)
        try:
            yield
        finally:
            _set_parameters(trainer, kept)

    def apply(self, trainer: "Trainer") -> None:
        """Set the parameters to the averages; collective.

        Raises
        ------
        RuntimeError
            There has been no update yet, or another trainer has been made with this callback since.
        """
        if self._part is not trainer.partition or not self.updates:
            must, fix = "there must be an average", "Pass it to Trainer in callbacks=, and train."
            raise RuntimeError(message(_OWNER, must, f"{self.updates} updates", fix))
        _set_parameters(trainer, self._part.to_named(self._average))

    def state(self) -> dict[str, Any]:
        assert self._part is not None
        return {"updates": self.updates, **self._part.pieces(self._average)}

    def state_schema(self, state: State) -> Schema:
        return {**like(self.state()), "updates": integer(0)}

    def load_state(self, state: State) -> None:
        assert self._part is not None
        self.updates = state["updates"]
        self._part.from_named(self._average, state)


def _set_parameters(trainer: "Trainer", values: Mapping[str, Array]) -> None:
    with modify_parameters(trainer) as mine:
        if mine:
            for name, parameter in trainer.model.named_parameters():
                if name in values:
                    parameter.value = values[name]
