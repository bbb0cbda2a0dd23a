"""The communicator of this process."""

from ddbp import settings

from .base import Communicator
from .serial import SerialCommunicator

_CURRENT: list[Communicator] = []


def communicator() -> Communicator:
    """Return the communicator of this process, made at the first call: MPI if an MPI launcher
    started it, else serial.
    """
    if not _CURRENT:
        if settings.launched_under_mpi():
            from .mpi import MPICommunicator

            _CURRENT.append(MPICommunicator())
        else:
            _CURRENT.append(SerialCommunicator())
    return _CURRENT[0]
