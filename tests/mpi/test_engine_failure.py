"""A rank that fails inside the engine: all ranks end within seconds, the error says what to do, and
no shared memory stays.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .ranks import ODD_AND_EVEN, ONE_HOST, PLAIN, in_full, still_alive

# Kernels are compiled before, so that no rank waits for one that compiles.
pytestmark = pytest.mark.usefixtures("without_misdeed")
PROGRAM = "engine_misdeeds.py"


@pytest.fixture(scope="session")
def private_memory(tmp_path_factory):
    """Return the function that makes a prefix for commands: they see a /dev/shm of their own, of so
    many megabytes.

    What is left there in the end is written to a file.
    """
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    made = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"needs the right to mount a /dev/shm: {made.stderr.strip()}")

    def prefix(megabytes, left):
        mount = f"mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm"
        script = f'{mount} && "$@"; status=$?; sleep 0.5; ls /dev/shm > "{left}"; exit $status'
        return ["unshare", "-m", "sh", "-c", script, "sh"]

    return prefix


@pytest.fixture
def misbehave(mpirun, private_memory, tmp_path):
    """Return the function that runs a misdeed; it returns the finished process, having checked that
    nothing is left of it.
    """

    def run(misdeed, *, ranks=3, megabytes=512, status=None, **environment):
        left = tmp_path / "left"
        finished = mpirun(
            ranks, PROGRAM, misdeed, tmp_path, prefix=private_memory(megabytes, left), **environment
        )
        assert (finished.status != 0) if status is None else (finished.status == status), (
            finished.err
        )
        assert still_alive(int(path.read_text()) for path in Path(tmp_path).glob("pid*")) == []
        ours = ("ddbp-", "mpich_")
        assert [name for name in left.read_text().split() if name.startswith(ours)] == []
        return finished

    return run


def test_nothing_is_left_of_a_run_that_ends_well(misbehave):
    assert misbehave("nothing", status=0).out.count("has finished, 1 hosts") == 3


# The others are killed under `ddbp launch`, in test_post_mortem.
KILLED = ["in the exchange", *in_full("in the update", "in publishing", "while others wait")]


@pytest.mark.parametrize("where", KILLED)
def test_killed_rank_takes_the_others_along(where, misbehave):
    assert "has finished" not in misbehave(f"be killed {where}").out


@pytest.mark.full
def test_exception_in_the_update_ends_all(misbehave):
    err = misbehave("raise in the update").err
    assert "[rank 1 of 3] RuntimeError: the misdeed" in err
    assert err.count("Traceback") == 1


def test_exception_while_ranks_find_each_other_ends_all(misbehave):
    err = misbehave("raise at the start").err
    assert "[rank 1 of 3] RuntimeError: the misdeed" in err
    assert err.count("Traceback") == 1


def test_rank_that_leaves_is_noticed_by_ranks_that_never_had_to_wait_for_it(misbehave):
    err = misbehave("return having waited", ranks=2).err
    assert (
        "rank 0: all ranks must take part in the gradient exchange of step 8; got rank 1 ended. "
        in err
    )


# Memory


def require_refusal(finished, gradients=r"68\.7", why=""):
    """Require that ranks were refused memory; return how many MiB they asked for."""
    said = (
        r"CommunicationError: ddbp: /dev/shm must have room for [\d.]+ MiB that the ranks of this"
        rf" host share \(parameters 22\.9, gradients {gradients}, host barrier 0\.4\); "
        rf"got [\d.]+ MiB free{why}\. "
        r"Give it (\d+) MiB in all \(docker run --shm-size=\1m\), use fewer shards or ranks, or set"
        r" DDBP_SHARED_MEMORY=0"
    )
    found = re.search(said, finished.err)
    assert found, finished.err
    assert "has finished" not in finished.out
    return int(found[1])


@pytest.mark.parametrize(
    "environment", [ONE_HOST, *in_full(ODD_AND_EVEN)], ids=["one host", "two hosts"]
)
def test_want_of_memory_on_one_rank_is_told_by_all(environment, misbehave):
    # Rank 1 of the launcher's shares memory with ranks 0 and 2, or is alone.
    if environment:
        assert (
            misbehave("have too little memory", status=0, **environment).out.count(
                "has finished, 2 hosts"
            )
            == 3
        )
    else:
        require_refusal(
            misbehave("have too little memory"), why=", of which others have taken some since"
        )


@pytest.mark.parametrize(
    "megabytes", [64, *in_full(8)], ids=["as Docker makes it", "less than the parameters"]
)
def test_small_dev_shm_is_refused_with_the_size_that_suffices(megabytes, misbehave):
    size = require_refusal(misbehave("nothing, but with much memory", megabytes=megabytes))
    assert (
        misbehave("nothing, but with much memory", megabytes=size, status=0).out.count(
            "has finished, 1 hosts"
        )
        == 3
    )


@pytest.mark.full
def test_small_dev_shm_suffices_for_plain_mpi(misbehave):
    finished = misbehave("nothing, but with much memory", megabytes=64, status=0, **PLAIN)
    assert finished.out.count("has finished, 3 hosts") == 3


@pytest.mark.parametrize("misdeed", ["not see the file", *in_full("find no room for a file")])
def test_ranks_that_cannot_share_files_use_plain_mpi(misdeed, misbehave):
    assert misbehave(misdeed, status=0).out.count("has finished, 3 hosts") == 3


def test_rank_killed_while_memory_is_taken_leaves_no_file(misbehave):
    assert "has finished" not in misbehave("be killed while memory is taken").out
