"""The Python stacks of a process, also of one that can do nothing any more: a timer of the
interpreter's own writes them where other processes can read them.
"""

import faulthandler
import os
import tempfile
import threading
from pathlib import Path

_LARGEST = 64 << 10
"""Bytes that are read of stacks."""


class Stacks:
    """The stacks of this process, in a file without a name.

    Attributes
    ----------
    descriptor
        That of the file, by which other processes find it.
    """

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("ddbp-stacks")
        else:
            self.descriptor, name = tempfile.mkstemp(prefix="ddbp-stacks-")
            os.unlink(name)
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            release = self._lock.release
            os.register_at_fork(
                before=self._be_forked, after_in_parent=release, after_in_child=release
            )

    def _be_forked(self) -> None:
        """Stop the timer: a forked child would wait for its thread at the end, which it lacks."""
        self._lock.acquire()
        self.disarm()

    def arm(self, seconds: float) -> None:
        """Have stacks written unless this is called again within so many seconds: where no thread
        can run, as a library does not return.
        """
        with self._lock:
            # A process that was stopped, and goes on, has written some for nothing.
            self._empty()
            if seconds < threading.TIMEOUT_MAX:
                faulthandler.dump_traceback_later(seconds, file=self.descriptor)

    def disarm(self) -> None:
        """Have nothing written."""
        faulthandler.cancel_dump_traceback_later()

    def of_threads(self, but: int) -> str:
        """Return the stacks of all threads but that of an identifier."""
        with self._lock:
            self.disarm()
            self._empty()
            faulthandler.dump_traceback(self.descriptor, all_threads=True)
            written = os.pread(self.descriptor, _LARGEST, 0)
            self._empty()
        return _without(but, written)

    @staticmethod
    def of_process(pid: int, descriptor: int, but: int) -> str:
        """Return what another process has written, "" if nothing can be read."""
        try:
            with Path(f"/proc/{pid}/fd/{descriptor}").open("rb") as file:
                return _without(but, file.read(_LARGEST))
        except OSError:
            return ""

    def _empty(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)


def _without(thread: int, written: bytes) -> str:
    stacks = written.decode(errors="replace").strip().split("\n\n")
    return "\n".join(each for each in stacks if f"0x{thread:016x}" not in each)
