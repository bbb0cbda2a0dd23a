"""The ranks of an MPI job. The only file that imports mpi4py, and only when launched under MPI.

The ranks of a host meet in memory that they share; MPI carries what goes between hosts. Without
shared memory every rank counts as a host of its own.
"""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from ddbp import settings
from layers.engine.memory import zeros
from layers.errors import message
from layers.types import Array, Integers

from . import shared_memory
from .abort import STARTED, abort_all_ranks_on_exceptions
from .base import Collective, CollectiveKind, CommunicationError, FixedRanks, Ranks, in_turn
from .cores import bind, places, usable_cores
from .deadlines import Deadline
from .host_barrier import HostBarrier, SharedRow, compile_kernels
from .host_ranks import HostRanks
from .mpi_messages import MessageTag, MPIPendingMessages, cut
from .mpi_notices import MPINotices
from .ranks_of_host import RanksOfHost
from .topology import Topology

HEAD = 64
"""Words with which a row begins, that go to other hosts in one message of a fixed size."""


class MPICommunicator(HostRanks, FixedRanks):
    """The ranks of MPI_COMM_WORLD, numbered host by host.

    Attributes
    ----------
    world
        The communicator of MPI, for what is not offered here.
    """

    def __init__(self) -> None:
        self._mpi = mpi = _start()
        first = mpi.COMM_WORLD
        local = first.Split_type(mpi.COMM_TYPE_SHARED, key=first.rank)
        if settings.binds() and local.size == first.size:
            bind(0, places(local.size, usable_cores())[local.rank])
        self._local = local.Split(local.rank // (settings.ranks_of_host() or local.size))
        leaders = first.allgather(self._local.allreduce(first.rank, mpi.MIN))
        # All ranks have started.
        shared_memory.take_names_of_mpi()
        order = sorted(range(first.size), key=lambda rank: (leaders[rank], rank))
        self.world = first.Split(0, order.index(first.rank))
        self.rank = self.world.rank
        self.size = self.world.size
        self._notices = MPINotices(mpi, self.world)
        self._deadline = Deadline(self._notices, self.rank, range(self.size))
        # Until ranks share memory this one is alone.
        self._host_barrier, self._first_slot = HostBarrier(np.zeros, 0, 1), self.rank
        abort_all_ranks_on_exceptions(self)
        for tell in STARTED:
            tell(self)
        with self.leader_first():
            compile_kernels()
        self.hosts: Integers = np.flatnonzero(
            [True, *(leaders[a] != leaders[b] for a, b in pairwise(order)), True]
        )
        self._held: dict[str, int] = {}
        self.sent = 0
        barrier = self._make_host_barrier()
        self.topology = Topology(self.hosts, self.rank)
        self._host_barrier, self._first_slot = barrier, self.topology.first
        self._one_host = len(self.hosts) == 2
        self.of_host: Ranks = self if self._one_host else RanksOfHost(self, self._gather_of_host)
        if not self._one_host:
            self._connect()

    def _connect(self) -> None:
        """Exchange an empty message with every other rank. MPI connects two ranks at their first
        message only: if the link is down then, that one is lost, where a later one waits.
        """
        empty = np.empty(0, np.uint8)
        for away in range(1, self.size):
            to, source = (self.rank + away) % self.size, (self.rank - away) % self.size
            self.sendrecv((CollectiveKind.CONNECT, 0), [(to, empty)], [(source, empty)])

    def _make_host_barrier(self) -> HostBarrier:
        """Return the barrier of this host's ranks, or one for this rank alone if they share no
        memory.
        """
        if settings.shares_memory():
            self._shares = self._local.size > 1
            barrier, code, room = None, 0, {"host barrier": HostBarrier.room(self._local.size)}
            self.plan_memory(room)
            try:
                barrier = HostBarrier(self.host_array, self._local.rank, self._local.size)
                # What this rank has said of itself alone; it may be stopped before it says more.
                barrier.signs()[self._local.rank][:] = self._host_barrier.signs()[0]
            except shared_memory.NotSharedError:
                code = 1
            if not self.world.allreduce(code, self._mpi.MAX) and barrier is not None:
                self._held = room
                return barrier
        self._shares = False
        self.hosts = np.arange(self.size + 1)
        return HostBarrier(np.zeros, 0, 1)

    # Memory

    def plan_memory(self, needs: Mapping[str, int]) -> None:
        self._demand = shared_memory.MemoryPlan(needs, self._held)

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        self._deadline.begin()
        if not self._shares:
            return zeros(shape, dtype)
        return self._allocate(shape, dtype, self._local.rank, self._local.size)

    def _allocate(self, shape: tuple[int, ...], dtype: Any, rank: int, ranks: int) -> Array:
        return shared_memory.allocate(shape, dtype, rank, ranks, self)

    def refusal(self, code: int) -> CommunicationError:
        """Return the error for memory that cannot be had, given the error number."""
        return self._demand.refusal(code)

    def from_first(self, text: Array) -> None:
        """Overwrite text with that of the first rank of this host."""
        self._wait([self._local.Ibcast(text, root=0)], (CollectiveKind.GATHER, 0))

    def error_of_any(self, error: OSError | None) -> int:
        """Return the number of the first error of this host's ranks, 0 if none of them failed to
        share memory.
        """
        codes = np.empty(self._local.size, np.int64)
        code = 0 if error is None else error.errno or -1
        self._wait([self._local.Iallgather(np.array([code]), codes)], (CollectiveKind.GATHER, 0))
        return int(codes[codes != 0][0]) if codes.any() else 0

    # Meetings

    def gather(self, collective: Collective, row: SharedRow, same: int = 0) -> bool:
        alike = super().gather(collective, row, same)
        if self._one_host:
            return alike
        rows, words = row.rows, SharedRow.TITLE + same
        self._gather_world(collective, rows)
        return bool((rows[:, :words] == rows[self.rank, :words]).all())

    def _gather_of_host(self, row: SharedRow) -> None:
        self._deadline.begin()
        collective = CollectiveKind.GATHER, 0
        row.title[0], row.title[2] = collective
        gather = self._gather_host_in_parts if row.long else self._gather_host
        gather(collective, row.rows, SharedRow.TITLE)

    def _gather_world(self, collective: Collective, rows: Integers) -> None:
        """Complete the rows (ranks, words) of all ranks, of which those of this host are there."""
        heads = np.zeros((self.size, HEAD), np.int64)
        heads[self.topology.first : self.topology.last, : rows.shape[1]] = rows[
            self.topology.first : self.topology.last, :HEAD
        ]
        self._share(collective, MessageTag.HEAD, heads)
        mismatched = (heads[:, :2] != heads[self.rank, :2]).any(axis=1)
        if mismatched.any():
            self._require_title(collective, heads, 0, int(np.argmax(mismatched)))
        rows[:, :HEAD] = heads[:, : rows.shape[1]]
        if rows.shape[1] > HEAD:
            rest = np.ascontiguousarray(rows[:, HEAD:])
            self._share(collective, MessageTag.REST, rest)
            rows[:, HEAD:] = rest

    def _share(self, collective: Collective, tag: int, rows: Integers) -> None:
        """Complete rows (ranks, k), of which those of this host are there, from the other hosts."""
        receives = [
            (rank, rows[self.hosts[host] : self.hosts[host + 1]])
            for rank, host in self.topology.receive_from
        ]
        self._swap(
            collective,
            tag,
            [
                (rank, rows[self.topology.first : self.topology.last])
                for rank in self.topology.send_to
            ],
            receives,
        )

    # Messages

    def sendrecv(
        self,
        collective: Collective,
        sends: Sequence[tuple[int, Array]],
        receives: Sequence[tuple[int, Array]],
    ) -> None:
        self._deadline.begin()
        self._swap(collective, MessageTag.PART, sends, receives)

    def _swap(
        self,
        collective: Collective,
        tag: int,
        sends: Sequence[tuple[int, Array]],
        receives: Sequence[tuple[int, Array]],
    ) -> None:
        parts = [(rank, part) for rank, array in receives for part in cut(array)]
        requests = [self.world.Irecv(part, rank, tag) for rank, part in parts]
        requests += [
            self.world.Isend(part, rank, tag) for rank, array in sends for part in cut(array)
        ]
        self._count(sends)
        self._wait(requests, collective, [rank for rank, _ in parts])

    def _count(self, sends: Sequence[tuple[int, Array]]) -> None:
        self.sent += sum(array.nbytes for _, array in sends)

    def pending_messages(self, parts: int) -> MPIPendingMessages:
        return MPIPendingMessages(self._mpi, self.world, parts, self._await_pending, self._count)

    def _await_pending(
        self, requests: list[Any], collective: Collective, receive_from: Sequence[int]
    ) -> None:
        self._deadline.begin()
        self._wait(requests, collective, receive_from)

    def broadcast(self, array: Array) -> None:
        self._deadline.begin()
        self._wait(
            [self.world.Ibcast(part, root=0) for part in cut(array)], (CollectiveKind.BROADCAST, 0)
        )

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        self._deadline.begin()
        first = self._local.rank == 0

        def meet() -> None:
            # A spinning barrier would take the core on which the first rank compiles.
            barrier, place = self._local.Ibarrier(), (CollectiveKind.LEADER_FIRST, 0)
            self._wait([barrier], place, asleep=0.0 if first else 5e-3)

        with in_turn(meet, first=first):
            yield

    def _wait(
        self,
        requests: list[Any],
        collective: Collective,
        receive_from: Sequence[int] = (),
        *,
        asleep: float = 0.0,
    ) -> None:
        test, late = self._mpi.Request.Testall, late_of(requests, receive_from)
        self._deadline.until(lambda: test(requests), collective, late=late, asleep=asleep)

    # The job

    def describe(self) -> dict[str, Any]:
        names = self.all_gather(
            np.frombuffer(socket.gethostname().encode().ljust(64)[:64], np.uint8)
        )
        hosts = sorted({bytes(name).decode().strip() for name in names})
        shared = [int(last - first) for first, last in pairwise(self.hosts)]
        return {
            "mpi": _library(self._mpi),
            "ranks": self.size,
            "hosts": hosts,
            "ranks that share memory": shared,
        }

    def leave(self) -> None:
        """Tell the other ranks that this one ends, and wait for them (MPI ends only when all
        do).
        """
        self._deadline.leave()
        self._wait([self.world.Ibarrier()], (CollectiveKind.END, 0), asleep=1e-3)
        self._notices.read_the_last()

    def finalize(self) -> None:
        """End MPI, unless somebody has. Left to mpi4py, a forked child would do so, too, and end
        the job.
        """
        if not self._mpi.Is_finalized():
            self._mpi.Finalize()

    def abort(self, status: int) -> None:
        """End all ranks at once."""
        self.world.Abort(status)


def late_of(requests: Sequence[Any], receive_from: Sequence[int]) -> Callable[[], list[int]]:
    """Return what tells the ranks that the first of some requests receive from, and have not."""

    def late() -> list[int]:
        pairs = zip(receive_from, requests, strict=False)
        return sorted({source for source, request in pairs if not request.Test()})

    return late


def _start() -> Any:
    """Start MPI and return its module, having checked that the library is that of the launcher."""
    try:
        import mpi4py

        # Not at import: a library that finds the launcher of another may end the process; better
        # asked for its name first.
        mpi4py.rc.initialize, mpi4py.rc.finalize = False, False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        fix = 'Install one with pip install "ddbp[mpich]", or load your site\'s module.'
        raise CommunicationError(
            message("ddbp", "a run under mpirun needs an MPI library", error, fix)
        ) from error
    if settings.launched_by_open_mpi() and "Open MPI" not in _library(MPI):
        raise _mismatch(f"mpirun of Open MPI, library {_library(MPI)}")
    if not MPI.Is_initialized():
        if (ranks := settings.launched_local_ranks() or 1) > 1:
            shared_memory.require_room_for_mpi(ranks)
        MPI.Init_thread()
    size = MPI.COMM_WORLD.size
    expected = settings.launched_ranks() or size
    if expected != size:
        raise _mismatch(f"{size} of {expected} ranks, library {_library(MPI)}")
    return MPI


def _library(mpi: Any) -> str:
    text: str = mpi.Get_library_version().splitlines()[0].strip("\x00")
    return text


def _mismatch(got: str) -> CommunicationError:
    fix = 'Start with "ddbp launch", which finds the right one, or with the mpirun of that library.'
    return CommunicationError(
        message("ddbp", "mpirun and the MPI library must belong together", got, fix)
    )
