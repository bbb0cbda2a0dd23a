"""The board: where the ranks of one host meet, and read each other's numbers in memory that they share."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from layers.kernels import sync
from layers.parameter import Allocator
from layers.types import Array, Integers

WORDS = 8192
"""The longest row, in 64-bit words."""

# How often a process looks before it asks whether to go on waiting, at first and later.
_FIRST_LOOKS, _LOOKS = 200, 20

Wait = Callable[[Callable[[], bool]], None]
"""Called with a function; returns when that is true."""


class Row:
    """Numbers that a rank shows to others, and those that it has seen of them; made once for what comes every step.

    Parameters
    ----------
    count, ranks
        How many numbers, and how many ranks show them.
    dtype
        Theirs, of 64 bits.

    Attributes
    ----------
    numbers
        To be filled (count,).
    all
        Those of all ranks after a gathering (ranks, count).
    """

    TITLE = 3
    """Words before the numbers: the kind of task, how many numbers, and which task of that kind."""

    def __init__(self, count: int, ranks: int, dtype: Any = np.float64) -> None:
        self.sent: Integers = np.zeros(self.TITLE + count, np.int64)
        self.sent[1] = count
        self.received: Integers = np.empty((ranks, self.TITLE + count), np.int64)
        self.numbers: Array = self.sent[self.TITLE :].view(dtype)
        self.all: Array = self.received[:, self.TITLE :].view(dtype)


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
        self._mine = mine
        self._counts: Integers = allocate((ranks * sync.LINE,), np.int64)
        self._rows: Integers = allocate((2, ranks, WORDS), np.int64)
        self._pids = self._counts[1 :: sync.LINE]
        self._pids[mine] = os.getpid()
        self._seen: set[int] = set()
        self._meetings = 0
        self._late = np.zeros(2, np.int64)

    def meet(self, wait: Wait) -> None:
        """Return once all ranks have called this; `wait(met)` is to return when `met()` is true."""
        self._meetings += 1
        self._finish(wait, sync.meet, self._late, self._counts, self._mine, self._meetings)

    def gather(self, received: Integers, sent: Integers, same: int, wait: Wait) -> int:
        """Meet, and write the rows of all ranks (ranks, words); return the first whose first `same` words differ, or -1."""
        self._meetings += 1
        self._finish(wait, sync.gather, received, self._late, self._rows, self._counts, sent, same, self._mine, self._meetings)
        return int(self._late[1])

    def _finish(self, wait: Wait, look: Callable[..., None], *arguments: Any) -> None:
        """Have a kernel look until all are there, a few times at once and then whenever `wait` asks."""
        look(*arguments, _FIRST_LOOKS)
        if self._late[0] >= 0:

            def met() -> bool:
                look(*arguments, _LOOKS)
                return bool(self._late[0] < 0)

            wait(met)

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
    row, board = Row(1, 1), Board(np.zeros, 0, 1)
    board.gather(row.received, row.sent, 0, lambda met: None)
    board.meet(lambda met: None)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
