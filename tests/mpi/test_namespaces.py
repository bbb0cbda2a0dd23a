"""Two network namespaces as hosts, which reach each other by TCP only: the bits are those of one
process.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddbp.commands.launch import find_mpiexec

from .ranks import BUCKETS, ONE_HOST, PLAIN, arrays, differences, in_full

PROGRAMS = Path(__file__).parent / "programs"
# Else the library may look for memory that it could share, which real hosts have not.
TCP = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}


@pytest.fixture
def on_two_hosts(run_python, is_mpich, tmp_path):
    """Return the function that runs a program on 2 ranks of one host and 1 of another."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing or not is_mpich:
        pytest.skip(f"needs {' '.join(missing) or 'the launcher of MPICH'}")
    separate = ["unshare", "--net", "--uts", "--mount"]
    allowed = subprocess.run(
        [*separate, "ip", "link", "add", "first", "type", "veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    if allowed.returncode:
        pytest.skip(f"needs the right to make network namespaces: {allowed.stderr.strip()}")

    def run(program, *arguments, **environment):
        code = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
        command = [
            *separate,
            "sh",
            PROGRAMS / "namespaces.sh",
            find_mpiexec(),
            tmp_path,
            sys.executable,
        ]

        finished = run_python(
            "-c", code, *command, PROGRAMS / program, *arguments, **TCP, **environment
        )
        assert finished.status == 0, finished.err
        # The launcher alone takes some thousands.
        assert int((tmp_path / "received").read_text()) > 100_000
        return finished

    return run


def test_rows_of_any_length_are_gathered(on_two_hosts):
    assert on_two_hosts("wide_rows.py").out.strip() == "[2, 1]"


@pytest.mark.parametrize(
    "environment", [BUCKETS, *in_full(PLAIN)], ids=["shared, buckets", "plain"]
)
def test_bits_of_all_networks_are_those_of_one_process(
    environment, on_two_hosts, run_alone, tmp_path
):
    expected = run_alone("layouts.py")
    on_two_hosts("layouts.py", tmp_path, **environment)
    for result in arrays(tmp_path, 3):
        assert result["hosts"].tolist() == ([1, 1, 1] if environment is PLAIN else [2, 1])
        assert differences(result, expected) == []


@pytest.mark.parametrize("environment", [PLAIN, *in_full(ONE_HOST)], ids=["plain", "shared"])
def test_bits_are_those_of_one_process_in_spite_of_delays(
    environment, on_two_hosts, run_alone, tmp_path
):
    expected = run_alone("stress.py", "--steps", 60)
    on_two_hosts("stress.py", tmp_path, "--steps", 60, "--delays", 5, **environment)
    for result in arrays(tmp_path, 3):
        assert result["hosts"].tolist() == ([1, 1, 1] if environment else [2, 1])
        assert differences(result, expected) == []
