"""What tests share: programs run in processes of their own, alone or under mpirun, always with a
time limit.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ddbp
from ddbp.commands.launch import find_mpiexec

from . import distribution

PROGRAMS = Path(__file__).parent / "mpi" / "programs"
PACKAGES = Path(ddbp.__file__).resolve().parents[1]
LAUNCHER_VARIABLES = ("PMI_", "PMIX_", "OMPI_", "MPI_", "HYDI_", "SLURM_", "DDBP_")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return distribution.workers(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> distribution.Scheduler:
    return distribution.make_scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        distribution.longest_first(items)


@dataclass(frozen=True)
class Finished:
    """A process that has ended by itself: exit status, output, and how long it took."""

    status: int
    out: str
    err: str
    seconds: float

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
    path = os.pathsep.join(filter(None, (str(PACKAGES), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


def run_process(
    command: Sequence[object], *, timeout: float, cwd: Path | None = None, **environment: str
) -> Finished:
    """Run a command to its end; past the time limit, kill it with all its children and fail the
    test.
    """
    started = time.monotonic()
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
    return Finished(process.returncode, out, err, time.monotonic() - started)


@pytest.fixture(scope="session")
def run_python() -> Callable[..., Finished]:
    """Run Python with the given arguments, as one process: `run_python("-c", code)`, or a program
    of tests/mpi/programs.
    """

    def run(
        *arguments: object, timeout: float = 120, cwd: Path | None = None, **environment: str
    ) -> Finished:
        first, *others = arguments
        known = isinstance(first, str) and (PROGRAMS / first).is_file()
        return run_process(
            [sys.executable, PROGRAMS / first if known else first, *others],
            timeout=timeout,
            cwd=cwd,
            **environment,
        )

    return run


def launcher_banner() -> str:
    """Return what the MPI launcher says of itself."""
    return run_process([find_mpiexec(), "--version"], timeout=60).out


@pytest.fixture(scope="session")
def is_mpich() -> bool:
    """Return whether the MPI launcher is MPICH's."""
    return "HYDRA" in launcher_banner()


@pytest.fixture(scope="session")
def mpirun() -> Callable[..., Finished]:
    """Run a script of tests/mpi/programs (or another path) on so many ranks; the tests are skipped
    without an mpiexec.

    `prefix` comes before the launcher. Tests that ask MPICH for several hosts are skipped where the
    library is another.
    """
    try:
        mpiexec = find_mpiexec()
    except FileNotFoundError as error:
        pytest.skip(f"needs an MPI launcher: {error}")
    banner = launcher_banner()
    is_mpich = "HYDRA" in banner
    crowded = (
        ("--oversubscribe", "--allow-run-as-root")
        if "Open MPI" in banner or "prte" in banner
        else ()
    )

    def run(
        ranks: int,
        script: str | Path,
        *arguments: object,
        timeout: float = 90,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> Finished:
        if not is_mpich and any(name.endswith("_CLIQUES") for name in environment):
            pytest.skip("only MPICH takes one machine for two hosts")
        command = [
            *prefix,
            mpiexec,
            *crowded,
            "-n",
            ranks,
            sys.executable,
            PROGRAMS / script,
            *arguments,
        ]
        return run_process(command, timeout=timeout, **environment)

    return run
