"""What `ddbp launch` says of ranks that could not: which died, and where all of them were.

MPICH's launcher kills all ranks as soon as it notices that one has died, and names any of them; so
the launcher's own process watches them, and reads their status afterwards.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ddbp.job.deaths import Memory, cause, stack, wait_status
from ddbp.observers import rank_status
from ddbp.observers.observer import StepPhase
from ddbp.observers.rank_status import LastStatus

from . import end_signals

_TOLD = (StepPhase.END, StepPhase.EXCEPTION)
"""Where ranks end that need no cause."""

_LOOK = 0.1
"""Seconds between looks for processes that have begun."""
_LOOK_FOR_ERRORS = 2.0
"""Seconds between looks for ranks that have come to an exception."""


class Watch:
    """Watches the processes of ranks from the moment that they have a status.

    Parameters
    ----------
    folder
        Where ranks keep their status.
    ranks
        How many there are.
    Attributes
    ----------
    first
        The first of them that ended, None if none has, or if that cannot be told: before all of
        them were watched, say.
    causes
        How those ended, in words, that did not come to their end; "" if that is not known.
    killed
        Whether the launcher had to be killed.
    """

    def __init__(self, folder: Path, ranks: int) -> None:
        self._memory = Memory()
        self._folder = folder
        self._ranks = ranks
        self._strangers = set(range(ranks))
        self._pids = dict[int, int]()
        self._kill: Callable[[], None] | None = None
        self.killed = False
        self._over = threading.Event()
        self._looked = time.monotonic()
        self._error = 0.0
        self.first: int | None = None
        self.causes = dict[int, str]()

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

    def began(self, kill: Callable[[], None]) -> None:
        """Take note of what kills the launcher, where it has not ended `GRACE` seconds after an
        exception of a rank: it may wait for ever for ranks of a host that cannot be reached.
        """
        self._kill = kill

    def _run(self) -> None:
        over, ordered = False, True
        with select.epoll() as ended:
            while not over:
                # One more look when all is over.
                over = self._over.is_set()
                if self._strangers:
                    self._meet_strangers(ended)
                    # Those that had ended before all were watched are there in no order.
                    ready = len(ended.poll(0))
                    ordered = ordered and ready < (1 if self._strangers else 2)
                # Processes come in the order in which they ended.
                for descriptor, _ in ended.poll(0 if over else _LOOK):
                    ended.unregister(descriptor)
                    self._note(descriptor, first=ordered and self.first is None)
                self._look_for_errors()
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

    def _note(self, descriptor: int, *, first: bool) -> None:
        """Note that a process has ended."""
        pid = self._pids[descriptor]
        if first:
            self.first = pid
        if not any(found.pid == pid and found.phase in _TOLD for found in self._found()):
            self.causes[pid] = cause(wait_status(descriptor, pid), self._memory)

    def _look_for_errors(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_FOR_ERRORS:
            return
        self._looked = now
        if any(found.phase is StepPhase.EXCEPTION for found in self._found()):
            self._error = self._error or now
            if now - self._error > end_signals.GRACE and self._kill is not None:
                self.killed = True
                self._kill()

    def _found(self) -> list[LastStatus]:
        return [
            found
            for rank in range(self._ranks)
            if (found := rank_status.read(self._folder, rank)) is not None
        ]


def lines(
    folder: Path,
    ranks: int,
    first: int | None,
    causes: Mapping[int, str] = {},
    *,
    aborted: bool = False,
) -> list[str]:
    """Return what is to be said of so many ranks whose run has failed, nothing if an exception has
    said it, or none had begun. A rank that has crashed is named in any case: others may have seen
    that its process is gone, and raised an exception, before the launcher could end them.

    `first` is the process that ended first, if that is known, and `causes` how processes did;
    `aborted` says whether a rank has ended all of them.
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
        known = found[rank].pid == first or found[rank].fault
        how = causes.get(found[rank].pid, "") if known else ""
        result.append(_died(rank, found, how))
        result += stack(found[rank].fault)
    result += [f"{_named([rank], found)} stalled {found[rank].where}" for rank in stalled]
    return result + [
        f"{_named(group, found)} {'was' if len(group) == 1 else 'were'} {where}"
        for where, group in groups.items()
    ]


def lost(folder: Path, ranks: int, causes: Mapping[int, str]) -> tuple[list[str], bool]:
    """Return what is to be said of ranks that others have survived, and whether any has come to its
    end: if none has, the launcher has ended the job, whatever it says.
    """
    found = {
        rank: status
        for rank in range(ranks)
        if (status := rank_status.read(folder, rank)) is not None
    }
    dead = [rank for rank, status in found.items() if status.phase not in _TOLD]
    result = [_died(rank, found, causes.get(found[rank].pid, "")) for rank in dead]
    return result, not found or any(each.phase is StepPhase.END for each in found.values())


def _died(rank: int, found: dict[int, LastStatus], how: str) -> str:
    return f"{_named([rank], found)} died {found[rank].where}{how and f': {how}'}"


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
