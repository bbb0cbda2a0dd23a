"""The same bits on aarch64 as here, by an emulator: of networks, layers, a script, and of jobs
whose ranks are there and here.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ddbp.commands.launch import find_mpiexec

from .conftest import PACKAGES, PROGRAMS, run_process

# An emulator compiles kernels in minutes.
LIMIT = 3000
pytestmark = [pytest.mark.full, pytest.mark.timeout(2 * LIMIT)]
KINDS, CASES = PROGRAMS / "train_kinds.py", PROGRAMS / "digest_cases.py"


@pytest.fixture(scope="session")
def there():
    """Return the Python of aarch64."""
    python = Path(os.environ.get("DDBP_TEST_AARCH64", "unset"))
    if not python.is_file():
        pytest.skip(
            "there is no Python of aarch64: make one with .ci/aarch64 FOLDER, and set"
            " DDBP_TEST_AARCH64 to FOLDER/python"
        )
    return python


def printed(*command: object) -> Any:
    """Return the object that a command prints last."""
    # The emulator does not let one rank read the memory of another, as MPICH would.
    environment = {"DDBP_TIMEOUT": str(LIMIT), "MPIR_CVAR_CH4_CMA_ENABLE": "0"}
    return run_process(command, timeout=LIMIT, **environment).result()


@pytest.mark.parametrize("kind", ["cnn", "gpt", "cnn in bf16", "gpt in bf16", "lstm in bf16"])
def test_networks_train_to_the_same_bits(kind, there):
    assert printed(there, KINDS, kind) == printed(sys.executable, KINDS, kind)


def test_layers_that_call_every_room_of_kernels_give_the_same_bits(there):
    here = printed(sys.executable, CASES, "--covering")
    found = printed(there, CASES, *here)
    assert [case for case in here if here[case] != found[case]] == []


@pytest.mark.parametrize("first", ["here", "there"])
def test_two_ranks_give_the_bits_of_one_wherever_they_are(first, there, is_mpich):
    if not is_mpich:
        pytest.skip("needs the launcher of MPICH, which the ranks by emulation have")
    kinds = ("mlp", "gru")
    job = ["-n", 1, sys.executable if first == "here" else there, KINDS, *kinds]
    job += [":", "-n", 1, there, KINDS, *kinds]
    assert printed(find_mpiexec(), *job) == printed(sys.executable, KINDS, *kinds)


def test_a_script_trains_to_the_same_bits(there, tmp_path):
    script = PACKAGES / "scripts" / "train_surrogate.py"
    digests = []
    for python in (sys.executable, there):
        options = ["--samples", "1000", "--epochs", "2", "--run-dir", tmp_path / str(len(digests))]
        found = printed(python, script, *options, "--quiet")
        digests.append(found["parameters_sha256"])
    assert digests[0] == digests[1]
