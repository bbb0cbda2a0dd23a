"""What tests share: programs run in processes of their own, alone or under mpirun, always with a
time limit.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ddbp
from ddbp.commands.launch import find_mpiexec

from . import distribution
from .mpi.pool.jobs import Pool
from .mpi.ranks import SURVIVE

PROGRAMS = Path(__file__).parent / "mpi" / "programs"
PACKAGES = Path(ddbp.__file__).resolve().parents[1]
LONGEST = 600.0
"""Seconds after which a process, or a program of ranks, hangs: on a busy machine they may take many
times what they take elsewhere.
"""
LAUNCHER_VARIABLES = ("PMI_", "PMIX_", "OMPI_", "MPI_", "HYDI_", "SLURM_", "DDBP_")


def pytest_configure() -> None:
    # Where a shell has started pytest in the background, or by nohup, processes of tests would
    # ignore signals as it does.
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda *_: None}
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return distribution.workers(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> distribution.Scheduler:
    return distribution.make_scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Workers must agree on names, and where an object lies is another place in each of them.
    if placed := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"names of tests must hold no addresses; give ids: {placed[0]}")
    distribution.leave_out_full(config, items)
    if hasattr(config, "workerinput"):
        distribution.longest_first(items)


@dataclass(frozen=True)
class Finished:
    """A process that has ended by itself: exit status and output."""

    status: int
    out: str
    err: str

    def result(self) -> Any:
        """Return the JSON object in the last line of a training script's output, having checked
        that the script succeeded.
        """
        assert self.status == 0, self.err
        return json.loads(self.out.splitlines()[-1])


def clean_environment(extra: dict[str, str]) -> dict[str, str]:
    """Return the environment without what a launcher would have set, with the packages under test
    importable.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_VARIABLES)
    }
    # Hundreds of processes would compile all modules, each for itself: a third of their start.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    path = os.pathsep.join(filter(None, (str(PACKAGES), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


def run_process(
    command: Sequence[object], *, timeout: float, cwd: Path | None = None, **environment: str
) -> Finished:
    """Run a command to its end; past the time limit, kill it with all its children and fail the
    test.
    """
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=clean_environment(environment),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(
            f"{' '.join(map(str, command))} ran past its limit of {timeout:g}"
            f" s\n{out[-2000:]}\n{err[-4000:]}"
        )
    return Finished(process.returncode, out, err)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., Finished]:
    """Run Python with the given arguments, as one process: `run_python("-c", code)`, or a program
    of tests/mpi/programs.
    """

    def run(
        *arguments: object,
        timeout: float = LONGEST,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> Finished:
        first, *others = arguments
        known = isinstance(first, str) and (PROGRAMS / first).is_file()
        return run_process(
            [*prefix, sys.executable, PROGRAMS / first if known else first, *others],
            timeout=timeout,
            cwd=cwd,
            **environment,
        )

    return run


@cache
def launcher_banner() -> str:
    """Return what the MPI launcher says of itself."""
    return run_process([find_mpiexec(), "--version"], timeout=60).out


@pytest.fixture(scope="session")
def is_mpich() -> bool:
    """Return whether the MPI launcher is MPICH's."""
    return "HYDRA" in launcher_banner()


@pytest.fixture(scope="session")
def launcher() -> Callable[..., list[object]]:
    """Return the function that gives the command that runs a script of Python on so many ranks, in
    an environment: that of MPI, or `ddbp launch --survive`.

    Tests are skipped without an mpiexec.
    """
    try:
        mpiexec = find_mpiexec()
    except FileNotFoundError as error:
        pytest.skip(f"needs an MPI launcher: {error}")
    open_mpi = any(name in launcher_banner() for name in ("Open MPI", "prte"))
    crowded = ("--oversubscribe", "--allow-run-as-root") if open_mpi else ()

    def command(ranks: int, environment: Mapping[str, str]) -> list[object]:
        if environment.items() >= SURVIVE.items():
            return [sys.executable, "-m", "ddbp", "launch", "--survive", "-n", ranks]
        return [mpiexec, *crowded, "-n", ranks, sys.executable]

    return command


def require_launcher_of(environment: dict[str, str]) -> None:
    """Skip a test that takes one machine for two hosts where the library cannot."""
    if "HYDRA" not in launcher_banner() and any(name.endswith("_CLIQUES") for name in environment):
        pytest.skip("only MPICH takes one machine for two hosts")


@pytest.fixture(scope="session")
def mpirun(launcher: Callable[..., list[object]]) -> Callable[..., Finished]:
    """Run a script of tests/mpi/programs (or another path) on so many ranks that are started for
    it, and may be killed.

    `prefix` comes before the launcher.
    """

    def run(
        ranks: int,
        script: str | Path,
        *arguments: object,
        timeout: float = LONGEST,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> Finished:
        require_launcher_of(environment)
        command = [*prefix, *launcher(ranks, environment), PROGRAMS / script, *arguments]
        return run_process(command, timeout=timeout, **environment)

    return run


@pytest.fixture(scope="session")
def pooled(request: pytest.FixtureRequest) -> Iterator[Callable[..., Finished]]:
    """Run a script of tests/mpi/programs (or another path) on so many ranks that live from test to
    test; on 0 ranks, in a process without MPI.

    Standard output and error of the ranks come one after the other. The script must leave modules
    as they were.
    """

    def launch(ranks: int, environment: Mapping[str, str]) -> list[object]:
        command: list[object] = request.getfixturevalue("launcher")(ranks, environment)
        return command

    pool = Pool(launch, clean_environment)

    def run(
        ranks: int,
        script: str | Path,
        *arguments: object,
        timeout: float = LONGEST,
        **environment: str,
    ) -> Finished:
        if ranks:
            require_launcher_of(environment)
        answer = pool.run(ranks, PROGRAMS / script, arguments, environment, timeout)
        return Finished(int(answer.failed), answer.out, answer.err)

    yield run
    pool.end()
