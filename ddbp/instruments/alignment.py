"""How far the gradient of a learning rule is from the exact one of the same batch."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers import FlatParameters, TapeHook, Value
from layers.engine.fixed_tree import tree_sum
from layers.kernels import measure
from layers.types import Array

from .clock import StepClock

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer


class Alignment:
    """Measures the angle between the gradient that a rule gives and the exact one, by a second
    backward pass before that of the rule. Where several batches make a group it measures nothing.

    Parameters
    ----------
    parameters
        The names of the columns.
    clock
        What must not count the time that this takes.
    """

    def __init__(self, parameters: list[str], clock: StepClock) -> None:
        self._parameters = parameters
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        self._flat: FlatParameters | None = None
        self._exact: Array | None = None
        self._given: Array | None = None

    def before(self, trainer: "Trainer", loss: Value, gradient: Any) -> None:
        """Keep the exact gradient of a loss that the rule is to propagate next."""
        self.begin()
        group, flat = trainer._update.group, trainer._flat
        if group.batches:
            return
        self._clock.pause()
        # Others would take this pass for that of the step.
        with loss.tape.observed(TapeHook(), alone=True):
            loss.backward(gradient)
        flat.complete()
        self._flat, self._exact = flat, flat.gradients.copy()
        flat.zero_gradients()
        self._clock.go_on()

    def collect(self) -> None:
        """Keep what the rule has given, when all of it is there."""
        if self._flat is not None:
            self._flat.complete()
            self._given = self._flat.gradients.copy()

    def row(self, trainer: "Trainer") -> Array:
        """Return the angle of each parameter in degrees, NaN where one of both is 0; collective."""
        angles = np.full(len(self._parameters), np.nan)
        flat, exact, given = self._flat, self._exact, self._given
        if flat is None or exact is None or given is None:
            return angles
        exact, given = _total(trainer, exact), _total(trainer, given)
        segments = flat.segments()
        places = np.array([[start, stop] for _, _, start, stop in segments], np.int64)
        sums = np.empty((3, len(segments)))
        pairs = (exact, given), (exact, exact), (given, given)
        for into, pair in zip(sums, pairs, strict=True):
            measure.products(into, *pair, places)
        with np.errstate(all="ignore"):
            along, *squares = sums
            lengths = np.sqrt(squares[0]) * np.sqrt(squares[1])
            cosines = np.clip(along / np.where(lengths > 0, lengths, np.nan), -1, 1)
        columns = [self._parameters.index(name) for name, *_ in segments]
        angles[columns] = np.degrees(np.arccos(cosines))
        return angles


def _total(trainer: "Trainer", mine: Array) -> Array:
    """Return the sum over the shards of all ranks, by the fixed tree, of what this rank keeps of
    them; collective.
    """
    plan, comm = trainer._plan, trainer.comm
    kept = plan.apart if trainer._update.reducer.compressed is not None else plan.kept
    pieces = [kept(rank) for rank in range(plan.ranks)]
    padded = np.zeros((max(map(len, pieces)), mine.shape[1]), mine.dtype)
    padded[: len(mine)] = mine
    parts = zip(comm.all_gather(padded), pieces, strict=True)
    rows = np.concatenate([part[: len(sizes)] for part, sizes in parts])
    return tree_sum(rows, np.array([size for part in pieces for _, size in part]))
