"""The process that is a rank: it ends with the launcher, and what it forks or starts is no rank."""

import ctypes
import os
import sys
from collections.abc import Sequence

from ddbp import settings
from layers.errors import message

from .base import CommunicationError

_SET_DEATH_SIGNAL, _KILL = 1, 9
"""PR_SET_PDEATHSIG of prctl(2), and what it is set to."""
# A program of its own: between fork and exec a process with threads must not run Python.
_TIED = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_SET_DEATH_SIGNAL}, {_KILL}, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def not_a_rank() -> CommunicationError:
    """Return the error for a process that has the environment or the memory of a rank only."""
    must = "a process that trains under mpirun must be one that the launcher started"
    got = f"process {os.getpid()}, which a rank started or forked"
    fix = f"Set {settings.MPI}=0 in its environment, and it trains alone."
    return CommunicationError(message("ddbp", must, got, fix))


def end_with_parent() -> None:
    """Have the system kill this process when its parent ends, however that does. Other systems than
    Linux do not.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, _KILL, 0, 0, 0)


def tied(command: Sequence[str]) -> list[str]:
    """Return the command that runs another one, in the same process, and is killed when this
    process ends, however that does. Other systems than Linux do not.
    """
    if not sys.platform.startswith("linux"):
        return [*command]
    return [sys.executable, "-S", "-c", _TIED, str(os.getpid()), *command]
