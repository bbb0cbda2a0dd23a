"""How the process of a rank has ended, as far as the system tells.

Ranks are children of the MPI launcher, which tells of none of them; but Linux does of a process
whose pidfd is open (ioctl PIDFD_GET_INFO, since 6.15), or in /proc until its parent has asked.
"""

import os
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path

_GET_INFO, _INFO_EXIT = 0xC040FF0B, 1 << 3
"""PIDFD_GET_INFO, PIDFD_INFO_EXIT of linux/pidfd.h."""
_INFO = struct.Struct("QQ11Ii")
"""struct pidfd_info, which begins with what is known and ends with the exit code."""
_PATIENCE, _LOOK = 1.0, 0.01
"""Seconds until a process that has ended is asked after, and between looks."""
_MIB = 2**20
_UNLIMITED = 2**60


def wait_status(descriptor: int, pid: int) -> int | None:
    """Return the wait status, as of os.wait, of a process that has ended, by its pidfd; None if the
    system does not tell.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        # Asked before the look: this process may not run for longer than that after it.
        last = time.monotonic() >= end
        status = _of_pidfd(descriptor)
        if status is None:
            status = _of_zombie(pid)
        if status is not None or last:
            return status
        time.sleep(_LOOK)


def _of_pidfd(descriptor: int) -> int | None:
    # Other systems have no fcntl.
    import fcntl

    info = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    with suppress(OSError):
        fcntl.ioctl(descriptor, _GET_INFO, info)
        known, *_, status = _INFO.unpack(info)
        return status if known & _INFO_EXIT else None
    return None


def _of_zombie(pid: int) -> int | None:
    with suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return int(fields[-1]) if state == "Z" else None
    return None


class Memory:
    """The memory of this process's control group, in which its ranks are, too; what the kernel
    tells of all processes where it has none.

    Parameters
    ----------
    root
        Where control groups are mounted.
    proc
        Where the kernel tells of processes.
    """

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        own, paths = "", {}
        with suppress(OSError):
            own = (proc / "self" / "cgroup").read_text()
        for line in own.splitlines():
            _, controllers, path = line.split(":", 2)
            paths[controllers] = path.lstrip("/")
        # In a container the path may be that of the host.
        version_1, version_2 = root / "memory", root
        self._folders = [
            version_1 / paths.get("memory", ""),
            version_1,
            version_2 / paths.get("", ""),
            version_2,
        ]
        self._statistics = proc / "vmstat"
        self._kills = self._killed()

    def killed(self) -> bool | None:
        """Return whether a process has been killed for want of memory that this has not told of
        yet, None if nobody knows.
        """
        now = self._killed()
        if now is None or self._kills is None:
            return None
        told, self._kills = self._kills, min(self._kills + 1, now)
        return now > told

    def usage(self) -> str:
        """Return how much of it has been used at most, in words; "" if it has no limit."""
        most = self._number("memory.max", "memory.limit_in_bytes")
        peak = self._number("memory.peak", "memory.max_usage_in_bytes")
        if most is None or peak is None or most > _UNLIMITED:
            return ""
        return f" ({peak / _MIB:.0f} of {most / _MIB:.0f} MiB of its control group were in use)"

    def _killed(self) -> int | None:
        text = self._read("memory.events", "memory.oom_control")
        if "oom_kill " not in text:
            with suppress(OSError):
                text = self._statistics.read_text()
        counts = dict(line.split() for line in text.splitlines())
        return int(counts["oom_kill"]) if "oom_kill" in counts else None

    def _number(self, *names: str) -> int | None:
        text = self._read(*names).strip()
        return int(text) if text.isdecimal() else None

    def _read(self, *names: str) -> str:
        """Return the first of these files that there is, in the innermost folder."""
        for folder in self._folders:
            for name in names:
                with suppress(OSError):
                    return (folder / name).read_text()
        return ""


def cause(status: int | None, memory: Memory) -> str:
    """Return how a process has ended, in words, given its wait status; "" if that is not known."""
    if status is None:
        return ""
    if os.WIFEXITED(status):
        return f"it left with status {os.WEXITSTATUS(status)}, as by os._exit"
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        return f"killed by {_named(number)}"
    killed = memory.killed()
    if killed:
        return f"killed by the system, for want of memory{memory.usage()}"
    if killed is None:
        return f"killed by SIGKILL, perhaps for want of memory{memory.usage()}"
    return "killed by SIGKILL, by somebody: the system has killed nothing for want of memory"


def stack(fault: str) -> list[str]:
    """Return the lines that tell of the signal and of the thread that it ended."""
    told, _, rest = fault.partition("Current thread")
    stack = (rest or fault).split("\n\n")[0].splitlines()
    return [line for line in (*told.splitlines()[:1], *stack[1:]) if line]


def _named(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"
