"""What instruments measure of parameters: their norms, those of their gradients, of all and of
shards, and of what updates add to them.
"""

from typing import Any

import numpy as np

from ddbp.reduction.partition import Chunk, Partition
from layers import FlatParameters, Module, Parameter, TapeHook
from layers.engine.fixed_tree import tree_sum
from layers.engine.memory import flat
from layers.engine.parameter import unique_parameters
from layers.kernels import measure, reduce
from layers.kernels.measure import BINS
from layers.types import Array

from .clock import StepClock
from .layer_gauge import Measures

_TINY = 2.0**-24
"""What is smaller is rounded to 0 or to this in half precision."""
_APART = 1e-3


class ShardNorms(TapeHook):
    """Measures the gradients of this rank's shards where only their sums are kept: when the last
    use of a parameter has contributed.

    Parameters
    ----------
    parameters
        The parameters.
    shards
        How many shards this rank has.

    Attributes
    ----------
    flat
        The parameters.
    squares
        Sums of squares (shards, parameters).
    """

    def __init__(self, parameters: FlatParameters, shards: int) -> None:
        self.flat = parameters
        self.squares = np.zeros((shards, len(parameters.parameters)))
        self._numbers = {id(each): i for i, each in enumerate(parameters.parameters)}
        segments = [(start, stop) for _, _, start, stop in parameters.segments()]
        self._segments = np.array(segments, np.int64)

    @property
    def apart(self) -> bool:
        """Whether the gradients of shards are kept until the exchange."""
        return len(self.flat.gradients) == len(self.squares)

    def on_parameter_ready(self, parameter: Parameter) -> None:
        store: Any = parameter.store
        number = self._numbers.get(id(parameter))
        if number is None or store.stale or store.apart is None:
            return
        whole, found = np.array([[0, parameter.size]]), np.zeros(1)
        for s, gradient in enumerate(store.apart):
            reduce.square_sums(found, flat(gradient), whole)
            self.squares[s, number] = found[0]

    def begin(self) -> None:
        """Begin a step."""
        self.squares[...] = 0

    def collect(self) -> None:
        """Measure what is kept, when all gradients are there."""
        if self.apart:
            self.flat.complete()
            for into, row in zip(self.squares, self.flat.gradients, strict=True):
                reduce.square_sums(into, row, self._segments)

    def totals(self) -> Array:
        """Return the sums over all parameters, in their order (shards,)."""
        result = np.zeros(len(self.squares))
        reduce.row_sums(result, self.squares)
        return result


class ParameterGauge:
    """Measures what this rank updates of the parameters, before and after.

    Parameters
    ----------
    model
        Its parameters, frozen ones too, are the columns.
    clock
        What is told of the phases of the update.

    Attributes
    ----------
    parameters
        The names of the columns.
    """

    def __init__(self, model: Module, clock: StepClock) -> None:
        self.parameters = [name for name, _ in unique_parameters(model)]
        self._clock = clock
        self._part: Partition | None = None
        self._before = np.zeros(0)
        self._gradient = np.zeros(0)
        self._step = np.zeros(0)

    def follow(self, part: Partition) -> None:
        """Go on with a partition, if it is another one."""
        if part is self._part:
            return
        self._part = part
        self._before, self._gradient, self._step = part.zeros(), part.zeros(), part.zeros()
        self._given: Array | None = None
        self._measures = Measures(part.gradient.dtype)
        place = {name: i for i, name in enumerate(self.parameters)}
        self._places = np.array([place[name] for name in part.names])
        spans = [(span.start, span.stop) for span in part.spans]
        self._spans = np.array(spans, np.int64).reshape(-1, 2)
        self._numbers = [span.parameter for span in part.spans]
        self._found = np.zeros((len(spans), BINS))
        sizes = [int(np.prod(shape)) for shape in part.shapes]
        self._sizes = np.array(sizes, np.float64)[:, np.newaxis]

    def keep(self, part: Partition) -> None:
        """Keep the gradient that the optimizer has got in the step before the one that begins, for
        what transforms make of this one's.
        """
        self.follow(part)
        if self._given is None:
            self._given = part.zeros()
            # Nothing has been written there yet.
            return
        self._given[:] = part.gradient

    def follows(self, part: Partition) -> bool:
        """Return whether it has measured the last update of a partition."""
        return part is self._part

    def watch(self) -> None:
        """Watch the update that begins."""
        assert self._part is not None
        self._clock.pause()
        self._part.watcher = self
        self._before[:] = self._part.values
        self._clock.go_on()

    def leave(self) -> None:
        """Watch no more."""
        if self._part is not None:
            self._part.watcher = None

    def on_fetch_begin(self) -> None:
        """Count what was before as the optimizer's."""
        self._clock.mark("optimizer")

    def on_fetch_end(self, chunk: Chunk) -> None:
        """Keep a chunk's gradient: its memory is that of the next one, too."""
        self._clock.mark("reduction")
        self._clock.pause()
        self._gradient[chunk.start : chunk.stop] = chunk.gradient
        self._clock.go_on()

    def transformed(self) -> dict[str, Array]:
        """Return what transforms have made of the gradient; collective.

        What the optimizer got, y, is fitted by a g + b y', the measured gradient and what it got in
        the step before: with a = 1, b is how much of that is kept.
        """
        part, before, measured = self._part, self._given, self._gradient
        kept = lost = np.nan
        if part is not None and before is not None:
            given = part.gradient
            terms = (
                (measured, measured),
                (measured, before),
                (before, before),
                (given, measured),
                (given, before),
                (given, given),
            )
            sums = part.sums_of_parameters(measure.products, *terms)
            kept = _kept(*np.array([tree_sum(sums[:, i]) for i in range(len(terms))]))
            size = np.abs(measured)
            cut = (given == 0) & (size > 0)
            tiny = cut & (size < _TINY)
            counts = np.array([np.count_nonzero(each) for each in (size, cut, tiny)], np.int64)
            nonzero, cut, tiny = part.comm.all_gather(counts).sum(axis=0).tolist()
            # What is left out for another reason is not lost.
            lost = tiny / nonzero if nonzero and tiny > 0.9 * cut else 0.0
        return {"gradient_kept": np.array([kept]), "gradient_lost": np.array([lost])}

    def row(self) -> dict[str, Array]:
        """Return what is recorded, after the update; collective."""
        part = self._part
        assert part is not None
        np.subtract(part.values, self._before, out=self._step)
        before, gradient, step = self._before, self._gradient, self._step
        terms = (before, before), (gradient, gradient), (step, step), (gradient, step)
        *squares, along = part.sums_of_parameters(measure.products, *terms).T
        weights, gradients, updates = np.sqrt(squares)
        counts = np.zeros((2, part.parameters, BINS))
        for into, array in zip(counts, (self._gradient, self._step), strict=True):
            self._measures.magnitudes(self._found, array, self._spans)
            np.add.at(into, self._numbers, self._found)
        # Whole numbers: in whatever order they are added.
        shares = part.comm.all_gather(counts).sum(axis=0) / self._sizes
        with np.errstate(all="ignore"):
            ratio = updates / np.where(weights > 0, weights, np.nan)
            lengths = gradients * updates
            cosine = along / np.where(lengths > 0, lengths, np.nan)
        return {
            "parameter_norm": self._of_all(weights),
            "gradient_norm": self._of_all(gradients),
            "gradient_histogram": self._of_all(shares[0]),
            "update_norm": self._of_all(updates),
            "update_histogram": self._of_all(shares[1]),
            "update_ratio": self._of_all(ratio),
            "update_cosine": self._of_all(cosine),
        }

    def _of_all(self, found: Array) -> Array:
        """Return the numbers of the parameters that are trained among those of all: NaN for
        others.
        """
        if len(self._places) == len(self.parameters):
            return found
        result = np.full((len(self.parameters), *found.shape[1:]), np.nan)
        result[self._places] = found
        return result


def _kept(gg: float, gp: float, pp: float, yg: float, yp: float, yy: float) -> float:
    """Return b where y = g + b p, by the products of the three; NaN where it is something else."""
    free = gg * pp - gp * gp
    if not free > _APART * gg * pp:
        return np.nan
    a, b = (pp * yg - gp * yp) / free, (gg * yp - gp * yg) / free
    rest = yy - a * yg - b * yp
    return float(b) if abs(a - 1) < _APART and abs(rest) < _APART**2 * yy else np.nan
