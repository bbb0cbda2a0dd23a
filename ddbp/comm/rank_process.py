"""The process that is a rank: it ends with the launcher, and what it forks or starts is no rank."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from ddbp import settings
from layers.errors import message

from .base import CommunicationError

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def not_a_rank() -> CommunicationError:
    """Return the error for a process that has the environment or the memory of a rank only."""
    must = "a process that trains under mpirun must be one that the launcher started"
    got = f"process {os.getpid()}, which a rank started or forked"
    fix = f"Set {settings.MPI}=0 in its environment, and it trains alone."
    return CommunicationError(message("ddbp", must, got, fix))


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return the function by which a process has itself sent a signal when its parent ends, however
    that does; it does nothing where the system cannot (other ones than Linux).

    Library and parent are known before: it may be called between fork and exec.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    control, own = ctypes.CDLL(None).prctl, os.getpid()

    def begin() -> None:
        parent = own if os.getpid() != own else os.getppid()
        control(_SET_DEATH_SIGNAL, int(number), 0, 0, 0)
        if os.getppid() != parent:
            # It has ended in between.
            os.kill(os.getpid(), number)

    return begin
