"""Starts a script or a module on all cores with the right mpiexec: `ddbp launch [-n N] script.py
…`.

The ranks end with it: a signal that ends it is passed on, and where it is killed, the system tells
the launcher.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ddbp import settings
from ddbp.comm import shared_memory
from ddbp.comm.abort import ABORTED
from ddbp.comm.rank_process import tied
from ddbp.comm.threads import available_cores
from ddbp.observers import rank_status
from layers.errors import message

from . import post_mortem, program

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_GRACE = 5.0
"""Seconds that the launcher gets to end its ranks before it is killed."""
_SIGNALS = [
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class _Stopped(BaseException):
    """A signal has come that is to end the run."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


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
    result = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), **extra}
    # Its ranks are those of another job than this process's, if that is one.
    result.pop(settings.RANK_PROCESS, None)
    return result


def run_launcher(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a launcher, which ends when this process does; return its exit status, or 128 and the
    number of the signal that has ended one or the other.
    """
    process = None
    # Under nohup, say, one of them is ignored already.
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = [number for number, handler in previous.items() if handler != signal.SIG_IGN]

    def stop(number: int, frame: FrameType | None) -> None:
        # What comes after it does not keep the launcher from ending its ranks.
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        raise _Stopped(number)

    try:
        for number in handled:
            signal.signal(number, stop)
        process = subprocess.Popen(tied(command), env=environment)
        status = process.wait()
        return status if status >= 0 else 128 - status
    except _Stopped as stopped:
        print(f"ddbp launch: ended by {signal.Signals(stopped.number).name}", file=sys.stderr)
        return 128 + stopped.number
    finally:
        if process is not None and process.poll() is None:
            _end(process)
        for number in handled:
            signal.signal(number, previous[number])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a launcher, which ends its ranks."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
    try:
        place = tempfile.TemporaryDirectory(prefix="ddbp-status-", ignore_cleanup_errors=True)
    except OSError as error:
        print(f"ddbp launch: it will not be known where ranks are: {error}", file=sys.stderr)
        return run_launcher(full, environment())
    with place as folder:
        watch = post_mortem.Watch(Path(folder), options.ranks)
        with watch.running():
            status = run_launcher(full, environment(**{settings.STATUS: folder}))
        return _explained(status, Path(folder), options.ranks, watch.first)


def _explained(status: int, folder: Path, ranks: int, first: int | None) -> int:
    """Say what is known of ranks that have not come to their end, and clean up after them; return
    the exit status, which is not 0 then.
    """
    lines = []
    if status == 0:
        # MPICH ends all ranks with status 0 where one has left without a word.
        lines = post_mortem.unfinished(folder, ranks, first)
        status = ABORTED if lines else 0
    elif status > ABORTED and status - 128 not in _SIGNALS:
        # A rank that aborts the run says why, and the others then end in any order.
        lines = post_mortem.lines(folder, ranks, first)
    for line in lines:
        print(f"ddbp launch: {line}", file=sys.stderr)
    for rank in range(ranks):
        if found := rank_status.read(folder, rank):
            shared_memory.remove_files_of(found.pid)
    return status
