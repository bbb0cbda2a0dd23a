"""What `ddbp launch` knows of the ranks that it has started, for those that must not die before."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ddbp
from ddbp import settings
from ddbp.observers import rank_status
from ddbp.observers.observer import StepPhase

LONGEST = 60.0


def wait_until(condition: Callable[[], bool], longest: float = LONGEST) -> None:
    """Look again and again, but not for ever."""
    end = time.monotonic() + longest
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def await_files(folder: Path, pattern: str, count: int) -> None:
    """Wait until so many files say that ranks have come to a place."""
    wait_until(lambda: len([*folder.glob(pattern)]) >= count)
    assert len([*folder.glob(pattern)]) >= count, pattern


def await_watch() -> None:
    """Wait until `ddbp launch`, if it has started the ranks, watches all of them; collective."""
    pids = ddbp.communicator().all_gather(np.array([os.getpid()]))[:, 0]
    ranks = set(pids.tolist())
    if settings.status_folder() is not None:
        wait_until(lambda: _watched(but_by=ranks) >= ranks)


def await_others_at(phase: StepPhase) -> None:
    """Wait until all other ranks are in a phase, as they tell `ddbp launch`; else for a while."""
    folder, comm = settings.status_folder(), ddbp.communicator()
    if folder is None:
        time.sleep(1.5)
        return
    others = set(range(comm.size)) - {comm.rank}
    wait_until(lambda: all(rank_status.read(folder, rank).phase == phase for rank in others))


def _watched(but_by: set[int]) -> set[int]:
    """Return the processes that some process of this machine watches, but for some: ranks that wait
    watch each other.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/fdinfo/*"):
        if int(path.parts[2]) in but_by:
            continue
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found |= {int(line.split()[1]) for line in lines if line.startswith("Pid:")}
    return found
