"""Which of several processes of this host have ended, as others than their parent see it.

A process that nobody has waited for still has its number; so `kill(pid, 0)` takes it to run. A
pidfd tells the truth, and is never of another process that gets the number later.
"""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

_ENDED = (b"Z", b"X")
"""States of processes that have ended, in /proc (proc_pid_stat(5))."""
_PROC = Path("/proc/self/stat").exists()


class Processes:
    """Watches processes, under names that are numbers."""

    def __init__(self) -> None:
        self._poll = select.poll() if hasattr(os, "pidfd_open") else None
        self._descriptors: dict[int, int] = {}
        # Where there are no pidfds, or they are not allowed: process and start.
        self._others: dict[int, tuple[int, int]] = {}
        self._ended: set[int] = set()

    def follow(self, name: int, pid: int, born: int) -> bool:
        """Watch the process with this number and start, unless it is watched already; return
        whether it is, which it is not if it has ended or cannot be seen from here.
        """
        if name in self._descriptors or name in self._others or name in self._ended:
            return True
        if not pid or start_of(pid) != born:
            return False
        if self._poll is not None:
            with suppress(OSError):
                descriptor = os.pidfd_open(pid)
                # It may have ended in between, and another one have its number.
                if start_of(pid) == born:
                    self._descriptors[name] = descriptor
                    self._poll.register(descriptor, select.POLLIN)
                    return True
                os.close(descriptor)
                return False
        self._others[name] = pid, born
        return True

    def ended(self) -> set[int]:
        """Return the names of those that have ended."""
        if self._poll is not None and self._descriptors:
            ready = {descriptor for descriptor, _ in self._poll.poll(0)}
            for name, descriptor in list(self._descriptors.items()):
                if descriptor in ready:
                    self._forget(name)
                    self._ended.add(name)
        for name, (pid, born) in list(self._others.items()):
            if _has_ended(pid, born):
                del self._others[name]
                self._ended.add(name)
        return self._ended

    def count_as_ended(self, name: int) -> None:
        """Take one that cannot be watched to have ended."""
        self._ended.add(name)

    def _forget(self, name: int) -> None:
        descriptor = self._descriptors.pop(name)
        if self._poll is not None:
            self._poll.unregister(descriptor)
        os.close(descriptor)

    def kill(self, name: int) -> None:
        """Kill a process that is watched."""
        with suppress(OSError):
            if name in self._descriptors:
                signal.pidfd_send_signal(self._descriptors[name], signal.SIGKILL)
            elif name in self._others:
                os.kill(self._others[name][0], signal.SIGKILL)


def start_of(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine did; None if there is none of
    this number, 0 if the system does not tell.
    """
    if not _PROC:
        return 0 if _exists(pid) else None
    found = _stat(pid)
    return None if found is None else int(found[19])


def lives(pid: object, born: object = None) -> bool:
    """Return whether a process of this host lives, given what a file says is its number, and its
    start, if that is known.
    """
    if type(pid) is not int or not 0 < pid < 2**31:
        return False
    start = start_of(pid)
    if start is None:
        # Systems may hide the processes of others.
        return _exists(pid)
    return not _has_ended(pid, born if type(born) is int and born > 0 else start)


def _has_ended(pid: int, born: int) -> bool:
    if not _PROC:
        return not _exists(pid)
    found = _stat(pid)
    return found is None or found[0] in _ENDED or int(found[19]) != born


def _stat(pid: int) -> list[bytes] | None:
    """Return what the system tells of a process, from its state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(b")")[2].split()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
