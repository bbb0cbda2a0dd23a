"""The undo log of an update: what the ranks of a host need to finish that of one that has died."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from ddbp.comm.base import Communicator
from ddbp.reduction.partition import Chunk, Partition
from layers.kernels.packed import elements
from layers.kernels.updates import BEGUN, CELLS, COUNT, DONE, PLACE, UNDO_BLOCK
from layers.types import Array, Integers


class Journal:
    """Undo logs in memory that the ranks of a host share, one for each slot that a rank may have.

    An update by blocks (`Optimizer.blockwise`) copies each vector of parameters and moments to the
    log of its slot before it changes them, and counts there what it has copied of a block, and
    blocks. So whoever survives can put back the one block that may be torn, and finish. Of other
    updates the whole partition is copied before, and put back.

    Parameters
    ----------
    comm
        The ranks; making a journal is collective.
    slots
        How many logs there are.
    slot
        That of this rank.
    arrays
        How many arrays an update changes: parameters and moments.
    dtype
        Their type.
    elements
        The size of the flat arrays, if the optimizer does not update by blocks; else 0.
    """

    def __init__(
        self,
        comm: Communicator,
        slots: int,
        slot: int,
        arrays: int,
        dtype: np.dtype,
        elements: int = 0,
    ) -> None:
        words = UNDO_BLOCK * dtype.itemsize // 8
        memory: Integers = comm.host_array((slots, CELLS + arrays * words), np.int64)
        self._rows = [
            (row[:CELLS], row[CELLS:].view(dtype).reshape(arrays, UNDO_BLOCK)) for row in memory
        ]
        self._copies: Array = comm.host_array((arrays, elements), dtype)
        self.follow(slot)

    def follow(self, slot: int) -> None:
        """Have another log from now on, between two updates."""
        self.slot = slot
        self.cells, self.log = self._rows[slot]

    def begin(self) -> None:
        """Begin the log of an update, before the last meeting of ranks ahead of it: whoever has
        come there has a log of this update and no other.
        """
        self.cells[BEGUN] = self.cells[DONE] = 0

    @contextmanager
    def resumed(
        self, slot: int, chunks: Sequence[tuple[Chunk, Mapping[str, Array]]]
    ) -> Iterator[None]:
        """Return a context in which this rank goes on with the log of another slot, whose rank has
        died in its update of these chunks and their moments; the block that it was at is as before.
        """
        self.cells, self.log = self._rows[slot]
        try:
            if self.cells[BEGUN] != self.cells[DONE]:
                start, size = int(self.cells[PLACE]), int(self.cells[COUNT])
                chunk, moments = next(
                    each for each in chunks if each[0].start <= start < each[0].stop
                )
                start -= chunk.start
                for array, saved in zip((chunk.values, *moments.values()), self.log, strict=False):
                    place = elements(array, start, start + size)
                    place[...] = saved.view(array.dtype)[: place.size].reshape(place.shape)
            yield
        finally:
            self.cells, self.log = self._rows[self.slot]

    def save(self, part: Partition, moments: Mapping[str, Array]) -> None:
        """Copy a partition and its moments, before an update that is not by blocks."""
        for copy, array in self._copies_of(part, moments):
            copy[:] = array
        self.cells[BEGUN] = 1

    def put_back(self, slot: int, part: Partition, moments: Mapping[str, Array]) -> None:
        """Make the partition of the rank of a slot, and its moments, what they were at `save`; as
        they are if it has not come there.
        """
        if self._rows[slot][0][BEGUN]:
            for copy, array in self._copies_of(part, moments):
                array[:] = copy

    def _copies_of(
        self, part: Partition, moments: Mapping[str, Array]
    ) -> Iterable[tuple[Array, Array]]:
        """Return the place of the copy of each array of a partition, and the array itself."""
        ((start, stop),) = part.ranges
        return zip(self._copies[:, start:stop], (part.values, *moments.values()), strict=True)
