"""Threads per rank, decided in one place: one. The unit of parallelism is the rank."""

import os
import shlex
import sys
from typing import Any

from ddbp.terminal import plain

from .cores import available_cores

_NAME = "ddbp"
"""The command, which is a module, too."""
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
    return (
        f"This process uses 1 of {cores} cores; `ddbp launch {_program()}` trains on all of them,"
        " with one process each."
    )


def _program() -> str:
    """Return what Python runs, and its arguments, as one would type them after `ddbp launch`."""
    script, *arguments = sys.argv or [""]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    # That of a folder of modules is called MODULE.__main__; commands of a package are scripts.
    module = os.path.basename(script) if spec is None else spec.name.removesuffix(".__main__")
    started = ["-m", module] if spec is not None or module == _NAME else [script or "script.py"]
    return plain(shlex.join([*started, *arguments]))
