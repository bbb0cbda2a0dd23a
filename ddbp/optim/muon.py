"""Muon: orthogonal steps for matrices."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from ddbp.comm.agreement import gather_uneven
from ddbp.reduction.partition import Partition
from layers import Parameter
from layers.checks import boolean, fraction, positive_int
from layers.errors import message
from layers.kernels import optimizer as kernels
from layers.kernels import orthogonal, reduce, updates
from layers.types import Array

from .adam import AdamW
from .blockwise import update_unguarded
from .eight_bits import no_state_bits
from .groups import Groups
from .schedule import Schedule

_COEFFICIENTS = 3.4445, -4.775, 2.0315
"""The quintic of Jordan et al. 2024, steepest at 0: five times it brings singular values of 0.01 to
between 0.7 and 1.2.
"""


class Muon(AdamW):
    """Momentum whose step is made orthogonal, for the weights that are matrices; `AdamW` for
    biases, gains and other weights (Jordan et al. 2024).

    m = μ m + (1 - μ) g, u = μ m + (1 - μ) g (m itself without `nesterov`), w *= 1 - η λ and
    w -= η · 0.2 √max(rows, columns) · O, where O is u with all its singular values brought near 1.
    The factor gives the step the size of AdamW's, so that one rate serves all parameters (Liu et
    al. 2025, eq. 4). A weight of more axes, (…, F) of a convolution, is a matrix of F columns.

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    momentum
        μ, in [0, 1).
    nesterov
        Whether to look ahead.
    iterations
        Of Newton and Schulz, for O.
    excluded
        Patterns, as of file names, of the weights that are AdamW's: embeddings, and the layer that
        gives the logits of a language model.
    betas, epsilon, weight_decay, groups
        As those of `AdamW`.

    Notes
    -----
    Each matrix (M, N), N at least M, is made orthogonal by one rank, in about 20 M² N operations,
    and ranks exchange the results.
    """

    whole = True

    @no_state_bits("it needs another array of that size beside its moments")
    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        iterations: int = 5,
        excluded: Sequence[str] = (),
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.1,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(
            learning_rate, betas=betas, epsilon=epsilon, weight_decay=weight_decay, groups=groups
        )
        self.momentum = fraction("Muon", "momentum", momentum, "0.95 is usual.")
        self.nesterov = boolean("Muon", "nesterov", nesterov)
        self.iterations = positive_int("Muon", "iterations", iterations, "5 is usual.")
        if isinstance(excluded, str):
            excluded = (excluded,)
        if not isinstance(excluded, list | tuple) or not all(
            isinstance(pattern, str) for pattern in excluded
        ):
            must, fix = (
                "excluded must be names, or patterns of names",
                'Write excluded=("head.*",).',
            )
            raise TypeError(message("Muon", must, repr(excluded), fix))
        self.excluded = tuple(excluded)

    def group_numbers(self, named: Mapping[str, Parameter]) -> dict[str, int]:
        for pattern in self.excluded:
            if not any(fnmatchcase(name, pattern) for name in named):
                fix = f"The parameters are {', '.join(named)}."
                must = "each excluded pattern must match a parameter"
                raise ValueError(message("Muon", must, repr(pattern), fix))
        return super().group_numbers(named)

    def allocate(self, part: Partition) -> None:
        super().allocate(part)
        self._direction = part.zeros()

    def prepare(self, part: Partition) -> None:
        self._matrices = [
            _Matrix(number, name, shape)
            for number, (name, shape) in enumerate(zip(part.names, part.shapes, strict=True))
            if len(shape) > 1
            and part.regularized[number]
            and part.groups[number] == self.group
            and not self._is_excluded(name)
        ]
        _share_out(self._matrices, part.comm.size)
        numbers = {matrix.number for matrix in self._matrices}
        spans = [*self.spans(part)]
        self._spans = [span for span in spans if span.parameter in numbers]
        self._others = [part.chunk(span) for span in spans if span.parameter not in numbers]

    def _is_excluded(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.excluded)

    def update_slice(self, part: Partition, rate: float) -> None:
        for chunk in self._others:
            self.decay(chunk, rate)
            self.update(chunk, self.moments_of(chunk), rate)
        for span in self._spans:
            place = slice(span.start, span.stop)
            kernels.muon_direction(
                self._direction[place],
                part.gradient[place],
                self.moments["mean"][place],
                self.momentum,
                self.nesterov,
            )
        steps = self._orthogonal_steps(part)
        for span in self._spans:
            kernels.scale(span.values, 1 - rate * self.weight_decay)
            rows, columns = steps[span.parameter].shape
            step = steps[span.parameter].reshape(-1)[span.offset : span.offset + span.values.size]
            scaled = rate * 0.2 * math.sqrt(max(rows, columns))
            update_unguarded(updates.gradient_descent, (span.values,), step, (scaled,))

    def _orthogonal_steps(self, part: Partition) -> dict[int, Array]:
        """Return what each matrix moves along, by its number; collective."""
        directions = part.to_named(self._direction)
        own = [
            orthogonal_factor(directions[matrix.name].reshape(matrix.rows, -1), self.iterations)
            for matrix in self._matrices
            if matrix.owner == part.comm.rank
        ]
        flat = np.concatenate([self._direction[:0], *(step.reshape(-1) for step in own)])
        parts = gather_uneven(part.comm, flat)
        steps, offsets = {}, [0] * len(parts)
        for matrix in self._matrices:
            start = offsets[matrix.owner]
            offsets[matrix.owner] = stop = start + matrix.rows * matrix.columns
            steps[matrix.number] = parts[matrix.owner][start:stop].reshape(matrix.rows, -1)
        return steps


class _Matrix:
    """A weight that is updated as a matrix.

    Attributes
    ----------
    number, name
        Of the parameter.
    rows, columns
        (…, F) has F columns.
    owner
        The rank that makes its steps orthogonal.
    """

    def __init__(self, number: int, name: str, shape: tuple[int, ...]) -> None:
        self.number = number
        self.name = name
        self.rows = math.prod(shape[:-1])
        self.columns = shape[-1]
        self.owner = 0

    @property
    def cost(self) -> int:
        """In multiplications of one iteration, about."""
        return self.rows * self.columns * min(self.rows, self.columns)


def _share_out(matrices: Sequence[_Matrix], ranks: int) -> None:
    """Give each matrix an owner, the dearest first, each to the rank with the least so far."""
    load = [0] * ranks
    for matrix in sorted(matrices, key=lambda matrix: -matrix.cost):
        matrix.owner = load.index(min(load))
        load[matrix.owner] += matrix.cost


def orthogonal_factor(matrix: Array, iterations: int = 5) -> Array:
    """Return U Vᵀ of a matrix U S Vᵀ (M, N), about: its singular values are between 0.7 and 1.2
    where those of the matrix over its Frobenius norm were above 0.01.

    The method is that of Jordan et al. 2024: x = a x + b (x xᵀ) x + c (x xᵀ)² x, from the matrix
    over its norm. A matrix of zeros stays one.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = np.array(matrix.T if tall else matrix, order="C")
    sums = np.empty(1)
    reduce.square_sums(sums, x.reshape(-1), np.array([[0, x.size]]))
    norm = math.sqrt(sums.item())
    rows = len(x)
    gram, polynomial = (np.empty((rows, rows), x.dtype) for _ in range(2))
    scale = 1 / norm if norm > 0 else 0.0
    orthogonal.newton_schulz(
        x, np.empty_like(x), gram, polynomial, x[0, :0], scale, *_COEFFICIENTS, iterations
    )
    return np.ascontiguousarray(x.T) if tall else x
