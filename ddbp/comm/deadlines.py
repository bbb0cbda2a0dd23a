"""Waiting for other ranks: every wait looks, yields the core, and ends.

It ends with what it waits for, with an error that names the ranks that left, died or did not come,
or after `DDBP_TIMEOUT` seconds.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import event

from ddbp import settings, terminal
from layers.errors import message
from layers.types import Integers

from .base import Collective, CommunicationError, described
from .mpi_messages import MessageTag
from .rank_process import not_a_rank

# A wait gives its core away at every look, then sleeps between looks: oversubscribed ranks must run
# for what it waits for to happen at all.
_YIELDS, _SLEEP = 2000, 50e-6
# Seconds between looks for ranks that are missing, and after which a rank that waits tells the
# others so; then those who do not come can be named.
_LOOK, _NOTICE = 0.05, 0.5
_SAY = 30.0
"""Seconds of a wait after which a line says who is waited for; then after twice as long, and so
on.
"""
_COMPILATION = 120.0
"""Seconds that a kernel may take to compile: for so long after a rank has told that it begins with
one nobody's time is up.
"""
_AGAIN = 1.0
"""Seconds between two times that a rank tells that it compiles."""

_NAMED = 4
"""So many of the ranks that are waited for are named in a line."""

WHERE: list[Callable[[int], str]] = []
"""What tells where a rank is, if anything can."""
GIVES_UP: list[Callable[[], None]] = []
"""What is called when time is up, before that is an error."""


class Deadline:
    """The patience of a rank; it sends notices to the other ranks of `world`, an MPI
    communicator.

    Attributes
    ----------
    waiting
        What this rank waits for at present, None if it does not.
    waited
        Seconds that it has waited for so far, but for those waits that were over at once.
    """

    def __init__(self, mpi: Any, world: Any) -> None:
        self._mpi = mpi
        self._world = world
        self._rank = world.rank
        self._size = world.size
        self._timeout = settings.timeout()
        self._left = False
        self.waiting: Collective | None = None
        self.waited = 0.0
        # All ranks come to the same things in the same order, so their number says where a rank is.
        self._things = 0
        self._noticed = 0
        self._notices: list[Integers] = []
        self._left_at: dict[int, int] = {}
        self._waiting_at: dict[int, int] = {}
        # When ranks told that they compile, as far as this one has read it.
        self._compiling: dict[int, float] = {}
        self._told = -_AGAIN
        self._say = _SAY
        if self._size > 1:
            register: Any = event.register
            register("numba:compile", _Compilation(self))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._refuse)

    def begin(self) -> None:
        """Count something that all ranks come to, whether or not this one will have to wait
        there.
        """
        self._things += 1

    def _refuse(self) -> None:
        """Have a forked child come to nothing: the messages and meetings are its parent's."""

        def begin() -> None:
            raise not_a_rank()

        self.begin = begin  # type: ignore[method-assign]
        self._left = True

    def compiling(self) -> None:
        """Tell the other ranks that this one begins to compile a kernel."""
        now = time.monotonic()
        if now - self._told >= _AGAIN and not self._left:
            self._told = now
            self._tell(MessageTag.COMPILING)

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
        if done():
            return
        began, self.waiting = time.monotonic(), collective
        try:
            self._wait(done, collective, late, dead, asleep)
        finally:
            self.waiting = None
            self.waited += time.monotonic() - began

    def _wait(
        self,
        done: Callable[[], bool],
        collective: Collective,
        late: Callable[[], list[int]],
        dead: Callable[[], list[int]],
        asleep: float,
    ) -> None:
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
            if not started:
                started, self._say = now, _SAY
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
        if waited > self._say:
            self._say = 2 * waited
            absent = self._absent()
            # Of those that wait the first one speaks.
            if self._rank == min({*range(self._size)} - {*absent}):
                self._tell_the_user(collective, late() or absent, waited)
        compiled = time.monotonic() - max(self._compiling.values(), default=-np.inf)
        if min(waited, compiled - _COMPILATION) > self._timeout:
            for tell in GIVES_UP:
                tell()
            absent = late() or self._absent()
            who = f"nothing from rank {_listed(absent)}" if absent else "no answer"
            fix = "A rank may hang or be in another step; DDBP_TIMEOUT sets the limit in seconds."
            raise CommunicationError(
                message(f"rank {self._rank}", must, f"{who} for {waited:.0f} s", fix)
            )

    def _absent(self) -> list[int]:
        """Return the ranks that have not told that they wait here."""
        here = {rank for rank, things in self._waiting_at.items() if things >= self._things}
        return sorted({*range(self._size)} - here - {self._rank})

    def _tell_the_user(self, collective: Collective, absent: list[int], waited: float) -> None:
        """Print who is waited for, and where those are, as far as that is known."""
        now = time.monotonic()
        facts = []
        for rank in absent[:_NAMED]:
            compiles = now - self._compiling.get(rank, -np.inf) < _COMPILATION
            places = [where(rank) for where in WHERE] if not compiles else ["compiling kernels"]
            facts.append(" ".join([f"rank {rank}", *(f"({place})" for place in places if place)]))
        facts += [f"{len(absent) - _NAMED} more"] if len(absent) > _NAMED else []
        who = ", ".join(facts) or "messages"
        # One write, so that lines of several processes do not mix.
        text = f"[rank {self._rank} of {self._size}] waits for {who} since {waited:.0f} s, to take"
        terminal.say(f"{text} part in {described(collective)}")

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
        while self._world.Iprobe(self._mpi.ANY_SOURCE, MessageTag.COMPILING, status):
            self._world.Recv(things, status.source, MessageTag.COMPILING)
            self._compiling[status.source] = time.monotonic()

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


class _Compilation(event.Listener):
    """Has a rank tell the others when it begins to compile a kernel."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def on_start(self, event: Any) -> None:
        self._deadline.compiling()

    def on_end(self, event: Any) -> None:
        """Say nothing."""


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _yield_core() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)
