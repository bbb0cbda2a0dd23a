"""The ranks of an MPI job that goes on when some are killed, on one host or several, where the
library can (ULFM, which is in Open MPI: `mpirun --with-ft ulfm`).

What ranks do together is done by all of them or by none. Within a host they meet in shared memory,
where a rank is that never comes to a meeting. Between hosts all messages stand in `joint`s, which
end with a meeting of the host; the ranks of a host have therefore the same number of these behind
them, and those of another host one more at most. When a rank is lost, all that are left come to
`_recover`: hosts that are behind get the results of their joint from one that has them.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np

from ddbp import settings
from layers.errors import message
from layers.kernels import sync
from layers.types import Array

from .abort import insist
from .base import Collective, CollectiveKind, CommunicationError, RankLost, described
from .host_barrier import BORN, SharedRow
from .mpi import MPICommunicator, late_of
from .mpi_messages import MessageTag, MPIPendingMessages
from .mpi_notices import MPINotices
from .ranks_of_host import RanksOfHost
from .topology import Topology

_STOPPED = BORN + 1
"""The cell of a rank that says on the way to which meeting it has stopped."""
_LOOK = 1e-3
"""Seconds between looks for ranks that are lost."""
_END = 1.0
"""Seconds that messages which are given up have to end."""
_PAUSE = 1e-4
"""Seconds between looks of a rank that has stopped."""
_MEETINGS = 40
"""Bits of a position that count meetings; those above are the group."""


class _Trouble(Exception):  # noqa: N818 - an event
    """A rank is lost, or others have seen that one is."""


class _Supplied(Exception):  # noqa: N818 - an event
    """Another host had the results of what this rank was in."""


class SurvivingMPICommunicator(MPICommunicator):
    """The ranks of MPI_COMM_WORLD, numbered host by host, as long as they live."""

    survives = True
    group = 0

    def __init__(self) -> None:
        self._formed = False
        self._pendings: list[_Messages] = []
        self._requests: list[Any] = []
        super().__init__()
        if not hasattr(self.world, "Shrink"):
            must = "ranks that survive each other need an MPI library with ULFM"
            fix = "Start them by Open MPI's mpirun --with-ft ulfm, with its library."
            raise CommunicationError(message("ddbp", must, "one without", fix))
        self._slot = self.rank
        self._slots = [*range(self.size)]
        hosts = self.hosts.tolist()
        # Of each slot.
        self._hosts = [host for host, (a, b) in enumerate(pairwise(hosts)) for _ in range(a, b)]
        self._rows = [*range(self.topology.last - self.topology.first)]
        self._row = self.rank - self.topology.first
        # How many joints are over, with the results of the last and of the present one.
        self._joints = 0
        self._results: Sequence[Array] = ()
        self._present: Sequence[Array] = ()
        # The ranks that are left, and what is raised at the next joint where that was supplied.
        self._left: tuple[Any, list[int]] = self.world, self.slots
        self._lost: RankLost | None = None
        self._looked = 0.0
        self._formed = True
        self._renew_notices()

    @property
    def slot(self) -> int:
        return self._slot if self._formed else self.rank

    @property
    def slots(self) -> list[int]:
        return self._slots if self._formed else [*range(self.size)]

    # Memory

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        if not self._formed or not self._shares:
            return super().host_array(shape, dtype)
        self._deadline.begin()
        return self._allocate(shape, dtype, self.of_host.rank, self.of_host.size)

    def from_first(self, text: Array) -> None:
        if not self._formed:
            super().from_first(text)
            return
        text[...] = self.of_host.all_gather(text)[0]

    def error_of_any(self, error: OSError | None) -> int:
        if not self._formed:
            return super().error_of_any(error)
        codes = self.of_host.all_gather(np.array([0 if error is None else error.errno or -1]))
        return int(codes[codes != 0][0]) if codes.any() else 0

    # Meetings and messages

    def gather(self, collective: Collective, row: SharedRow, same: int = 0) -> bool:
        if self._one_host or not self._formed:
            return super().gather(collective, row, same)
        with self.joint(collective, [row.rows]):
            super().gather(collective, row, same)
        words = SharedRow.TITLE + same
        return bool((row.rows[:, :words] == row.rows[self.rank, :words]).all())

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        if not self._formed:
            with super().leader_first():
                yield
            return
        with self._in_turn(first=self.of_host.rank == 0):
            yield

    @contextmanager
    def joint(self, collective: Collective, results: Sequence[Array]) -> Iterator[None]:
        if self._lost is not None:
            raise self._lost
        self._present = results
        self._notices.come_to(self._joints + 1)
        try:
            try:
                yield
                self.host_barrier(collective)
            except (self._mpi.Exception, _Trouble):
                self._stop(collective, None)
        except _Supplied:
            pass
        self._joints += 1
        self._results = results

    def pending_messages(self, parts: int) -> MPIPendingMessages:
        pending = _Messages(self._mpi, self.world, parts, self._await_pending, self._count)
        self._pendings.append(pending)
        return self._pendings[-1]

    # Waiting

    def _await_host(
        self,
        collective: Collective,
        met: Callable[[], bool] | None = None,
        *,
        asleep: float = 0.0,
    ) -> None:
        done = met or self._met
        try:
            self._deadline.until(self._watched(done), collective, late=self._late, asleep=asleep)
        except (self._mpi.Exception, _Trouble):
            self._stop(collective, lambda: not self._host_barrier.late())

    def _wait(
        self,
        requests: list[Any],
        collective: Collective,
        receive_from: Sequence[int] = (),
        *,
        asleep: float = 0.0,
    ) -> None:
        test, late = self._mpi.Request.Testall, late_of(requests, receive_from)
        self._requests = requests
        done = self._watched(lambda: test(requests))
        self._deadline.until(done, collective, late=late, asleep=asleep)
        self._requests = []

    def _watched(self, done: Callable[[], bool]) -> Callable[[], bool]:
        """Return what tells whether something is done, and raises if a rank is lost."""

        def look() -> bool:
            if done():
                return True
            now = time.monotonic()
            if self._formed and now - self._looked > _LOOK:
                self._looked = now
                self._look_for_the_lost()
            return False

        return look

    def _look_for_the_lost(self) -> None:
        if self._host_barrier.dead():
            raise _Trouble
        if self._lost is None:
            # MPI learns of nothing unless it is called.
            self.world.Iprobe(self._mpi.ANY_SOURCE, MessageTag.LEFT)
            if self.world.Is_revoked():
                raise _Trouble

    # Losing ranks

    def _stop(self, collective: Collective, met: Callable[[], bool] | None) -> None:
        """Return if the ranks of this host have met, where that is what this one waits for; else
        recover, and raise `RankLost`, together with all others that wait for the same meeting.

        A rank that waits for messages will not come to the next one. So those that are left have
        all stopped on the way to the same meeting, or one more comes to it.
        """
        self._revoke()
        barrier = self._host_barrier
        heading = barrier.meetings + (met is None)
        sync.fence()
        barrier.cells[self._row, _STOPPED] = heading
        end = time.monotonic() + settings.timeout()
        while True:
            if met is not None and met():
                return
            ended = barrier.ended()
            left = [row for row in self._rows if row not in ended]
            if (barrier.cells[left, _STOPPED] == heading).all():
                sync.fence()
                break
            if time.monotonic() > end:
                must = f"the ranks that are left must stop in {described(collective)}"
                fix = "A rank may hang; DDBP_TIMEOUT sets the limit in seconds."
                raise CommunicationError(message(f"rank {self.rank}", must, "time is up", fix))
            time.sleep(_PAUSE)
        if self._lost is not None:
            raise self._lost
        self._end_messages()
        with self._limited():
            behind = self._recover()
        gone = [slot for slot in self.slots if slot not in self._left[1]]
        lost = RankLost(
            message(
                f"rank {self.rank}",
                f"all ranks must take part in {described(collective)}",
                f"the process of rank {', '.join(str(self.slots.index(s)) for s in gone)} gone",
                "It was killed, perhaps for want of memory: see dmesg.",
            ),
            gone,
        )
        if not behind:
            raise lost
        self._lost = lost
        sync.fence()
        barrier.meetings = barrier.cells[self._row, 0] = heading
        raise _Supplied

    def _revoke(self) -> None:
        """Have all others learn that a rank is lost."""
        if self._lost is None:
            with suppress(self._mpi.Exception):
                self.world.Revoke()

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Return a context of calls of MPI that may wait for ever for ranks which are not dead, but
        cannot be reached.
        """
        limit = settings.timeout()

        def give_up() -> None:
            must = "the ranks that are left must come together"
            fix = "A rank may hang, or the link to a host be cut; DDBP_TIMEOUT sets the limit."
            got = f"no answer for {limit:.0f} s"
            raise CommunicationError(message(f"rank {self.rank}", must, got, fix))

        timer = threading.Timer(limit, give_up)
        timer.daemon = True
        if limit < threading.TIMEOUT_MAX:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _recover(self) -> bool:
        """Come together with all that are left; return whether this host was behind, and has the
        results of the joint that it was in.
        """
        world = self.world
        while True:
            world = world.Shrink()
            try:
                return self._catch_up(world)
            except (self._mpi.Exception, _Trouble):
                with suppress(self._mpi.Exception):
                    world.Revoke()

    def _catch_up(self, world: Any) -> bool:
        """Do what `_recover` does, among the ranks of a communicator."""
        facts: list[tuple[int, int]]
        facts = self._agreed(world, lambda: world.allgather((self.slot, self._joints)))
        joints = [number for _, number in facts]
        behind = self._joints < max(joints)
        if min(joints) < max(joints):
            root, results = joints.index(max(joints)), self._present if behind else self._results
            self._agreed(world, lambda: _broadcast(world, results, root))
        self._left = world, [slot for slot, _ in facts]
        return behind

    def _agreed(self, world: Any, operation: Callable[[], Any]) -> Any:
        """Return what a collective operation of MPI returns, if it went well on all ranks: with a
        death it may fail on some of them only, or return what is not so.
        """
        result, well = None, 1
        try:
            result = operation()
        except Exception:
            well = 0
        # Raises on all alike, if another one has died.
        if not world.Agree(well):
            raise _Trouble
        return result

    def regroup(self) -> list[int]:
        before = self._slots
        self.world, self._slots = self._left
        self._lost = None
        self.progress_hook = None
        self.group += 1
        self.rank, self.size = self.slots.index(self.slot), len(self.slots)
        hosts = [self._hosts[slot] for slot in self.slots]
        self.hosts = np.flatnonzero([True, *(a != b for a, b in pairwise(hosts)), True])
        self.topology = Topology(self.hosts, self.rank)
        self._one_host = len(self.hosts) == 2
        first = self._hosts.index(self._hosts[self.slot])
        neighbours = self.slots[self.topology.first : self.topology.last]
        self._rows = [slot - first for slot in neighbours]
        mine = neighbours.index(self.slot)
        self._host_barrier.form(self._rows, mine, self.group << _MEETINGS)
        self.of_host = self if self._one_host else RanksOfHost(self, self._gather_of_host)
        self._renew_notices()
        return sorted({*before} - {*self.slots})

    def _renew_notices(self) -> None:
        self._notices: _Notices = _Notices(self._mpi, self.world)
        self._deadline.form(self.rank, self.slots, self._notices)

    def _end_messages(self) -> None:
        """Wait until MPI writes no more to the arrays of messages that are given up."""
        given_up = [request for each in self._pendings for request in each.requests()]
        end = time.monotonic() + _END
        for request in [*self._requests, *given_up]:
            with suppress(self._mpi.Exception):
                while not request.Test() and time.monotonic() < end:
                    time.sleep(0)
        self._pendings, self._requests = [], []

    # The job

    def leave(self) -> None:
        with suppress(self._mpi.Exception):
            self._deadline.leave()
        while self._formed:
            try:
                with self.joint((CollectiveKind.END, 0), []):
                    self._wait([self.world.Ibarrier()], (CollectiveKind.END, 0), asleep=1e-3)
                break
            except RankLost:
                self.regroup()
        with suppress(self._mpi.Exception):
            self._notices.read_the_last()

    def finalize(self) -> None:
        """Leave MPI as it is: its end may wait for ever for ranks that are lost."""

    def abort(self, status: int) -> None:
        insist()
        self._mpi.COMM_WORLD.Abort(status)


def _broadcast(world: Any, arrays: Sequence[Array], root: int) -> None:
    """Overwrite arrays, which have no gaps, with those of a rank."""
    for array in arrays:
        world.Bcast(array.reshape(-1).view(np.uint8), root)


class _Notices(MPINotices):
    """Those of ranks of which some may have waited more often than others: what counts are
    joints.
    """

    def begin(self) -> None:
        """Count nothing."""

    def come_to(self, joint: int) -> None:
        """Come to a joint."""
        self._things = joint

    def _tell(self, tag: int) -> None:
        # Whoever waits learns that a rank is lost.
        with suppress(self._mpi.Exception):
            super()._tell(tag)


class _Messages(MPIPendingMessages):
    """Messages that may fail at any time, as in backward passes; whoever waits for them is told."""

    def __init__(self, mpi: Any, *arguments: Any) -> None:
        self._mpi = mpi
        self._failed = False
        super().__init__(mpi, *arguments)

    def begin(self, number: int) -> None:
        super().begin(number)
        self._failed = False

    def expect(self, part: int, receives: Sequence[tuple[int, Array]]) -> None:
        with self._noted():
            super().expect(part, receives)

    def send(self, part: int, sends: Sequence[tuple[int, Array]]) -> None:
        with self._noted():
            super().send(part, sends)

    def progress(self) -> None:
        with self._noted():
            super().progress()

    def wait(self, collective: Collective) -> None:
        if self._failed:
            raise _Trouble
        super().wait(collective)

    def drop(self) -> None:
        with self._noted():
            super().drop()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except self._mpi.Exception:
            self._failed = True

    def requests(self) -> list[Any]:
        """Return those that may not be over."""
        return [*self._requests, *self._dropped]
