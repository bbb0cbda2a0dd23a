"""Waiting for other ranks: every wait looks, yields the core, and ends.

It ends with what it waits for, with an error that names the ranks that left, died or did not come,
or after `DDBP_TIMEOUT` seconds.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ddbp import settings
from layers.errors import message
from layers.types import Integers

from .base import Collective, CommunicationError, described
from .mpi_messages import MessageTag

# A wait gives its core away at every look, then sleeps between looks: oversubscribed ranks must run
# for what it waits for to happen at all.
_YIELDS, _SLEEP = 2000, 50e-6
# Seconds between looks for ranks that are missing, and after which a rank that waits tells the
# others so; then those who do not come can be named.
_LOOK, _NOTICE = 0.05, 0.5


class Deadline:
    """The patience of a rank; it sends notices to the other ranks of `world`, an MPI
    communicator.
    """

    def __init__(self, mpi: Any, world: Any) -> None:
        self._mpi = mpi
        self._world = world
        self._rank = world.rank
        self._size = world.size
        self._timeout = settings.timeout()
        self._left = False
        # All ranks come to the same things in the same order, so their number says where a rank is.
        self._things = 0
        self._noticed = 0
        self._notices: list[Integers] = []
        self._left_at: dict[int, int] = {}
        self._waiting_at: dict[int, int] = {}

    def begin(self) -> None:
        """Count something that all ranks come to, whether or not this one will have to wait
        there.
        """
        self._things += 1

    def until(
        self,
        done: Callable[[], bool],
        collective: Collective,
        *,
        late: Callable[[], list[int]] = list,
        dead: Callable[[], list[int]] = list,
        asleep: float = 0.0,
    ) -> None:
        """Return when `done()` is true.

        `late` and `dead` return the ranks that have not come yet, or never will, as far as that is
        known. With `asleep` seconds between looks the core is left to others from the beginning.
        """
        yields, sleep = (0, asleep) if asleep else (_YIELDS, _SLEEP)
        looks = 0
        started = checked = 0.0
        while not done():
            looks += 1
            if looks <= yields:
                _yield_core()
                continue
            time.sleep(sleep)
            now = time.monotonic()
            started = started or now
            if now - checked > _LOOK:
                checked = now
                self._look_for_the_missing(collective, late, dead, now - started)

    def _look_for_the_missing(
        self,
        collective: Collective,
        late: Callable[[], list[int]],
        dead: Callable[[], list[int]],
        waited: float,
    ) -> None:
        """Raise if a rank left before it came here, its process has ended, or time is up."""
        if self._left:
            return
        self._read_notices()
        must = f"all ranks must take part in {described(collective)}"
        missing = sorted(rank for rank, things in self._left_at.items() if things < self._things)
        if missing:
            fix = (
                "Look above for its error; every rank must take the same number of steps and"
                " evaluations."
            )
            raise CommunicationError(
                message(f"rank {self._rank}", must, f"rank {_listed(missing)} ended", fix)
            )
        killed = dead()
        if killed:
            fix = (
                "It was killed, perhaps for want of memory: see dmesg, or the log of the batch"
                " system."
            )
            raise CommunicationError(
                message(
                    f"rank {self._rank}", must, f"the process of rank {_listed(killed)} gone", fix
                )
            )
        if waited > min(_NOTICE, self._timeout / 4) and self._noticed < self._things:
            self._noticed = self._things
            self._tell(MessageTag.WAITING)
        if waited > self._timeout:
            absent = late() or sorted(
                {r for r in range(self._size) if self._waiting_at.get(r, 0) < self._things}
                - {self._rank}
            )
            who = f"nothing from rank {_listed(absent)}" if absent else "no answer"
            fix = "A rank may hang or be in another step; DDBP_TIMEOUT sets the limit in seconds."
            raise CommunicationError(
                message(f"rank {self._rank}", must, f"{who} for {waited:.0f} s", fix)
            )

    def _tell(self, tag: int) -> None:
        """Send the number of what this rank is at to all other ranks, and do not wait until they
        read it.
        """
        self._notices.append(np.array([self._things], np.int64))
        for rank in range(self._size):
            if rank != self._rank:
                self._world.Isend(self._notices[-1], rank, tag).Free()

    def _read_notices(self) -> None:
        status, things = self._mpi.Status(), np.empty(1, np.int64)
        for tag, known in (
            (MessageTag.LEFT, self._left_at),
            (MessageTag.WAITING, self._waiting_at),
        ):
            while self._world.Iprobe(self._mpi.ANY_SOURCE, tag, status):
                self._world.Recv(things, status.source, tag)
                known[status.source] = int(things[0])

    def leave(self) -> None:
        """Tell the other ranks that this one ends."""
        self._left = True
        self._tell(MessageTag.LEFT)

    def read_the_last(self) -> None:
        """Read what the others sent, once all have left: MPI libraries may complain at the end of
        messages that nobody read.
        """
        end = time.monotonic() + _NOTICE
        while len(self._left_at) < self._size - 1 and time.monotonic() < end:
            self._read_notices()
            _yield_core()


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _yield_core() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)
