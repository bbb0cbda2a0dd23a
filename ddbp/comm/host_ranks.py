"""How the ranks of one host meet in memory that they share; communicators build on it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from layers.errors import message
from layers.kernels import sync
from layers.types import Array, Integers

from .base import Collective, CollectiveKind, CommunicationError, described, in_turn
from .deadlines import Deadline
from .host_barrier import WORDS, HostBarrier, SharedRow
from .topology import Topology


class HostRanks:
    """Meetings of the ranks of this host."""

    rank: int
    size: int
    topology: Topology
    progress_hook: Callable[[], None] | None = None
    _one_host = True
    _deadline: Deadline
    _host_barrier: HostBarrier

    @property
    def waiting(self) -> Collective | None:
        return self._deadline.waiting

    @property
    def waited(self) -> float:
        return self._deadline.waited

    # The slot of the first row of the barrier.
    _first_slot = 0

    def signs(self) -> dict[int, Integers]:
        return {
            self._first_slot + row: of_row for row, of_row in self._host_barrier.signs().items()
        }

    def host_barrier(self, collective: Collective) -> None:
        self._deadline.begin()
        if not self._host_barrier.meet():
            self._await_host(collective)

    def gather(self, collective: Collective, row: SharedRow, same: int = 0) -> bool:
        self._deadline.begin()
        title = row.title
        title[0], title[2] = collective
        rows, sums = row.rows, row.sums
        if not self._one_host:
            rows, sums = rows[self.topology.first : self.topology.last], ()
        if row.long:
            return self._gather_host_in_parts(collective, rows, SharedRow.TITLE + same)
        alike = self._gather_host(collective, rows, SharedRow.TITLE + same, sums)
        row.added = alike and bool(sums)
        return alike

    @contextmanager
    def joint(self, collective: Collective, results: Sequence[Array]) -> Iterator[None]:
        yield
        self.host_barrier(collective)

    def all_gather(self, array: Array) -> Array:
        array = np.ascontiguousarray(array)
        row = SharedRow(-(-array.nbytes // 8), self.size, self.rank, np.int64)
        row.numbers.view(np.uint8)[: array.nbytes] = array.reshape(-1).view(np.uint8)
        self.gather((CollectiveKind.GATHER, 0), row)
        rows = np.ascontiguousarray(row.all).view(np.uint8)[:, : array.nbytes]
        result: Array = (
            np.ascontiguousarray(rows).view(array.dtype).reshape(self.size, *array.shape)
        )
        return result

    def _gather_host(
        self, collective: Collective, rows: Integers, same: int, sums: tuple[Any, ...] = ()
    ) -> bool:
        """Complete the rows of this host's ranks (ranks, words); return whether the first `same`
        words are the same, and if so have the sums been worked out.
        """
        mismatched = self._host_barrier.gather(rows, same, sums)
        if mismatched == sync.LATE:
            self._await_host(collective)
            mismatched = self._host_barrier.gather(rows, same, sums, again=True)
        if mismatched == sync.ALIKE:
            return True
        self._require_title(collective, rows, self.topology.first, mismatched)
        return False

    def _gather_host_in_parts(self, collective: Collective, rows: Integers, same: int) -> bool:
        """Do what `_gather_host` does with rows longer than those of the host barrier: in several
        meetings, each with the title.
        """
        title, equal = SharedRow.TITLE, True
        for start in range(title, rows.shape[1], WORDS - title):
            part = np.concatenate([rows[:, :title], rows[:, start : start + WORDS - title]], axis=1)
            first = start == title
            found = self._gather_host(collective, part, same if first else title)
            if first:
                equal = found
                rows[:, :title] = part[:, :title]
            rows[:, start : start + WORDS - title] = part[:, title:]
        return equal

    def _await_host(
        self,
        collective: Collective,
        met: Callable[[], bool] | None = None,
        *,
        asleep: float = 0.0,
    ) -> None:
        """Wait until the ranks of this host have met."""
        self._deadline.until(
            met or self._met,
            collective,
            late=self._late,
            dead=self._dead,
            fence=self._fence,
            asleep=asleep,
        )

    def _in_turn(self, *, first: bool) -> AbstractContextManager[None]:
        """Return a context whose body the first rank of this host runs before the others do."""

        def meet() -> None:
            barrier, place = self._host_barrier, (CollectiveKind.LEADER_FIRST, 0)
            barrier.come()
            # Kernels may not be compiled yet, and a spinning barrier would take the core on which
            # the first rank does that.
            asleep = 0.0 if first else 5e-3
            self._await_host(place, lambda: not barrier.late(), asleep=asleep)

        return in_turn(meet, first=first)

    def _met(self) -> bool:
        if self.progress_hook is not None:
            self.progress_hook()
        return self._host_barrier.met()

    def _late(self) -> list[int]:
        """Return the ranks of this host that have not come to the present meeting."""
        return [self.topology.first + rank for rank in self._host_barrier.late()]

    def _dead(self) -> list[int]:
        """Return those of them that never will."""
        return [self.topology.first + rank for rank in self._host_barrier.dead()]

    _fence: Callable[[list[int]], None] | None = None

    def _require_title(
        self, collective: Collective, rows: Integers, first: int, mismatched: int
    ) -> None:
        """Refuse a mismatched rank, `first` and so many, if it is at another kind of collective, or
        has other numbers to gather.
        """
        kind, words, number = rows[mismatched, : SharedRow.TITLE].tolist()
        expected = int(rows[self.rank - first, 1])
        if (kind, words) == (collective[0], expected):
            return
        got = f"{described((kind, number))} on rank {first + mismatched}"
        if kind == collective[0]:
            got = f"{words} numbers on rank {first + mismatched}, {expected} here"
        fix = "Every rank must run the same loop, and the same layers in the same order."
        raise CommunicationError(
            message(
                f"rank {self.rank}",
                f"all ranks must take part in {described(collective)}",
                got,
                fix,
            )
        )
