"""Waiting for other ranks: every wait looks, yields the core, and ends.

It ends with what it waits for, with an error that names the ranks that left, died or did not come,
or after `DDBP_TIMEOUT` seconds.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numba.core import event

from ddbp import settings, terminal
from layers.errors import message

from .base import Collective, CommunicationError, RankLost, described
from .rank_process import not_a_rank

# A wait gives its core away at every look, then sleeps between looks: oversubscribed ranks must run
# for what it waits for to happen at all.
_YIELDS, _SLEEP = 2000, 50e-6
# Seconds between looks for ranks that are missing, and after which a rank that waits tells the
# others so; then those who do not come can be named.
_LOOK, _NOTICE = 0.05, 0.5
_LOOK_TO_SURVIVE = 1e-3
"""Seconds between looks where others go on as soon as they see that a rank is dead."""
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

_LAUNCHER = 3.0
"""Seconds that `ddbp launch` gets to end all ranks when one is dead, before others say so: it tells
where they were.
"""
_NAMED = 4
"""So many of the ranks that are waited for are named in a line."""

WHERE: list[Callable[[int], str]] = []
"""What tells where the rank of a slot is, if anything can."""
KILLS: list[Callable[[int, int], None]] = []
"""What is told that the rank of a slot is killed by that of another one."""
GIVES_UP: list[Callable[[], None]] = []
"""What is called when time is up, before that is an error."""
WAITED: list[Callable[[Collective, float], None]] = []
"""What is told of each wait that was not over at once, when it is over: what it was for, and when
it began, by `time.monotonic()`.
"""


class Notices(Protocol):
    """What ranks tell each other of where they are, besides what they meet for.

    Attributes
    ----------
    compiling
        When ranks have told that they compile, as far as this one has read it, by
        `time.monotonic()`.
    """

    compiling: dict[int, float]

    def begin(self) -> None:
        """Count something that all ranks come to, whether or not this one will have to wait
        there.
        """

    def read(self) -> None:
        """Read what others have told."""

    def left(self) -> list[int]:
        """Return the ranks that ended before they came here."""

    def absent(self) -> list[int]:
        """Return the ranks of which nothing tells that they wait here."""

    def tell_waiting(self) -> None:
        """Tell the others that this rank waits here."""

    def tell_compiling(self) -> None:
        """Tell the others that this rank begins to compile a kernel."""

    def tell_left(self) -> None:
        """Tell the others that this rank ends."""


class Deadline:
    """The patience of a rank.

    Parameters
    ----------
    notices
        What ranks tell each other.
    rank, slots
        The number of this rank, and the slots of all.
    survives
        Whether ranks that are dead are no error, but a `RankLost`.

    Attributes
    ----------
    waiting
        What this rank waits for at present, None if it does not.
    waited
        Seconds that it has waited for so far, but for those waits that were over at once.
    """

    def __init__(
        self, notices: Notices, rank: int, slots: Sequence[int], *, survives: bool = False
    ) -> None:
        self._notices = notices
        self._survives = survives
        self.form(rank, slots)
        self._look = _LOOK_TO_SURVIVE if survives else _LOOK
        self._timeout = settings.timeout()
        self._left = False
        self.waiting: Collective | None = None
        self.waited = 0.0
        self._told = -_AGAIN
        self._say = _SAY
        # Since when in a wait a rank has been known to be dead, and how long that may be.
        self._dead_since = np.inf
        launched = settings.status_folder() is not None
        self._patience = _LAUNCHER if launched and not survives else 0.0
        if survives or len(slots) > 1:
            register: Any = event.register
            register("numba:compile", _Compilation(self))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._refuse)

    def form(self, rank: int, slots: Sequence[int], notices: Notices | None = None) -> None:
        """Number the ranks anew, who may tell each other by other notices."""
        self._rank = rank
        self._slots = slots
        self._notices = notices or self._notices

    def begin(self) -> None:
        """Count something that all ranks come to, whether or not this one will have to wait
        there.
        """
        self._notices.begin()

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
            self._notices.tell_compiling()

    def until(
        self,
        done: Callable[[], bool],
        collective: Collective,
        *,
        late: Callable[[], list[int]] = list,
        dead: Callable[[], list[int]] = list,
        fence: Callable[[list[int]], None] | None = None,
        asleep: float = 0.0,
    ) -> None:
        """Return when `done()` is true.

        `late` and `dead` return the ranks that have not come yet, or never will, as far as that is
        known; `fence` makes dead ones of those that have not come in time. With `asleep` seconds
        between looks the core is left to others from the beginning.
        """
        if done():
            return
        began, self.waiting = time.monotonic(), collective
        try:
            self._wait(done, collective, late, dead, fence, asleep)
        finally:
            self.waiting = None
            self.waited += time.monotonic() - began
            for tell in WAITED:
                tell(collective, began)

    def _wait(
        self,
        done: Callable[[], bool],
        collective: Collective,
        late: Callable[[], list[int]],
        dead: Callable[[], list[int]],
        fence: Callable[[list[int]], None] | None,
        asleep: float,
    ) -> None:
        yields, sleep = (0, asleep) if asleep else (_YIELDS, _SLEEP)
        looks = 0
        started = checked = 0.0
        while not done():
            looks += 1
            if looks <= yields:
                _yield_core()
            else:
                time.sleep(sleep)
            now = time.monotonic()
            if not started:
                started, self._say, self._dead_since = now, _SAY, np.inf
                checked = now if looks <= yields else 0.0
            if now - checked > self._look:
                checked = now
                self._look_for_the_missing(collective, late, dead, fence, now - started)

    def _look_for_the_missing(
        self,
        collective: Collective,
        late: Callable[[], list[int]],
        dead: Callable[[], list[int]],
        fence: Callable[[list[int]], None] | None,
        waited: float,
    ) -> None:
        """Raise if a rank left before it came here, its process has ended, or time is up."""
        if self._left:
            return
        notices = self._notices
        notices.read()
        must = f"all ranks must take part in {described(collective)}"
        missing = notices.left()
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
            self._dead_since = min(self._dead_since, waited)
        if killed and waited - self._dead_since >= self._patience:
            fix = (
                "It was killed, perhaps for want of memory: see dmesg, or the log of the batch"
                " system."
            )
            text = message(
                f"rank {self._rank}", must, f"the process of rank {_listed(killed)} gone", fix
            )
            if self._survives:
                raise RankLost(text, [self._slots[rank] for rank in killed])
            raise CommunicationError(text)
        if waited > min(_NOTICE, self._timeout / 4):
            notices.tell_waiting()
        if waited > self._say:
            self._say = 2 * waited
            absent = notices.absent()
            # Of those that wait the first one speaks.
            if self._rank == min({*range(len(self._slots))} - {*absent}):
                self._tell_the_user(collective, late() or absent, waited)
        compiled = time.monotonic() - max(notices.compiling.values(), default=-np.inf)
        if min(waited, compiled - _COMPILATION) > self._timeout:
            for tell in GIVES_UP:
                tell()
            absent = late() or notices.absent()
            if fence is not None:
                fence(absent)
                return
            who = f"nothing from rank {_listed(absent)}" if absent else "no answer"
            fix = "A rank may hang or be in another step; DDBP_TIMEOUT sets the limit in seconds."
            raise CommunicationError(
                message(f"rank {self._rank}", must, f"{who} for {waited:.0f} s", fix)
            )

    def _tell_the_user(self, collective: Collective, absent: list[int], waited: float) -> None:
        """Print who is waited for, and where those are, as far as that is known."""
        now = time.monotonic()
        facts = []
        for rank in absent[:_NAMED]:
            compiles = now - self._notices.compiling.get(rank, -np.inf) < _COMPILATION
            slot = self._slots[rank]
            places = [where(slot) for where in WHERE] if not compiles else ["compiling kernels"]
            facts.append(" ".join([f"rank {rank}", *(f"({place})" for place in places if place)]))
        facts += [f"{len(absent) - _NAMED} more"] if len(absent) > _NAMED else []
        who = ", ".join(facts) or "messages"
        # One write, so that lines of several processes do not mix.
        text = f"[rank {self._rank} of {len(self._slots)}] waits for {who} since {waited:.0f} s,"
        terminal.say(f"{text} to take part in {described(collective)}")

    def leave(self) -> None:
        """Tell the other ranks that this one ends."""
        self._left = True
        self._notices.tell_left()


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
