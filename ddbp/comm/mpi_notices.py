"""What ranks tell each other by messages of MPI while they wait, or end."""

import time
from typing import Any

import numpy as np

from layers.types import Integers

from .mpi_messages import MessageTag

_LAST = 0.5
"""Seconds that a rank waits for the last notices."""


class MPINotices:
    """See `deadlines.Notices`; they go to the other ranks of `world`, a communicator of MPI."""

    def __init__(self, mpi: Any, world: Any) -> None:
        self._mpi = mpi
        self._world = world
        # All ranks come to the same things in the same order, so their number says where a rank is.
        self._things = 0
        self._noticed = 0
        self._sent: list[Integers] = []
        self._left_at: dict[int, int] = {}
        self._waiting_at: dict[int, int] = {}
        self.compiling: dict[int, float] = {}

    def begin(self) -> None:
        self._things += 1

    def read(self) -> None:
        status, things = self._mpi.Status(), np.empty(1, np.int64)
        for tag, known in (
            (MessageTag.LEFT, self._left_at),
            (MessageTag.WAITING, self._waiting_at),
        ):
            while self._world.Iprobe(self._mpi.ANY_SOURCE, tag, status):
                self._world.Recv(things, status.source, tag)
                known[status.source] = int(things[0])
        while self._world.Iprobe(self._mpi.ANY_SOURCE, MessageTag.COMPILING, status):
            self._world.Recv(things, status.source, MessageTag.COMPILING)
            self.compiling[status.source] = time.monotonic()

    def left(self) -> list[int]:
        return sorted(rank for rank, things in self._left_at.items() if things < self._things)

    def absent(self) -> list[int]:
        here = {rank for rank, things in self._waiting_at.items() if things >= self._things}
        return sorted({*range(self._world.size)} - here - {self._world.rank})

    def tell_waiting(self) -> None:
        if self._noticed < self._things:
            self._noticed = self._things
            self._tell(MessageTag.WAITING)

    def tell_compiling(self) -> None:
        self._tell(MessageTag.COMPILING)

    def tell_left(self) -> None:
        self._tell(MessageTag.LEFT)

    def _tell(self, tag: int) -> None:
        """Send the number of what this rank is at to all other ranks, and do not wait until they
        read it.
        """
        self._sent.append(np.array([self._things], np.int64))
        for rank in range(self._world.size):
            if rank != self._world.rank:
                self._world.Isend(self._sent[-1], rank, tag).Free()

    def read_the_last(self) -> None:
        """Read what the others sent, once all have left: MPI libraries may complain at the end of
        messages that nobody read.
        """
        end = time.monotonic() + _LAST
        while len(self._left_at) < self._world.size - 1 and time.monotonic() < end:
            self.read()
            time.sleep(0)
