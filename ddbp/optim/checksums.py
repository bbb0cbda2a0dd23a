"""Checksums of parameters and moments, which tell whether their memory has kept them."""

from collections.abc import Mapping, Sequence
from enum import IntEnum, auto

import numpy as np

from ddbp.reduction.corruption import MemoryCorruptionError
from ddbp.reduction.partition import Chunk, Partition
from layers import Parameter
from layers.kernels.packed import elements
from layers.kernels.updates import (
    CHECK_ALL,
    CHECK_MOMENTS,
    NOTE,
    SUM_WORDS,
    UNDO_BLOCK,
    block_sums,
)
from layers.types import Array


class Memory(IntEnum):
    """What is done about the memory of parameters and moments."""

    TRUSTED = 0
    """Nothing."""
    WATCHED = auto()
    """A single bit that flips is told of; other changes are taken for a script's."""
    CHECKED = auto()
    """Whatever changes is an error."""


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
    watched
        Whether other bits are no error, but told of where one bit alone is another one.

    Attributes
    ----------
    flipped
        Which bit has flipped last, if they are watched, in words, "" if none has.
    first
        Which checksums the update that goes on is to compare, from which array on: CHECK_ALL,
        CHECK_MOMENTS, or NOTE for none.
    of
        The checksums of each chunk (blocks, 1 + moments, SUM_WORDS), by its start.
    """

    def __init__(
        self,
        part: Partition,
        chunks: Sequence[tuple[Chunk, Mapping[str, Array]]],
        *,
        watched: bool = False,
    ) -> None:
        self._part = part
        self._watched = watched
        self.flipped = ""
        # Of an update that is watched, what each block that differs is taken for.
        self._seen: list[str] = []
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
        self._judge()

    def _judge(self) -> None:
        """Tell of a bit that has flipped alone: a script would change more, or not a single bit."""
        if len(self._seen) == 1:
            self.flipped = self._seen[0] or self.flipped
        self._seen.clear()

    def verify(self, step: int) -> None:
        """Compare all checksums, ahead of the update of this step."""
        self._step = step
        if (first := self._usual()) == NOTE:
            return
        for chunk, arrays in self._arrays:
            held = self.of[chunk.start]
            found = block_sums(arrays, held, first)
            if found < 0:
                continue
            if not self._watched:
                self._refuse(found, chunk)
            before = held.copy()
            block_sums(arrays, held, NOTE)
            self._see(held - before, first, chunk)
        self._judge()

    def differ(self, found: int, chunk: Chunk) -> int:
        """Learn of the place of a checksum, found by the kernel of an update in a chunk, that is
        another one than before; return the number of the block.

        Raises
        ------
        MemoryCorruptionError
            It names the block, unless it is only watched.
        """
        if not self._watched:
            self._refuse(found, chunk)
        held = self.of[chunk.start]
        block = int(found // held.shape[1])
        of_block = slice(block, block + 1)
        apart = np.zeros_like(held)
        apart[of_block] = held[of_block]
        arrays = next(arrays for each, arrays in self._arrays if each.start == chunk.start)
        start = block * UNDO_BLOCK
        of = tuple(elements(array, start, start + UNDO_BLOCK) for array in arrays)
        block_sums(of, held[of_block], NOTE)
        self._see(apart, self.first, chunk)
        if len(self._seen) > 1:
            # It is a script that changes them: there is nothing to look for.
            self.first = NOTE
        return block

    def _see(self, apart: Array, first: int, chunk: Chunk) -> None:
        """Remember by how much the checksums (blocks, arrays, SUM_WORDS) of a chunk differ, from
        the array `first` on.
        """
        places = np.argwhere(apart[:, first:])
        for block, array, word in places.tolist():
            change = int(apart[block, first + array, word])
            one_bit = change.bit_count() == 1 or (2**32 - change).bit_count() == 1
            if one_bit and not (first + array == 0 and self._has_number(block, chunk)):
                self._seen.append(self._where(block, first + array, chunk))
            else:
                self._seen.append("")

    def _refuse(self, found: int, chunk: Chunk) -> None:
        block, array = divmod(found, self.of[chunk.start].shape[1])
        must = "parameters and moments must be what the last update has left"
        got = f"other bits in {self._where(block, array, chunk)}"
        raise MemoryCorruptionError(must, got)

    def _has_number(self, block: int, chunk: Chunk) -> bool:
        """Return whether a parameter of a block is a single number: a script that halves it changes
        its exponent by one.
        """
        start = chunk.start + block * UNDO_BLOCK
        return any(
            span.stop - span.start == 1 and start <= span.start < start + UNDO_BLOCK
            for span in self._part.spans
        )

    def _where(self, block: int, array: int, chunk: Chunk) -> str:
        """Return in words which block of which array of a chunk that is, and when."""
        moments = self._moments[chunk.start]
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
        return (
            f"{what} of {where} (elements of it flattened), ahead of the update of"
            f" step {self._step} on rank {self._part.comm.rank}"
        )


def block_count(chunk: Chunk) -> int:
    """Return how many blocks a chunk has."""
    return -(-(chunk.stop - chunk.start) // UNDO_BLOCK)
