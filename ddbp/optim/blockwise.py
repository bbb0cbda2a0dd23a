"""Updates block by block, which can be finished by others, and find bits that have changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddbp.reduction.partition import Chunk, Partition
from layers.kernels.optimizer import UNCHECKED, UNDO_BLOCK, by_blocks
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
        self._checksums = checksums
        self._no_log = np.zeros((0, UNDO_BLOCK), part.gradient.dtype)
        self._collected = np.empty(
            max((c.stop - c.start for c in part.chunks), default=0), part.gradient.dtype
        )
        self._places: dict[int, tuple[int, Integers, Array]] = {}
        before = 0
        for chunk, moments in chunks:
            runs = np.array(chunk.regularized, np.int64).reshape(-1, 2)
            sums: Array = np.zeros((block_count(chunk), 1 + len(moments)), np.uint32)
            if checksums is not None:
                sums = checksums.of[chunk.start]
            self._places[chunk.start] = before, runs, sums
            before += len(sums)

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
        self,
        kernel: Any,
        chunk: Chunk,
        moments: Mapping[str, Array],
        scalars: Sequence[Any],
        factor: float,
    ) -> None:
        """Multiply what is regularized of a chunk by a factor, and update it by a kernel."""
        before, runs, sums = self._places[chunk.start]
        journal, checksums = self._journal, self._checksums
        found = by_blocks(kernel)(
            (chunk.values, *moments.values()),
            chunk.gradient,
            _NO_RUNS if factor == 1 else runs,
            factor,
            self._no_log if journal is None else journal.log,
            _NO_CELLS if journal is None else journal.cells,
            before,
            chunk.start,
            sums,
            UNCHECKED if checksums is None else checksums.checks,
            tuple(scalars),
        )
        if checksums is not None:
            checksums.require_none(found, chunk, moments)
