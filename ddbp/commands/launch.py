"""Starts a script or a module on all cores with the right mpiexec: `ddbp launch [-n N] script.py
…`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ddbp import settings
from ddbp.comm.abort import ABORTED
from ddbp.comm.threads import available_cores
from layers.errors import message

from . import post_mortem, program

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def find_mpiexec() -> str:
    """Return the launcher of the MPI wheel in this environment, else the one on PATH.

    Raises
    ------
    FileNotFoundError
        There is neither.
    """
    beside = Path(sys.executable).parent
    for folder in (str(beside), None):
        for name in ("mpiexec", "mpirun"):
            found = shutil.which(name, path=folder)
            if found:
                return found
    fix = 'Install one with pip install "ddbp[mpich]", or load your site\'s MPI module.'
    raise FileNotFoundError(
        message("ddbp launch", "there must be an mpiexec", f"none in {beside} or on PATH", fix)
    )


def command(mpiexec: str, ranks: int, arguments: Sequence[str]) -> list[str]:
    """Return the command that calls python with these arguments on so many ranks, bound to cores if
    there are enough.
    """
    banner = subprocess.run(
        [mpiexec, "--version"], capture_output=True, text=True, check=False
    ).stdout
    fits = ranks <= available_cores()
    if "Open MPI" in banner or "OpenRTE" in banner or "prte" in banner.lower():
        options = ["--bind-to", "core"] if fits else ["--oversubscribe", "--bind-to", "none"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--allow-run-as-root")
    else:
        options = ["-bind-to", "core"] if fits else []
    return [mpiexec, "-n", str(ranks), *options, sys.executable, *arguments]


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of a rank: one thread, and what else is given."""
    return {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), **extra}


def run(arguments: Sequence[str]) -> int:
    """Run `ddbp launch`; return the exit status of the launcher."""
    parser = argparse.ArgumentParser(
        prog="ddbp launch",
        description="Run a script or a module on several ranks, one process per core.",
    )
    parser.add_argument(
        "-n",
        "--ranks",
        type=int,
        default=available_cores(),
        help="number of ranks (default: all cores, %(default)s)",
    )
    program.add_arguments(parser)
    options = program.parse(parser, arguments)
    if options.ranks < 1:
        parser.error(f"-n must be at least 1; got {options.ranks}")
    what = program.arguments_of_python(parser, options)
    try:
        full = command(find_mpiexec(), options.ranks, what)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(shlex.join(full), file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="ddbp-status-", ignore_cleanup_errors=True) as folder:
        watch = post_mortem.Watch(Path(folder), options.ranks)
        with watch.running():
            status = subprocess.run(
                full, env=environment(**{settings.STATUS: folder}), check=False
            ).returncode
        # A rank that aborts the run says why, and the others then end in any order; of a launcher
        # that was killed nothing is known.
        for line in (
            post_mortem.lines(Path(folder), options.ranks, watch.first) if status > ABORTED else ()
        ):
            print(f"ddbp launch: {line}", file=sys.stderr)
    return status
