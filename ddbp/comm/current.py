"""The communicator of this process."""

import atexit
import os
from contextlib import suppress

from ddbp import settings, terminal

from .abort import STARTED
from .base import Communicator
from .rank_process import end_with_parent, not_a_rank
from .serial import SerialCommunicator

_CURRENT: list[Communicator] = []

# Settings that are not right are an error where they are needed, and not when this is imported.
with suppress(ValueError):
    if settings.claim_rank():
        terminal.by_lines()
        if settings.status_folder():
            # Open MPI leaves ranks alone when its launcher is killed.
            end_with_parent()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_CURRENT.clear)


@atexit.register
def _finalize() -> None:
    """End MPI after what a script does at its own end, which is registered later and so comes
    before.
    """
    for comm in _CURRENT:
        comm.finalize()


def communicator() -> Communicator:
    """Return the communicator of this process, made at the first call: MPI if an MPI launcher
    started it, one of ranks in shared memory if `ddbp launch --survive` or `Trainer.fit(ranks=…)`
    did, else serial.

    Raises
    ------
    CommunicationError
        A rank has started this process, or MPI cannot start.
    """
    if not _CURRENT:
        rank, survivor = settings.launched_in_job(), settings.launched_to_survive()
        if rank is not None:
            if settings.is_started_by_a_rank():
                raise not_a_rank()
            from .host import JobCommunicator

            _CURRENT.append(JobCommunicator(*rank))
        elif survivor is not None:
            if settings.is_started_by_a_rank():
                raise not_a_rank()
            from .host import HostCommunicator

            _CURRENT.append(HostCommunicator(*survivor))
        elif settings.launched_under_mpi():
            if settings.is_started_by_a_rank():
                raise not_a_rank()
            if settings.survives_by_mpi():
                from .ulfm import SurvivingMPICommunicator

                _CURRENT.append(SurvivingMPICommunicator())
            else:
                from .mpi import MPICommunicator

                _CURRENT.append(MPICommunicator())
        else:
            _CURRENT.append(SerialCommunicator())
            for tell in STARTED:
                tell(_CURRENT[0])
    return _CURRENT[0]
