"""The ranks of one host of several, which gather without the others."""

from collections.abc import Callable

import numpy as np

from layers.types import Array

from .base import Communicator
from .host_barrier import SharedRow


class RanksOfHost:
    """See `Ranks`.

    Parameters
    ----------
    comm
        All ranks.
    gather
        Completes the numbers that the ranks of this host show.
    """

    def __init__(self, comm: Communicator, gather: Callable[[SharedRow], None]) -> None:
        self.rank = comm.rank - comm.topology.first
        self.size = comm.topology.last - comm.topology.first
        self._gather = gather

    def all_gather(self, array: Array) -> Array:
        array = np.ascontiguousarray(array)
        row = SharedRow(-(-array.nbytes // 8), self.size, self.rank, np.int64)
        row.numbers.view(np.uint8)[: array.nbytes] = array.reshape(-1).view(np.uint8)
        self._gather(row)
        shown = np.ascontiguousarray(row.all).view(np.uint8)[:, : array.nbytes]
        flat: Array = np.ascontiguousarray(shown).view(array.dtype)
        return flat.reshape(self.size, *array.shape)
