"""The host barrier: where the ranks of one host meet, and read each other's numbers in memory that
they share.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layers.engine.parameter import Allocator
from layers.kernels import sync
from layers.kernels.jit import compiled
from layers.kernels.machine import CACHE_LINE
from layers.types import Array, Integers

from .processes import Processes, start_of

WORDS = 8192
"""The longest row, in 64-bit words."""

# Where a rank says which process it is and when that began; its first cell counts meetings.
PID, BORN = 1, 2
# Where its signs begin: on a cache line of their own.
_SIGNS = CACHE_LINE // 8
# How often a process looks at first, for some 35 µs, and each time that it is asked later.
_FIRST_LOOKS, _LOOKS = 1000, 20


class SharedRow:
    """Numbers that a rank shows to others, and those that it has seen of them; made once for what
    comes every step.

    Parameters
    ----------
    count
        How many numbers each rank shows.
    ranks, mine
        How many ranks show numbers, and the number of this one.
    dtype
        The type of the numbers, of 64 bits.

    Attributes
    ----------
    rows
        The words of all ranks after a gathering (ranks, words), those of this rank before.
    title
        The title words of this rank's row.
    long
        Whether a row is longer than what can be shown at once.
    numbers
        To be filled (count,).
    all
        Those of all ranks after a gathering (ranks, count).
    sums
        What else is worked out as soon as the rows of ranks of one host are there and alike: the
        arguments of `kernels.reduce.step_sums`, if any.
    added
        Whether the last gathering has done so.
    """

    TITLE = 3
    """Words before the numbers: the kind of collective, how many numbers, and which of that
    kind.
    """

    def __init__(self, count: int, ranks: int, mine: int, dtype: Any = np.float64) -> None:
        self.rows: Integers = np.zeros((ranks, self.TITLE + count), np.int64)
        self.title = self.rows[mine].data
        self.title[1] = count
        self.long = self.TITLE + count > WORDS
        self.all: Array = self.rows[:, self.TITLE :].view(dtype)
        self.sums: tuple[Any, ...] = ()
        self.added = False
        self.numbers: Array = self.all[mine]


class HostBarrier:
    """Rows of 64-bit words, one for each of the ranks that share it.

    Parameters
    ----------
    allocate
        Returns zeroed memory that all ranks of the host share, of the given shape and dtype;
        collective.
    mine, ranks
        The number of this rank among them, and how many they are.

    Attributes
    ----------
    cells
        The shared rows (ranks, CELLS): a count of meetings, and other cells of its rank, in the
        first `sync.COUNT_CELLS`; then what it shows.
    meetings
        The count of this rank.
    """

    CELLS = sync.COUNT_CELLS + 2 * WORDS

    def __init__(self, allocate: Allocator, mine: int, ranks: int) -> None:
        self.cells: Integers = allocate((ranks, self.CELLS), np.int64)
        note_process(self.cells[mine], os.getpid())
        self._processes = Processes()
        self.form(range(ranks), mine, 0)

    def form(self, members: Sequence[int], mine: int, meetings: int) -> None:
        """Have these rows alone meet from now on, of which that of this rank has number `mine`,
        having met so often.
        """
        self._members: Integers = np.array(members, np.int64)
        self._mine = mine
        self.meetings = meetings
        where = self.cells, self._members, mine, 0
        self._meet = compiled(sync.meet, (*where, _FIRST_LOOKS))
        # Rows have the type of the cells.
        self._gather = compiled(sync.gather, (self.cells, *where, 0, _FIRST_LOOKS))
        self._gather_and_add: Callable[..., int] = sync.gather_and_add
        self._sums: tuple[Any, ...] = ()

    @classmethod
    def room(cls, ranks: int) -> int:
        """Return the bytes that it takes."""
        return 8 * ranks * cls.CELLS

    def meet(self) -> bool:
        """Come to the next meeting; return whether all ranks have come. If not, they have once
        `met()` is true.
        """
        self.meetings += 1
        come: bool = self._meet(self.cells, self._members, self._mine, self.meetings, _FIRST_LOOKS)
        return come

    def come(self) -> None:
        """Come to the next meeting, without kernels; all have once nobody is `late()`."""
        self.meetings += 1
        sync.fence()
        self.cells[self._members[self._mine], 0] = self.meetings

    def met(self) -> bool:
        """Return whether all ranks have come to the present meeting."""
        come: bool = self._meet(self.cells, self._members, self._mine, self.meetings, _LOOKS)
        return come

    def gather(
        self, rows: Integers, same: int, sums: tuple[Any, ...] = (), *, again: bool = False
    ) -> int:
        """Come to the next meeting, and write the rows of all ranks (ranks, words), of which that
        of this rank is there; if they are alike, work out the sums: see `SharedRow`.

        Return the first rank whose first `same` words are not those of this one, or `sync.ALIKE`;
        but `sync.LATE` if not all have come: then, once `met()` is true, ask `again`.
        """
        self.meetings += not again
        where = rows, self.cells, self._members, self._mine, self.meetings, same, _FIRST_LOOKS
        if not sums:
            mismatched: int = self._gather(*where)
        elif sums is self._sums:
            mismatched = self._gather_and_add(*where, *sums)
        else:
            mismatched = sync.gather_and_add(*where, *sums)
            self._gather_and_add = compiled(sync.gather_and_add, (*where, *sums))
            self._sums = sums
        return mismatched

    def signs(self) -> dict[int, Integers]:
        """Return words (8,) of each row that meets which are no part of a meeting."""
        return {row: self.cells[row, _SIGNS : sync.COUNT_CELLS] for row in self._members.tolist()}

    def late(self) -> list[int]:
        """Return the ranks of the host that have not come to the present meeting."""
        late: list[int] = np.flatnonzero(self.cells[self._members, 0] < self.meetings).tolist()
        sync.fence()
        return late

    def dead(self) -> list[int]:
        """Return those of them whose processes have ended, having been seen to run: not all may be
        visible from here.
        """
        ended = self.ended()
        # Only now: what a process that has ended wrote last is final.
        return [rank for rank in self.late() if self._members[rank] in ended]

    def ended(self) -> set[int]:
        """Return the rows of ranks of the host whose processes have ended, having been seen to
        run.
        """
        for row in self._members.tolist():
            self._processes.follow(row, *process_of(self.cells[row]))
        return self._processes.ended()


def note_process(cells: Integers, pid: int) -> None:
    """Note in the cells of a rank which process it is."""
    cells[BORN] = start_of(pid) or 0
    sync.fence()
    cells[PID] = pid


def process_of(cells: Integers) -> tuple[int, int]:
    """Return which process a rank is, and when that began; 0 if it has not been noted yet."""
    pid = int(cells[PID])
    sync.fence()
    return pid, int(cells[BORN])


def compile_kernels(sums: tuple[Any, ...] = ()) -> None:
    """Meet alone, once: that compiles the kernels of a meeting, or of one with such sums."""
    barrier = HostBarrier(np.zeros, 0, 1)
    barrier.gather(SharedRow(1, 1, 0).rows, 0, sums)
    barrier.meet()
