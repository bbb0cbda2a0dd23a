"""What `ddbp launch` says of ranks that could not: which died, and where all of them were.

MPICH's launcher kills all ranks as soon as it notices that one has died, and names any of them; so
the launcher's own process watches them, and reads their status afterwards.
"""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddbp.observers import rank_status
from ddbp.observers.observer import StepPhase
from ddbp.observers.rank_status import LastStatus

from .deaths import Memory, cause, stack, wait_status

_LOOK = 0.1
"""Seconds between looks for processes that have begun."""


class Watch:
    """Watches the processes of ranks from the moment that they have a status.

    Attributes
    ----------
    first
        The first of them that ended, None if none has, or if that cannot be told: before all of
        them were watched, say.
    cause
        How it ended, in words, "" if that is not known.
    """

    def __init__(self, folder: Path, ranks: int) -> None:
        self._memory = Memory()
        self._folder = folder
        self._strangers = set(range(ranks))
        self._pids = dict[int, int]()
        self._over = threading.Event()
        self.first: int | None = None
        self.cause = ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Return a context in which a thread watches."""
        if not hasattr(os, "pidfd_open"):
            yield
            return
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        with select.epoll() as ended:
            while self._strangers and not self._over.is_set() and not ended.poll(_LOOK):
                self._meet_strangers(ended)
            # Those that had ended before they were watched are there in no order.
            if not self._strangers and len(ended.poll(0)) < 2:
                self._await_the_first(ended)
        for descriptor in self._pids:
            os.close(descriptor)

    def _meet_strangers(self, ended: select.epoll) -> None:
        for rank in list(self._strangers):
            found = rank_status.read(self._folder, rank)
            if found is None:
                continue
            try:
                descriptor = os.pidfd_open(found.pid)
            except OSError:
                # It is gone, and stays a stranger.
                continue
            self._strangers.remove(rank)
            self._pids[descriptor] = found.pid
            ended.register(descriptor, select.EPOLLIN)

    def _await_the_first(self, ended: select.epoll) -> None:
        # One more look when all is over: processes come in the order in which they ended.
        over = False
        while self.first is None and not over:
            over = self._over.is_set()
            for descriptor, _ in ended.poll(0 if over else _LOOK, 1):
                self.first = self._pids[descriptor]
                self.cause = cause(wait_status(descriptor, self.first), self._memory)


def lines(
    folder: Path, ranks: int, first: int | None, cause: str = "", *, aborted: bool = False
) -> list[str]:
    """Return what is to be said of so many ranks whose run has failed, nothing if an exception has
    said it, or none had begun. A rank that has crashed is named in any case: others may have seen
    that its process is gone, and raised an exception, before the launcher could end them.

    `first` is the process that ended first, if that is known, and `cause` how it did; `aborted`
    says whether a rank has ended all of them.
    """
    found = {
        rank: status
        for rank in range(ranks)
        if (status := rank_status.read(folder, rank)) is not None
    }
    phases = {status.phase for status in found.values()}
    aborted |= StepPhase.EXCEPTION in phases
    crashed = any(status.fault for status in found.values())
    if (aborted and not crashed) or phases <= {StepPhase.END}:
        return []
    stalled = [rank for rank, status in found.items() if status.stalled]
    dead = [
        rank
        for rank, status in found.items()
        # Where one has stalled, or aborted the run, others end in any order.
        if status.fault
        or (status.pid == first and status.phase is not StepPhase.END and not (stalled or aborted))
    ]
    groups: dict[str, list[int]] = {}
    for rank in range(ranks):
        if rank not in (*dead, *stalled):
            groups.setdefault(
                found[rank].where if rank in found else rank_status.BEFORE_TRAINER, []
            ).append(rank)
    result = []
    for rank in dead:
        how = f": {cause}" if cause and found[rank].pid == first else ""
        result.append(f"{_named([rank], found)} died {found[rank].where}{how}")
        result += stack(found[rank].fault)
    result += [f"{_named([rank], found)} stalled {found[rank].where}" for rank in stalled]
    return result + [
        f"{_named(group, found)} {'was' if len(group) == 1 else 'were'} {where}"
        for where, group in groups.items()
    ]


def unfinished(folder: Path, ranks: int, first: int | None) -> list[str]:
    """Return what is to be said of ranks that had begun, and have not come to their end, although
    the launcher takes the run to be a success; nothing if there are none.
    """
    found = {
        rank: status
        for rank in range(ranks)
        if (status := rank_status.read(folder, rank)) is not None
        and status.phase is not StepPhase.END
    }
    if not found:
        return []
    guilty = [rank for rank, status in found.items() if status.pid == first] or [*found]
    left = "left" if len(guilty) == 1 else "have left, one of them"
    reason = "as by os._exit, which ends all ranks"
    return [f"{_named(guilty, found)} {left} without coming to the end of the script, {reason}"]


def _named(ranks: list[int], found: dict[int, LastStatus]) -> str:
    pids = [found[rank].pid for rank in ranks if rank in found]
    processes = f" ({_listed('process', 'processes', pids)})" if pids else ""
    return f"{_listed('rank', 'ranks', ranks)}{processes}"


def _listed(one: str, several: str, numbers: list[int]) -> str:
    *head, last = map(str, numbers)
    return f"{several} {', '.join(head)} and {last}" if head else f"{one} {last}"
