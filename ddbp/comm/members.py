"""Who of the processes that `ddbp launch --survive` started is alive, and in which group.

All of it lies in one file without a name, that the launcher makes and every process inherits. A
process has a slot there for life. What tells where it is is one word that only it writes and that
only grows, its position: so that of a dead process is final, all others see the same first meeting
that it missed, and none can pass that one. Who is a member of which group is decided under a lock
on the file, which the kernel takes away when its holder dies.
"""

import fcntl
import mmap
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from layers.kernels import sync
from layers.types import Integers

from .base import RankLost
from .host_barrier import BORN, HostBarrier, note_process, process_of
from .kept import Kept
from .processes import Processes

# Words at the beginning of the file: slots that have been used, the newest group, newcomers that
# have knocked since the last admission, and the meeting at which that was decided. Those of what is
# kept come after them.
_USED, _GROUP, _KNOCKS, _ADMITTED_AT, _KEPT = range(5)
_HEAD = mmap.PAGESIZE
# Words of a slot, after those of a barrier: the first group that it is a member of and the first
# that it is no more, 0 for none; how it has ended; whether it waits to be let in, and when it began
# to compile a kernel, in ns.
_JOINED, _DEAD, _END, _READY, _COMPILING = range(BORN + 1, BORN + 6)
_LEFT, _ABORTED = 1, 2
_MEETINGS = 40
"""Bits of a position that count meetings; those above are the group."""


def position(group: int, meeting: int) -> int:
    """Return the position of a process that comes to a meeting of a group."""
    return group << _MEETINGS | meeting


def meeting_of(where: int) -> int:
    """Return the meeting of a position."""
    return where & ((1 << _MEETINGS) - 1)


def _bytes_of(slots: int) -> int:
    """Return the bytes of the head and of so many slots, in whole pages."""
    size = _HEAD + HostBarrier.room(slots)
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _number(what: str) -> int:
    """Return a number other than 0 for what processes join."""
    return 1 + zlib.crc32(what.encode())


class Members:
    """The processes of a job that survives.

    Parameters
    ----------
    descriptor
        Of the file.
    slots
        How many processes there may be in the life of the job.
    mine
        The slot of this process; the launcher has none.

    Attributes
    ----------
    cells
        Those of the slots (slots, words), as `HostBarrier` has them.
    kept
        The state that outlives all of them.
    """

    def __init__(self, descriptor: int, slots: int, mine: int = -1) -> None:
        self._descriptor = descriptor
        self._mine = mine
        memory = mmap.mmap(descriptor, _HEAD + HostBarrier.room(slots))
        self._head = memoryview(memory)[:_HEAD].cast("q")
        shape = slots, HostBarrier.CELLS
        self.cells: Integers = np.frombuffer(memory, np.int64, -1, _HEAD).reshape(shape)
        self._processes = Processes()
        head = self._head[_KEPT : _KEPT + Kept.WORDS]
        self.kept = Kept(descriptor, head, _bytes_of(slots))

    # The launcher

    @classmethod
    def create(cls, ranks: int, slots: int) -> "Members":
        """Return those of a new job, of which so many are members from the beginning."""
        descriptor = os.memfd_create("ddbp")
        os.ftruncate(descriptor, _bytes_of(slots) + Kept.ROOM)
        os.posix_fallocate(descriptor, 0, _HEAD)
        members = cls(descriptor, slots)
        members.succeed(range(ranks))
        return members

    def succeed(self, slots: range) -> None:
        """Have the next slots be the members of a new group, as no process of the one before is
        left.
        """
        with self._lock():
            group = self._head[_GROUP] + 1
            used = self._used
            used[(used[:, _JOINED] > 0) & (used[:, _DEAD] == 0), _DEAD] = group
            for slot in slots:
                self.take(slot)
            self.cells[slots, _JOINED] = group
            self._head[_KNOCKS] = 0
            self._head[_GROUP] = group

    @property
    def descriptor(self) -> int:
        """The file, that processes inherit."""
        return self._descriptor

    def take(self, slot: int) -> None:
        """Take the next slot, and its memory, without which writing to it would end a process."""
        room = HostBarrier.room(1)
        os.posix_fallocate(self._descriptor, _HEAD + slot * room, room)
        self._head[_USED] = slot + 1

    def register(self, slot: int, pid: int) -> None:
        """Note which process has a slot: that which this one has started, and not waited for."""
        note_process(self.cells[slot], pid)

    @property
    def newest(self) -> list[int]:
        """The slots of the members of the newest group, some of whom may be dead."""
        return self.of(self._head[_GROUP])

    def left(self, slot: int) -> bool:
        """Return whether the process of a slot has come to its end."""
        return bool(self.cells[slot, _END] == _LEFT)

    def joined(self, slot: int) -> int:
        """Return the first group that the process of a slot is or was a member of, 0 for none."""
        return int(self.cells[slot, _JOINED])

    # Groups

    @property
    def _used(self) -> Integers:
        return self.cells[: self._head[_USED]]

    def of(self, group: int) -> list[int]:
        """Return the slots of the members of a group."""
        used = self._used
        joined, dead = used[:, _JOINED], used[:, _DEAD]
        inside = (joined > 0) & (joined <= group) & ((dead == 0) | (dead > group))
        return np.flatnonzero(inside).tolist()

    def dead(self, slots: list[int]) -> list[int]:
        """Return those of them whose processes have been killed."""
        for slot in slots:
            pid, born = process_of(self.cells[slot])
            # One that the launcher has not registered yet cannot be known to be dead.
            if pid and slot != self._mine and not self._processes.follow(slot, pid, born):
                self._processes.count_as_ended(slot)
        ended = self._processes.ended()
        return [slot for slot in slots if slot in ended and not self.cells[slot, _END]]

    def kill(self, slots: list[int]) -> None:
        """Make dead ones of processes that are stopped or hang."""
        self.dead(slots)
        for slot in slots:
            self._processes.kill(slot)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # An open file of its own: the lock belongs to that.
        descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def declare(self, group: int) -> int:
        """Return the newest group, a new one if members of the newest are dead. `group` is the last
        that this process has met in: who was to be let in after it is not.
        """
        with self._lock():
            newest = self._head[_GROUP]
            dead = self.dead(self.of(newest))
            invited = np.flatnonzero(self._used[:, _JOINED] > group)
            if dead or len(invited):
                newest += 1
                self.cells[dead, _DEAD] = newest
                self.cells[invited, _JOINED] = 0
                self._head[_KNOCKS] += len(invited)
                self._head[_GROUP] = newest
            return newest

    def assembled(self, slots: list[int], group: int, meeting: int) -> list[int]:
        """Return which of the members of a group have not come to its first meeting.

        Raises
        ------
        RankLost
            One of them has gone on to a newer group instead.
        """
        groups, meetings = np.divmod(self.cells[slots, 0], 1 << _MEETINGS)
        sync.fence()
        # Who has passed it may have come to newer groups since.
        come = (groups >= group) & (
            (meetings > meeting) | (groups == group) & (meetings == meeting)
        )
        if ((groups > group) & (meetings == meeting)).any():
            raise RankLost("the group is not the newest", [])
        return [slot for slot, has_come in zip(slots, come.tolist(), strict=True) if not has_come]

    def come(self, where: int) -> None:
        """Come to a position."""
        sync.fence()
        self.cells[self._mine, 0] = where

    # Newcomers

    def knock(self, what: str) -> None:
        """Say that this process waits to be let in, and to what."""
        with self._lock():
            self.cells[self._mine, _READY] = _number(what)
            self._head[_KNOCKS] += 1

    def knocking(self, what: str) -> bool:
        """Return whether processes wait to be let in to that."""
        return self._head[_KNOCKS] != 0 and bool((self._used[:, _READY] == _number(what)).any())

    def invite(self, group: int, meeting: int, what: str) -> None:
        """Decide, for all members of a group, who is let in to what after a meeting."""
        with self._lock():
            used = self._used
            # Some that were let in may not have taken note of that yet.
            waits = (used[:, _READY] == _number(what)) & (used[:, _JOINED] == 0)
            ready = np.flatnonzero(waits).tolist()
            gone = [*self.dead(ready), *self.ended(ready)]
            self.cells[gone, _READY] = 0
            welcome = [slot for slot in ready if slot not in gone]
            self._head[_KNOCKS] = 0
            if welcome:
                self._head[_ADMITTED_AT] = meeting
                self.cells[welcome, _JOINED] = group + 1
                self._head[_GROUP] = group + 1

    def invited_at(self, meeting: int) -> bool:
        """Return whether somebody is let in after a meeting that this process has come from."""
        return self._head[_ADMITTED_AT] == meeting

    def invitation(self) -> tuple[int, list[int], int] | None:
        """Return the group that this process becomes a member of, its slots, and the meeting after
        which, if that has been decided.
        """
        with self._lock():
            if not self.joined(self._mine):
                return None
            return self._head[_GROUP], self.newest, self._head[_ADMITTED_AT]

    def deserted(self) -> bool:
        """Return whether no member is left, but for those that were let in with this process."""
        joined = self.cells[self._mine, _JOINED]
        others = [slot for slot in self.newest if self.cells[slot, _JOINED] != joined]
        return {*others} == {*self.dead(others), *self.ended(others)}

    def together(self) -> list[int]:
        """Return the slots that were let in with this process."""
        return np.flatnonzero(self._used[:, _JOINED] == self.cells[self._mine, _JOINED]).tolist()

    def accept(self) -> None:
        """Wait no longer to be let in."""
        self.cells[self._mine, _READY] = 0

    def decline(self) -> bool:
        """Wait no longer; return whether that is so, and this process has not been let in yet."""
        with self._lock():
            if not self.joined(self._mine):
                self.accept()
            return not self.joined(self._mine)

    def withdraw(self) -> None:
        """Be no member, as a newcomer that nobody is left to let in."""
        with self._lock():
            self.accept()
            self.cells[self._mine, _JOINED] = 0

    # The end

    def ended(self, slots: list[int]) -> list[int]:
        """Return those of them that have come to their end, or to an error."""
        return [slot for slot in slots if self.cells[slot, _END]]

    def end(self, *, abort: bool = False) -> None:
        """Come to the end of this process, or have it end all others."""
        sync.fence()
        self.cells[self._mine, _END] = _ABORTED if abort else _LEFT


class HostNotices:
    """See `deadlines.Notices`; those of members lie in their cells, and a position says where a
    member is.
    """

    def __init__(self, members: Members, mine: int) -> None:
        self._members = members
        self._mine = mine
        self.form([mine])
        self.compiling: dict[int, float] = {}

    def form(self, slots: list[int]) -> None:
        """Number the ranks anew."""
        self._slots = slots
        self.compiling = {}

    def begin(self) -> None:
        """Count nothing: positions do."""

    def read(self) -> None:
        begun = self._members.cells[self._slots, _COMPILING].tolist()
        self.compiling = {rank: ns / 1e9 for rank, ns in enumerate(begun) if ns}

    def left(self) -> list[int]:
        cells = self._members.cells
        here = cells[self._mine, 0]
        return [
            rank
            for rank, slot in enumerate(self._slots)
            if cells[slot, _END] == _LEFT and cells[slot, 0] < here
        ]

    def absent(self) -> list[int]:
        cells = self._members.cells
        return np.flatnonzero(cells[self._slots, 0] < cells[self._mine, 0]).tolist()

    def tell_waiting(self) -> None:
        """Tell nothing: this rank's position does."""

    def tell_compiling(self) -> None:
        self._members.cells[self._mine, _COMPILING] = time.monotonic_ns()

    def tell_left(self) -> None:
        self._members.end()
