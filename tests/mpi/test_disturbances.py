"""What comes from outside of a run: signals to `ddbp launch`, ranks that leave without a word, that
fork, that are slow, and memory that others have filled.
"""

import signal
import subprocess
import sys

import pytest

from ..conftest import LONGEST, PROGRAMS, clean_environment
from .programs.launcher import wait_until
from .ranks import alive, in_full, still_alive

PROGRAM = "disturbed.py"


@pytest.mark.parametrize("option", [[], ["--survive"]], ids=["mpi", "survive"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", *in_full("SIGINT", "SIGHUP")])
def test_ranks_end_with_ddbp_launch(name, option, launcher, tmp_path):
    number = signal.Signals[name]
    launch = [sys.executable, "-m", "ddbp", "launch"]
    with subprocess.Popen(
        [*launch, *option, "-n", "2", str(PROGRAMS / PROGRAM), "ignore signals", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment({}),
        start_new_session=True,
    ) as process:
        pids = []
        try:
            ready = [tmp_path / f"ready{rank}" for rank in range(2)]
            wait_until(
                lambda: process.poll() is not None or all(path.exists() for path in ready), LONGEST
            )
            assert process.poll() is None, process.stderr.read()
            assert all(path.exists() for path in ready)
            pids = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(2)]
            process.send_signal(number)
            _, err = process.communicate(timeout=LONGEST)
            assert still_alive(pids) == []
        finally:
            process.kill()
            for pid in filter(alive, pids):
                subprocess.run(["kill", "-KILL", str(pid)], check=False)
    assert "Traceback" not in err
    if name == "SIGKILL":
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert f"ddbp launch: ended by {name}" in err


def test_rank_that_leaves_without_a_word_is_no_success(launched, tmp_path):
    finished = launched(3, PROGRAM, "leave without a word", tmp_path)
    pid = (tmp_path / "pid1").read_text()
    assert finished.status != 0
    assert f"ddbp launch: rank 1 (process {pid}) " in finished.err
    # Before, the others had said for whom they wait, and where that was.
    where = r"in forward of step 1, at Linear(5, 3)"
    assert f"[rank 0 of 3] waits for rank 1 ({where}) since " in finished.err


def test_rank_that_compiles_is_waited_for_and_named(pooled, tmp_path):
    finished = pooled(3, PROGRAM, "waits", tmp_path)
    assert finished.status == 0, finished.err
    assert "[rank 0 of 3] waits for rank 1 (compiling kernels) since " in finished.err
    assert "[rank 2 of 3]" not in finished.err


def test_children_of_ranks_are_refused_and_disturb_nobody(mpirun):
    finished = mpirun(2, PROGRAM, "forks")
    assert finished.status == 0, finished.err
    said = dict(line.split(": ", 1) for line in finished.out.splitlines() if ": " in line)
    must = "ddbp: a process that trains under mpirun must be one that the launcher started; got "
    for what in ("the trainer", "a new trainer", "a script {}"):
        assert must in said[what], what
        assert "Set DDBP_MPI=0 in its environment, and it trains alone." in said[what]
    assert said["alone"] == "1"
    assert finished.out.count("at the end: 2") == 2
    assert finished.out.count("trained on 1") == 1
    assert all(f"rank {rank} has gone on" in finished.out for rank in range(2))


@pytest.fixture
def filled_memory():
    """Return a prefix for commands: they see a /dev/shm of two megabytes, of which a file of
    another run takes one.
    """
    fill = "head -c 1048576 /dev/zero > /dev/shm/mpich_shm_of_another_run"
    mount = "mount -t tmpfs -o size=2m tmpfs /dev/shm"
    try:
        subprocess.run(["unshare", "-m", "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount a /dev/shm: {error}")
    return ["unshare", "-m", "sh", "-c", f'{mount} && {fill} && "$@"', "sh"]


def test_memory_that_is_full_is_said_with_whose_files_lie_there(filled_memory, is_mpich, mpirun):
    if not is_mpich:
        pytest.skip("only MPICH takes its memory at once")
    finished = mpirun(2, PROGRAM, "train", prefix=filled_memory)
    assert finished.status != 0
    assert "ddbp: /dev/shm must have room for 2.1 MiB that MPI takes there; got " in finished.err
    assert "taken by mpich_shm_of_another_run (1.0 MiB, of " in finished.err
    assert "rm /dev/shm/mpich_shm_of_another_run" in finished.err
