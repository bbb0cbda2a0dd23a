"""What a bug report needs: `ddbp info`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ddbp import settings
from ddbp.comm.base import CommunicationError
from ddbp.comm.current import communicator
from ddbp.training.environment import environment
from layers.kernels import cache

from .launch import find_mpiexec


def facts() -> dict[str, Any]:
    """Return the facts, by name."""
    return {
        **environment(),
        "kernel cache": _kernel_cache(),
        **_mpi_facts(),
        "environment": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("DDBP_", "NUMBA_", "OMP_", "LAYERS_"))
        },
    }


def _kernel_cache() -> str:
    if cache.CACHE_FOLDER is None:
        return "none: no folder can be used"
    sizes = [file.stat().st_size for file in cache.CACHE_FOLDER.rglob("*.code")]
    return f"{cache.CACHE_FOLDER} ({len(sizes)} kernels, {sum(sizes) / 2**20:.1f} MiB)"


def _mpi_facts() -> dict[str, Any]:
    try:
        launcher = find_mpiexec()
    except FileNotFoundError:
        launcher = "none found"
    if settings.launched():
        return {"mpiexec": launcher, **communicator().describe()}
    # In a process of its own: starting MPI can end a process on machines where it must not run.
    code = "from mpi4py import MPI; print(MPI.Get_library_version().splitlines()[0])"
    probe = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    library = (
        probe.stdout.strip()
        or f"not usable: {(probe.stderr.strip().splitlines() or ['no message'])[-1]}"
    )
    return {"mpiexec": launcher, "mpi library": library, **communicator().describe()}


def run(arguments: Sequence[str]) -> int:
    """Print the facts on rank 0."""
    about = "Print versions, processor, MPI and settings: what a bug report needs."
    argparse.ArgumentParser(prog="ddbp info", description=about).parse_args(arguments)
    try:
        rank, collected = communicator().rank, facts()
    except (ValueError, CommunicationError) as error:
        print(error, file=sys.stderr)
        return 1
    if rank == 0:
        width = max(map(len, collected))
        for name, fact in collected.items():
            print(f"{name:{width}}  {fact}")
    return 0
