"""Updates block by block, which can be finished by others, and find bits that have changed."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from ddbp.reduction.partition import Chunk, Partition
from layers.kernels.updates import CELLS, CHECK_ALL, DONE, UNDO_BLOCK, kernel_of
from layers.types import Array, Integers

from .checksums import Checksums, block_count
from .journal import Journal

_NO_RUNS = np.zeros((0, 2), np.int64)
_NO_CELLS = np.zeros(0, np.int64)


class Blockwise:
    """Runs the kernels of updates on the chunks of a partition, block by block.

    Parameters
    ----------
    part
        The partition.
    chunks
        Its chunks, with the moments of each.
    journal
        Where blocks are copied to before they are changed, if anywhere.
    checksums
        What blocks must be before, and are after, if that is checked.
    """

    def __init__(
        self,
        part: Partition,
        chunks: Sequence[tuple[Chunk, Mapping[str, Array]]],
        journal: Journal | None,
        checksums: Checksums | None,
    ) -> None:
        self._journal = journal
        self._factors = np.empty(UNDO_BLOCK, part.gradient.dtype)
        self._checksums = checksums
        self._collected = np.empty(
            max((c.stop - c.start for c in part.chunks), default=0), part.gradient.dtype
        )
        self._places: dict[int, tuple[tuple[Array, ...], Integers, int, Array | None]] = {}
        before = 0
        for chunk, moments in chunks:
            runs = np.array(chunk.regularized, np.int64).reshape(-1, 2)
            sums = None if checksums is None else checksums.of[chunk.start]
            changed = (chunk.values, *moments.values())
            self._places[chunk.start] = changed, runs, before, sums
            before += block_count(chunk)

    def detached(self, part: Partition, chunk: Chunk) -> Chunk:
        """Return a chunk whose gradient may be changed: what has been collected must stay as it is
        for whoever finishes.
        """
        if self._journal is None or not part.collected:
            return chunk
        gradient = self._collected[: chunk.stop - chunk.start]
        gradient[:] = chunk.gradient
        return chunk._replace(gradient=gradient)

    def __call__(
        self, formula: Callable[..., Any], chunk: Chunk, scalars: tuple[Any, ...], factor: float
    ) -> None:
        """Multiply what is regularized of a chunk by a factor, and update it by a formula."""
        changed, runs, before, sums = self._places[chunk.start]
        journal, checksums = self._journal, self._checksums
        cells = _NO_CELLS if journal is None else journal.cells
        while True:
            found = kernel_of(formula)(
                changed,
                chunk.gradient,
                _NO_RUNS if factor == 1 else runs,
                factor,
                self._factors,
                None if journal is None else journal.log,
                cells,
                before,
                chunk.start,
                sums,
                CHECK_ALL if checksums is None else checksums.first,
                scalars,
            )
            if found < 0 or checksums is None:
                return
            # It goes on behind the block, unless that is refused.
            block = checksums.differ(found, chunk)
            cells = cells if len(cells) else np.zeros(CELLS, np.int64)
            cells[DONE] = before + block + 1


def update_unguarded(
    formula: Callable[..., Any],
    changed: tuple[Array, ...],
    gradient: Array,
    scalars: tuple[Any, ...],
) -> None:
    """Update values and moments, arrays (n,), by a formula, without looking at anything."""
    factors = _ones(gradient.dtype)
    kernel_of(formula)(
        changed, gradient, _NO_RUNS, 1.0, factors, None, _NO_CELLS, 0, 0, None, CHECK_ALL, scalars
    )


@cache
def _ones(dtype: np.dtype[Any]) -> Array:
    return np.ones(UNDO_BLOCK, dtype)
