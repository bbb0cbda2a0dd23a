"""What the ranks of a program leave: arrays in files, and processes; and how ranks are put on
hosts.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from .programs.launcher import wait_until

ONE_HOST: dict[str, str] = {}
# Not read by ddbp: it has tests start ranks without MPI.
SURVIVE = {"TEST_LAUNCHER": "survive"}
# Without shared memory every rank counts as a host.
PLAIN = {"DDBP_SHARED_MEMORY": "0"}
# MPICH then takes one machine for two hosts: the first and the second half of the ranks, or even
# and odd ones.
HALVES = {"MPIR_CVAR_NUM_CLIQUES": "2"}
ODD_AND_EVEN = {"MPIR_CVAR_ODD_EVEN_CLIQUES": "1"}
# Of one block each, where small networks allow it.
BUCKETS = {"DDBP_BUCKET": "4"}
# Each host updates all parameters.
WHOLE = {"DDBP_WHOLE_HOSTS": "1"}


def in_full(*values: object) -> list[object]:
    """Return values of a parameter, or tuples of several, that `pytest -m full` alone tries."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.full)
        for value in values
    ]


def arrays(folder: Path, ranks: int) -> list[dict[str, np.ndarray]]:
    """Return the arrays that each rank has written to a folder, by name."""
    return [dict(np.load(folder / f"rank{rank}.npz")) for rank in range(ranks)]


def differences(result: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> list[str]:
    """Return the names of arrays that are not the expected ones to the last bit, or missing, but
    for what tells of the layout.
    """
    names = (result.keys() | expected.keys()) - {"hosts", "buckets", "early", "sizes", "updated"}
    return sorted(name for name in names if not _same(result.get(name), expected.get(name)))


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (
        a is not None
        and b is not None
        and (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
    )


def alive(pid: int) -> bool:
    """Return whether a process still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def still_alive(pids: Iterable[int]) -> list[int]:
    """Return those processes that do not end: who kills others may end before they have, or before
    their numbers are free.
    """
    left = [*pids]
    wait_until(lambda: not any(map(alive, left)))
    return [*filter(alive, left)]


def either(*texts: str) -> str:
    """Return the pattern of several texts of which any may be said: whichever of the ranks that see
    the same comes first ends the others, which may not have said it yet.
    """
    return f"({'|'.join(texts)})"
