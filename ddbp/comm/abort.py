"""An exception on any rank ends all ranks with a non-zero status, after one traceback that names
the rank.
"""

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from ddbp import terminal

from .base import Communicator, NotRecoveredError, RankLost

STARTED: list[Callable[[Communicator], None]] = []
"""What is called when a rank has started, before it meets others."""
BEFORE_ABORT: list[Callable[[], None]] = []
"""What is called before a rank ends all ranks by an exception."""
ABORTED = 1
"""The exit status of a run that a rank has ended."""
SAVED = 75
"""The exit status of a run that was asked to end, and can go on from its checkpoint: EX_TEMPFAIL of
sysexits.h.
"""
STALLED = 124
"""That of a run that came no further: the status of timeout(1)."""
LOST = 76
"""That of a rank which cannot go on as others have been killed, for a launcher that starts all of
them anew.
"""


_INSIST = 5.0
"""Seconds that MPI gets to end all ranks."""


class Job(Protocol):
    """A rank as part of a job."""

    rank: int
    size: int

    def leave(self) -> None:
        """Tell the other ranks that this one ends, and wait for them."""

    def abort(self, status: int) -> None:
        """End all ranks at once."""


def insist() -> None:
    """End this process in a while, where MPI does not end all ranks."""

    def end() -> None:
        time.sleep(_INSIST)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=end, daemon=True).start()


def abort_all_ranks_on_exceptions(comm: Job, *, lost: int = ABORTED) -> None:
    """Install the hooks; called once, when a rank starts. `lost` is the status where the error is
    that other ranks have been killed.
    """

    def report_and_abort(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        for note in BEFORE_ABORT:
            note()
        lines = "".join(traceback.format_exception(kind, error, trace))
        if sys.stdout is not None:
            sys.stdout.flush()
        # One write, so that the lines of several ranks do not mix.
        terminal.write(
            "".join(f"[rank {comm.rank} of {comm.size}] {line}\n" for line in lines.splitlines())
        )
        comm.abort(lost if isinstance(error, RankLost | NotRecoveredError) else ABORTED)

    def in_thread(arguments: Any) -> None:
        report_and_abort(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    sys.excepthook = report_and_abort
    threading.excepthook = in_thread
    # MPI would wait for ever at the end of a rank that leaves early, by sys.exit for example; the
    # others are told instead.
    atexit.register(comm.leave)

    def in_child() -> None:
        # It must neither end the others nor take its leave of them.
        sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
        atexit.unregister(comm.leave)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)
