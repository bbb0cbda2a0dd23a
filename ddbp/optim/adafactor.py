"""Adafactor: second moments of rows and columns in place of those of elements."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddbp.reduction.corruption import MemoryCorruptionError
from ddbp.reduction.partition import Partition
from ddbp.snapshot import State
from layers.checks import boolean, non_negative, number, positive
from layers.engine.fixed_tree import tree_sum
from layers.errors import message
from layers.kernels import factored, updates
from layers.kernels import optimizer as kernels
from layers.kernels.elementary import power_of_number
from layers.kernels.updates import BEGUN, CHECK_ALL, NOTE, SUM_WORDS, UNDO_BLOCK, block_sums
from layers.types import Array

from .blockwise import update_unguarded
from .checksums import Memory
from .eight_bits import no_state_bits
from .groups import Groups
from .journal import Journal
from .optimizer import Optimizer
from .schedule import Schedule


class Adafactor(Optimizer):
    """Steps like Adam's, with a second moment of each row and of each column in place of each
    element (Shazeer and Stern 2018, algorithms 4 and 5), as in PyTorch.

    With β = 1 - t^`beta2_decay`, r = β r + (1 - β) mean of g² over each row and c likewise over
    each column, v_ij = r_i c_j / max(mean of r, ε₁), u = g / max(√v, ε₁), and w -= α u / max(1,
    RMS(u) / `clip_threshold`). The step α is η, or if it is `relative`, min(η, 1 / √t) max(ε₂,
    RMS(w)). A weight of more axes, (…, F) of a convolution, is a matrix of F columns; of a vector
    each element has a moment.

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    beta2_decay
        At most 0.
    epsilons
        ε₁ and ε₂, at least 0; None is the machine epsilon of the parameters' type.
    clip_threshold
        The root mean square that u is limited to, above 0.
    relative
        Whether a step is a fraction of the parameter's size.
    weight_decay
        λ: w *= 1 - η λ before the update, for weights, not for biases.
    groups
        Options of their own for some parameters: see `Optimizer`.

    Notes
    -----
    A matrix (R, C) takes 16 (R + C) bytes on every rank, those of before an update included. Sums
    over rows and columns are sums of integers of 62 bits, so that their order, and the number of
    ranks, does not matter.
    """

    whole = True
    decoupled = True

    @no_state_bits("it keeps next to nothing")
    def __init__(
        self,
        learning_rate: float | Schedule = 1e-2,
        *,
        beta2_decay: float = -0.8,
        epsilons: tuple[float | None, float] = (None, 1e-3),
        clip_threshold: float = 1.0,
        relative: bool = True,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, groups=groups)
        usual = "Write beta2_decay=-0.8, which is usual."
        self.beta2_decay = number("Adafactor", "beta2_decay", beta2_decay, usual)
        if self.beta2_decay > 0:
            must = "beta2_decay must be at most 0"
            raise ValueError(message("Adafactor", must, beta2_decay, usual))
        self.epsilons = _epsilons(epsilons)
        self.clip_threshold = positive(
            "Adafactor", "clip_threshold", clip_threshold, "1 is usual.", finite=True
        )
        self.relative = boolean("Adafactor", "relative", relative)

    def allocate(self, part: Partition) -> None:
        super().allocate(part)
        self._factors = _Factors(part)

    def update_slice(self, part: Partition, rate: float) -> None:
        if self.group == 0:
            weights = [
                power_of_number(float(member.steps), member.beta2_decay)
                for member in self.members
                if isinstance(member, Adafactor)
            ]
            self._factors.follow(part, np.array(weights)[part.groups])
        low = self.epsilons[0]
        low = float(np.finfo(part.gradient.dtype).eps) if low is None else low
        sizes = part.parameter_norms(part.values)
        for span in self.spans(part):
            g = part.gradient[span.start : span.stop]
            rows, columns = self._factors.scales(span.parameter, low, g.dtype)
            factored.factored_direction(g, span.offset, rows, columns, low)
        directions = part.parameter_norms(part.gradient)
        for span in self.spans(part):
            g = part.gradient[span.start : span.stop]
            root = math.sqrt(math.prod(part.shapes[span.parameter]))
            step = rate
            if self.relative:
                size = float(sizes[span.parameter]) / root
                step = min(rate, 1 / math.sqrt(self.steps)) * max(self.epsilons[1], size)
            step /= max(1.0, float(directions[span.parameter]) / (root * self.clip_threshold))
            if span.regularized and self.weight_decay:
                kernels.scale(span.values, 1 - rate * self.weight_decay)
            update_unguarded(updates.gradient_descent, (span.values,), g, (step,))

    # The moments are on all ranks, and go on with each.

    @property
    def held(self) -> dict[str, Array]:
        return {**super().held, **self._factors.named}

    def move(self, part: Partition, journal: Journal | None = None) -> None:
        before = self._factors
        super().move(part, journal)
        self._factors.take(before.named)

    def follow(self, part: Partition, journal: Journal) -> None:
        before = self._factors
        super().follow(part, journal)
        self._factors.take(before.named)

    def undo(self, lost: Sequence[tuple[Partition, Mapping[str, Array], int]]) -> None:
        assert self.journal is not None
        if self.journal.cells[BEGUN]:
            self._factors.undo()
        super().undo(lost)

    def verify(self) -> None:
        super().verify()
        if self.memory is Memory.CHECKED:
            self._factors.verify(self.steps)

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            **{name: array.copy() for name, array in self._factors.named.items()},
        }

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self._factors.take(state)


def _epsilons(given: Any) -> tuple[float | None, float]:
    """Return ε₁, which may be None, and ε₂, each at least 0."""
    if not (isinstance(given, tuple | list) and len(given) == 2):
        must, fix = "epsilons must be a pair of numbers", "epsilons=(None, 1e-3) are usual."
        raise ValueError(message("Adafactor", must, repr(given), fix))
    first, second = given
    least = None if first is None else non_negative("Adafactor", "epsilons", first)
    return least, non_negative("Adafactor", "epsilons", second)


class _Place(NamedTuple):
    """Where the moments of a parameter are among those of all.

    Attributes
    ----------
    rows, columns
        Their places; a vector is one row.
    factored
        Whether it is a matrix.
    """

    rows: slice
    columns: slice
    factored: bool

    def of(self, array: Array) -> tuple[Array, Array]:
        """Return the parts of an array of all moments."""
        return array[self.rows], array[self.columns]


class _Factors:
    """The second moments of rows and columns, the same on all ranks.

    Parameters
    ----------
    part
        What this rank updates.

    Attributes
    ----------
    named
        Views of them, by names in a state.
    """

    def __init__(self, part: Partition) -> None:
        self._places: list[_Place] = []
        counts: list[int] = []
        for shape in part.shapes:
            rows, columns = math.prod(shape[:-1]), math.prod(shape[-1:])
            start, middle = len(counts), len(counts) + rows
            counts += [columns] * rows + [rows] * columns
            place = slice(start, middle), slice(middle, len(counts))
            self._places.append(_Place(*place, len(shape) > 1))
        self._counts = np.array(counts)
        # Squares below 2^(2 bits), as many as are added, stay below 2^62.
        bits = {count: (62 - count.bit_length()) // 2 for count in {*counts}}
        self._bits = np.array([bits[count] for count in counts], np.int64)
        self._values = np.zeros(len(counts))
        self._before = np.zeros(len(counts))
        self._sums = np.zeros((-(-len(counts) // UNDO_BLOCK), 1, SUM_WORDS), np.uint32)
        self._noted = False
        self.named = {
            f"{kind}.{name}": array
            for name, place in zip(part.names, self._places, strict=True)
            for kind, array in zip(("row", "column"), place.of(self._values), strict=True)
        }

    def follow(self, part: Partition, weights: Array) -> None:
        """Have them follow the mean squares of the gradient, with a weight for each parameter;
        collective.
        """
        self._before[...] = self._values
        maxima = np.zeros_like(self._values)
        for span in part.spans:
            g = part.gradient[span.start : span.stop]
            factored.factor_maxima(*self._places[span.parameter].of(maxima), g, span.offset)
        maxima = part.comm.all_gather(maxima).max(axis=0)
        finite = np.isfinite(maxima)
        exponents = np.frexp(np.where(finite, maxima, 0))[1]
        scales = np.ldexp(1.0, np.minimum(self._bits - exponents, 1000))
        sums = np.zeros(maxima.size, np.int64)
        for span in part.spans:
            place, g = self._places[span.parameter], part.gradient[span.start : span.stop]
            factored.factor_sums(*place.of(sums), g, span.offset, *place.of(scales))
        total = part.comm.all_gather(sums).sum(axis=0)
        means = np.where(finite, total / scales / scales / self._counts, maxima)
        for place, weight in zip(self._places, weights, strict=True):
            both = slice(place.rows.start, place.columns.stop)
            self._values[both] += weight * (means[both] - self._values[both])
        block_sums((self._values,), self._sums, NOTE)
        self._noted = True

    def scales(self, parameter: int, least: float, dtype: Any) -> tuple[Array, Array]:
        """Return factors of rows and of columns whose products are second moments of elements."""
        place = self._places[parameter]
        rows, columns = place.of(self._values)
        if not place.factored:
            return np.ones(1, dtype), columns.astype(dtype)
        mean = float(tree_sum(rows)) / rows.size
        return (rows / max(mean, least)).astype(dtype), columns.astype(dtype)

    def take(self, named: Mapping[str, Any]) -> None:
        """Take what there is of them by names in a state."""
        for name, array in self.named.items():
            if name in named:
                array[...] = np.asarray(named[name])
        self._noted = False

    def undo(self) -> None:
        """Take back the last `follow`."""
        self._values[...] = self._before
        self._noted = False

    def verify(self, step: int) -> None:
        """See to it that they are what the last `follow` has left, ahead of the update of a step.

        Raises
        ------
        MemoryCorruptionError
            Bits have changed since.
        """
        if self._noted and block_sums((self._values,), self._sums, CHECK_ALL) >= 0:
            must = "moments must be what the last update has left"
            got = f"other bits in those of rows and columns, ahead of the update of step {step}"
            raise MemoryCorruptionError(must, got)
