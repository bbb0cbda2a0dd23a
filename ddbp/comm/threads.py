"""Threads per rank, decided in one place: one. The unit of parallelism is the rank."""

import sys
from typing import Any

from .cores import available_cores

_LIMITS: list[Any] = []


def use_one_thread() -> None:
    """Set BLAS and OpenMP, as far as they are loaded, and Numba to one thread; once per process."""
    if not _LIMITS:
        import numba
        import threadpoolctl

        # First, because it loads an OpenMP library.
        numba.set_num_threads(1)
        _LIMITS.append(threadpoolctl.threadpool_limits(1))


def advise_other_cores() -> str | None:
    """Return one line on how to use the other cores, if this single process leaves some idle."""
    cores = available_cores()
    if cores < 2:
        return None
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = (sys.argv[0] or "script.py") if spec is None else f"-m {spec.name}"
    return (
        f"This process uses 1 of {cores} cores; `ddbp launch {program}` trains on all of them, with"
        " one process each."
    )
