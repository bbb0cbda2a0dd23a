"""Checksums of parameters and moments, which tell whether their memory has kept them."""

from collections.abc import Mapping, Sequence

import numpy as np

from ddbp.reduction.corruption import FIX, MemoryCorruptionError
from ddbp.reduction.partition import Chunk, Partition
from layers import Parameter
from layers.errors import message
from layers.kernels.updates import (
    CHECK_ALL,
    CHECK_MOMENTS,
    NOTE,
    SUM_WORDS,
    UNDO_BLOCK,
    block_sums,
)
from layers.types import Array


class Checksums:
    """Checksums of the parameters and moments of a partition, of each block of elements: noted
    after an update, compared ahead of the next one.

    Parameters that a script changes as it may (`Parameter.writes`) count from the next update on.

    Parameters
    ----------
    part
        The partition.
    chunks
        Its chunks, with the moments of each.

    Attributes
    ----------
    first
        Which checksums the update that goes on is to compare, from which array on: CHECK_ALL,
        CHECK_MOMENTS, or NOTE for none.
    of
        The checksums of each chunk (blocks, 1 + moments, SUM_WORDS), by its start.
    """

    def __init__(
        self, part: Partition, chunks: Sequence[tuple[Chunk, Mapping[str, Array]]]
    ) -> None:
        self._part = part
        self._moments = {chunk.start: [*moments] for chunk, moments in chunks}
        self._arrays = [(chunk, (chunk.values, *moments.values())) for chunk, moments in chunks]
        self.of: dict[int, Array] = {
            chunk.start: np.zeros((block_count(chunk), len(arrays), SUM_WORDS), np.uint32)
            for chunk, arrays in self._arrays
        }
        self.first = NOTE
        self._noted = False
        self._writes = Parameter.writes
        self._step = 0

    def forget(self) -> None:
        """Let the next update take what it finds."""
        self._noted = False

    def begin(self, step: int) -> None:
        """Begin an update, the one of this step."""
        self.first = self._usual()
        self._step = step
        self._noted = False

    def _usual(self) -> int:
        """Return what there is to be compared."""
        if not self._noted:
            return NOTE
        return CHECK_ALL if self._writes == Parameter.writes else CHECK_MOMENTS

    def end(self, *, noted: bool) -> None:
        """End the update, which has noted checksums itself or not."""
        if not noted:
            for chunk, arrays in self._arrays:
                block_sums(arrays, self.of[chunk.start], NOTE)
        self._noted = True
        self._writes = Parameter.writes

    def verify(self, step: int) -> None:
        """Compare all checksums, ahead of the update of this step."""
        self._step = step
        if (first := self._usual()) == NOTE:
            return
        for chunk, arrays in self._arrays:
            found = block_sums(arrays, self.of[chunk.start], first)
            if found >= 0:
                self.refuse(found, chunk)

    def refuse(self, found: int, chunk: Chunk) -> None:
        """Refuse the place of a checksum, found by a kernel in a chunk, that is another one than
        before.

        Raises
        ------
        MemoryCorruptionError
            It names the block.
        """
        moments = self._moments[chunk.start]
        block, array = divmod(found, 1 + len(moments))
        start = chunk.start + block * UNDO_BLOCK
        stop = min(start + UNDO_BLOCK, chunk.stop)
        names = [
            f"{self._part.names[span.parameter]}[{a}:{b}]"
            for span in self._part.spans
            for a, b in [(max(start, span.start), min(stop, span.stop))]
            for a, b in [(a - span.start + span.offset, b - span.start + span.offset)]
            if a < b
        ]
        what = ["the value", *(f"the moment {name!r}" for name in moments)][array]
        where = " or ".join(names) or "the gap between two parameters"
        must = "parameters and moments must be what the last update has left"
        got = (
            f"other bits in {what} of {where} (elements of it flattened), ahead of the update of"
            f" step {self._step} on rank {self._part.comm.rank}"
        )
        raise MemoryCorruptionError(message("Trainer", must, got, FIX))


def block_count(chunk: Chunk) -> int:
    """Return how many blocks a chunk has."""
    return -(-(chunk.stop - chunk.start) // UNDO_BLOCK)
