"""This rank's slice of the flat arrays, as optimizers see it."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from layers.kernels import optimizer as kernels
from layers.kernels import reduce
from layers.types import Array

from .reduction import Reduction
from .shards import tree_total

CHUNK = 64 * reduce.BLOCK
"""Elements that are reduced and updated at a time: their sum is still in the second-level cache when the optimizer reads it."""


class Chunk(NamedTuple):
    """A part of the slice.

    Attributes
    ----------
    start, stop
        Where in the slice.
    values, gradient
        Views of the parameters and of their gradient, (stop - start,).
    regularized
        Runs [start, stop) of the chunk to which L1, L2 and weight decay apply.
    """

    start: int
    stop: int
    values: Array
    gradient: Array
    regularized: list[tuple[int, int]]


class Slice:
    """What a rank updates.

    Parameters
    ----------
    reduction
        Where gradients come from.
    whole
        Whether the gradient of the whole slice is wanted at once, for norms; else it exists chunk by chunk.
    adjust
        Called with each chunk when its gradient is there, and scaled.

    Attributes
    ----------
    values
        Parameters of the slice (m,), a view.
    gradient
        After `collect`: the gradient (m,), if `whole`.
    chunks
        The parts of the slice; `fetch` gives a chunk its gradient.
    scale
        What the sum of the gradients is multiplied by.
    """

    def __init__(self, reduction: Reduction, *, whole: bool = False, adjust: Callable[[Chunk], None] | None = None) -> None:
        self._reduction, self._comm = reduction, reduction.comm
        self._adjust, self._collected, self.scale = adjust, False, 1.0
        self._flat = flat = reduction.flat
        size = reduction.stop - reduction.start
        self.values: Array = flat.values[reduction.start : reduction.stop]
        whole = whole or reduction.alone is not None
        self.gradient: Array = np.empty(size if whole else min(size, CHUNK), flat.dtype)
        if reduction.alone is not None:
            self.gradient = reduction.alone
        regularized = self._cut_into_pieces(reduction.start, reduction.stop)
        self.chunks: list[Chunk] = []
        for a in range(0, size, CHUNK):
            b = min(a + CHUNK, size)
            runs = [(max(start, a) - a, min(stop, b) - a) for start, stop in regularized if start < b and stop > a]
            gradient = self.gradient[a:b] if whole else self.gradient[: b - a]
            self.chunks.append(Chunk(a, b, self.values[a:b], gradient, runs))

    def _cut_into_pieces(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Cut the slice into pieces whose norms are the same for any number of ranks, and return its regularized runs."""
        regularized = []
        pieces, owners = [], []
        for number, (_, parameter, begin, end) in enumerate(self._flat.segments()):
            # At block bounds, as slices are cut.
            cuts = [begin, *range((begin // reduce.BLOCK + 1) * reduce.BLOCK, end, reduce.BLOCK), end]
            inside = [(a - start, b - start) for a, b in pairwise(cuts) if start <= a and b <= stop]
            pieces += inside
            owners += [number] * len(inside)
            if parameter.regularized and inside:
                regularized.append((inside[0][0], inside[-1][1]))
        self._pieces = np.array(pieces, np.int64).reshape(-1, 2)
        counts = self._comm.all_gather(np.array([len(pieces)], np.int64))[:, 0]
        padded = np.full(int(counts.max()), -1, np.int64)
        padded[: len(owners)] = owners
        gathered = self._comm.all_gather(padded)
        self._present = gathered >= 0
        self._owner_of_piece = gathered[self._present]
        self.parameters = len(self._flat.parameters)
        self._own_parameter = np.array(owners, np.int64)
        return regularized

    def fetch(self, chunk: Chunk) -> None:
        """Give a chunk its gradient; the one before may lose its own."""
        if self._collected:
            return
        if self._reduction.alone is None:
            self._reduction.sum(chunk.gradient, chunk.start)
        if self.scale != 1:
            kernels.scale(chunk.gradient, self.scale)
        if self._adjust is not None:
            self._adjust(chunk)

    def collect(self) -> None:
        """Give all chunks their gradients."""
        for chunk in self.chunks:
            self.fetch(chunk)
        self._collected = True

    def forget(self) -> None:
        """Let the next `fetch` or `collect` begin anew, with the gradients of another step."""
        self._collected = False

    # Norms

    def _piece_sums(self, kernel: Any, array: Array) -> Array:
        """Return the sums of all pieces of all ranks, in the order of the flat array."""
        sums = np.zeros(self._present.shape[1])
        kernel(sums[: len(self._pieces)], array, self._pieces)
        result: Array = self._comm.all_gather(sums)[self._present]
        return result

    def square_norm(self, array: Array) -> float:
        """Return the squared Euclidean norm of an array over all slices; collective."""
        return float(tree_total(self._piece_sums(reduce.square_sums, array)))

    def parameter_norms(self, array: Array) -> Array:
        """Return the Euclidean norm of each parameter's part of an array over all slices; collective."""
        sums = self._piece_sums(reduce.square_sums, array)
        return np.sqrt([float(tree_total(sums[self._owner_of_piece == number])) for number in range(self.parameters)])

    def penalty(self, l1: float, l2: float) -> float:
        """Return l1 |w|_1 + l2 |w|^2 / 2 of the regularized parameters; collective."""
        chosen = np.array([parameter.regularized for parameter in self._flat.parameters])[self._owner_of_piece]
        absolute = tree_total(self._piece_sums(reduce.absolute_sums, self.values)[chosen]) if l1 else 0.0
        squares = tree_total(self._piece_sums(reduce.square_sums, self.values)[chosen]) if l2 else 0.0
        return float(l1 * absolute + l2 * squares / 2)

    def runs(self) -> list[tuple[int, int, int, bool]]:
        """Return (parameter number, start, stop, whether it is regularized) of each parameter's run in the slice."""
        result = []
        for number in np.unique(self._own_parameter).tolist():
            mine = self._pieces[self._own_parameter == number]
            result.append((number, int(mine[0, 0]), int(mine[-1, 1]), self._flat.parameters[number].regularized))
        return result
