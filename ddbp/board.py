"""The board: where the ranks of one host meet, and read each other's numbers in memory that they share."""

import os
from collections.abc import Callable

import numpy as np

from layers.kernels import sync
from layers.types import Integers

from layers.parameter import Allocator

WORDS = 8192
"""The longest row, in 64-bit words."""

# How often a process looks before it asks whether to go on waiting, at first and later.
_FIRST_LOOKS, _LOOKS = 200, 20


class Board:
    """Rows of 64-bit words, one for each of the ranks that share it.

    Parameters
    ----------
    allocate
        Returns zeroed memory that all ranks of the board share, of the given shape and dtype; collective.
    mine, ranks
        The number of this rank among them, and how many they are.
    """

    def __init__(self, allocate: Allocator, mine: int, ranks: int) -> None:
        self._mine, self._ranks = mine, ranks
        self._counts: Integers = allocate((ranks * sync.LINE,), np.int64)
        self._rows: Integers = allocate((2, ranks, WORDS), np.int64)
        self._pids = self._counts[1 :: sync.LINE]
        self._pids[mine] = os.getpid()
        self._seen: set[int] = set()
        self._meetings = 0
        self._late = np.zeros(1, np.int64)

    def gather(self, row: Integers, wait: Callable[[Callable[[], bool]], None]) -> Integers:
        """Return the rows (ranks, words) of all ranks, once all have called this; `wait(met)` is to return when `met()` is true."""
        self._meetings += 1
        rows = np.empty((self._ranks, row.size), np.int64)
        arguments = (rows, self._late, self._rows, self._counts, row, self._mine, self._meetings)
        sync.gather(*arguments, _FIRST_LOOKS)
        if self._late[0] >= 0:

            def met() -> bool:
                sync.gather(*arguments, _LOOKS)
                return bool(self._late[0] < 0)

            wait(met)
        return rows

    def late(self) -> list[int]:
        """Return the ranks of the board that have not come to the present meeting."""
        return np.flatnonzero(self._counts[:: sync.LINE] < self._meetings).tolist()

    def dead(self) -> list[int]:
        """Return those of them whose processes have ended, having been seen to run: not all may be visible from here."""
        late = self.late()
        running = {rank for rank in late if _runs(int(self._pids[rank]))}
        self._seen |= running
        return [rank for rank in late if rank in self._seen and rank not in running]


def compile_kernels() -> None:
    """Meet alone, once: that compiles the kernels of a meeting."""
    Board(np.zeros, 0, 1).gather(np.zeros(2, np.int64), lambda met: None)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
