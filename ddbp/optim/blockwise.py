"""Updates block by block, which can be finished by others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddbp.reduction.partition import Chunk, Partition
from layers.kernels.optimizer import UNDO_BLOCK, by_blocks
from layers.types import Array, Integers

from .journal import Journal

_NO_RUNS = np.zeros((0, 2), np.int64)


class Blockwise:
    """Runs the kernels of updates on the chunks of a partition, block by block.

    Parameters
    ----------
    part
        The partition.
    arrays
        How many arrays the updates change at most: parameters and moments.
    journal
        Where blocks are copied to before they are changed.
    """

    def __init__(self, part: Partition, arrays: int, journal: Journal) -> None:
        self._journal = journal
        self._collected = np.empty(
            max((c.stop - c.start for c in part.chunks), default=0), part.gradient.dtype
        )
        self._places: dict[int, tuple[int, Integers, Integers]] = {}
        before = 0
        for chunk in part.chunks:
            blocks = -(-(chunk.stop - chunk.start) // UNDO_BLOCK)
            runs = np.array(chunk.regularized, np.int64).reshape(-1, 2)
            self._places[chunk.start] = before, runs, np.zeros((blocks, arrays), np.uint32)
            before += blocks

    def detached(self, part: Partition, chunk: Chunk) -> Chunk:
        """Return a chunk whose gradient may be changed: what has been collected must stay as it is
        for whoever finishes.
        """
        if not part.collected:
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
        by_blocks(kernel)(
            (chunk.values, *moments.values()),
            chunk.gradient,
            _NO_RUNS if factor == 1 else runs,
            factor,
            self._journal.log,
            self._journal.cells,
            before,
            chunk.start,
            sums,
            0,
            tuple(scalars),
        )
