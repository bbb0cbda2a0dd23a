"""Runs on ranks that are asked to end by a signal save, and go on elsewhere to the same bits."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint
from ddbp.comm.abort import SAVED

from ..conftest import LONGEST
from .ranks import arrays, differences

PROGRAM = "checkpointed.py"


@pytest.fixture(scope="module")
def undisturbed(run_alone, tmp_path_factory):
    """Return what the program writes if nobody asks it to end."""
    return run_alone(PROGRAM, tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("ranks", "name", "rank", "step", "after"),
    [(2, "SIGTERM", 1, 7, 3), (3, "SIGUSR1", 0, 9, 1)],
)
@pytest.mark.parametrize("apart", [(), ("--apart",)], ids=["one folder", "apart"])
def test_signal_to_one_rank_has_all_save_and_end(
    ranks, name, rank, step, after, apart, undisturbed, run_ranks, tmp_path
):
    run = tmp_path / "run"
    ended = run_ranks(ranks, PROGRAM, run, "--signal", name, rank, step, *apart)
    assert [result["status"].item() for result in ended] == [SAVED] * ranks
    newest = Checkpoint(folder.found(run / "checkpoints")[-1])
    assert newest.step == step + 1
    assert newest.damages() == []
    assert len(list(newest.path.glob("part-*"))) == (1 if apart else ranks)
    results = run_ranks(after, PROGRAM, run, *apart)
    assert [differences(result, undisturbed) for result in results] == [[]] * after


def test_run_that_changes_freezes_and_thaws_goes_on_wherever_it_was(
    run_alone, run_ranks, run_python, tmp_path
):
    expected = run_alone(PROGRAM, tmp_path / "whole", "--changes")
    # Steps 0 to 4 are those of the first fit, 5 to 9 those of the epoch with a frozen layer.
    run = tmp_path / "run", "--changes"
    for step in (2, 7, 12):
        run_ranks(2, PROGRAM, *run, "--signal", "SIGUSR1", 1, step)
    results = run_ranks(3, PROGRAM, *run)
    assert [differences(result, expected) for result in results] == [[]] * 3
    program = Path(__file__).parent / "programs" / PROGRAM
    # Who replaces a rank may come too late to say anything.
    for number, (ranks, option) in enumerate([(2, []), (1, ["--survive"])]):
        written = tmp_path / str(number)
        written.mkdir()
        ended = run_python(
            *("-m", "ddbp", "launch", *option, "-n", 2, "--max-restarts", 2, program),
            *(written, written / "run", "--changes", "--signal", "SIGKILL", 1, 8),
        )
        assert ended.status == 0, ended.err
        found = [differences(each, expected) for each in arrays(written, ranks)]
        assert found == [[]] * ranks, ended.err


def test_signal_in_the_midst_of_a_group_has_its_update_saved(run_alone, run_ranks, tmp_path):
    group = ("--accumulate", 2)
    expected, run = run_alone(PROGRAM, tmp_path / "whole", *group), tmp_path / "run"
    # The first batch of a group is made when it comes.
    ended = run_ranks(2, PROGRAM, run, *group, "--signal", "SIGUSR1", 1, 4)
    assert [result["status"].item() for result in ended] == [SAVED] * 2
    assert Checkpoint(folder.found(run / "checkpoints")[-1]).step == 5
    results = run_ranks(3, PROGRAM, run, *group)
    assert [differences(result, expected) for result in results] == [[]] * 3


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR2"])
def test_process_that_was_asked_to_end_says_by_its_status_that_it_has_saved(
    name, run_python, tmp_path, undisturbed, run_alone
):
    run = tmp_path / "run"
    ended = run_python(PROGRAM, tmp_path, run, "--signal", name, 0, 4, "--exit")
    assert ended.status == SAVED, ended.err
    assert differences(run_alone(PROGRAM, run), undisturbed) == []


def test_launch_begins_again_when_ranks_were_killed_and_gives_the_same_bits(
    mpirun, run_python, undisturbed, tmp_path
):
    program = Path(__file__).parent / "programs" / PROGRAM
    finished = run_python(
        *("-m", "ddbp", "launch", "-n", 3, "--max-restarts", 1, "--min-ranks", 2, program),
        *(tmp_path, tmp_path / "run", "--signal", "SIGKILL", 1, 7),
        *("--signal", "SIGKILL", 0, 16, "--signal", "SIGSEGV", 1, 12),
    )
    assert finished.status == 0, finished.err
    again = [line for line in finished.err.splitlines() if "begins again" in line]
    assert [line.removeprefix("ddbp launch: begins again on ") for line in again] == [
        "2 ranks in 0 s"
    ] * 3
    results = arrays(tmp_path, 2)
    assert [differences(result, undisturbed) for result in results] == [[], []]


def test_launch_gives_up_a_run_that_does_not_get_further(mpirun, run_python, tmp_path):
    program = Path(__file__).parent / "programs" / "checkpointed.py"
    finished = run_python(
        *("-m", "ddbp", "launch", "-n", 1, "--max-restarts", 1, program),
        *(tmp_path, program / "no folder"),
    )
    assert finished.status != 0
    assert "gives up after 1 restarts without progress" in finished.err
    assert finished.err.count("begins again") == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signal_to_launch_has_all_ranks_save(mpirun, tmp_path, name):
    run, program = tmp_path / "run", Path(__file__).parent / "programs" / PROGRAM
    command = [sys.executable, "-m", "ddbp", "launch", "-n", "2", program, tmp_path, run]
    log = tmp_path / "log"
    with (
        log.open("w") as err,
        subprocess.Popen([*map(str, command), "--epochs", "1000000", "--exit"], stderr=err) as job,
    ):
        try:
            until = time.monotonic() + LONGEST
            while not folder.found(run / "checkpoints"):
                assert time.monotonic() < until
                assert job.poll() is None, log.read_text()
                time.sleep(0.05)
            job.send_signal(signal.Signals[name])
            assert job.wait(LONGEST) == SAVED, log.read_text()
        finally:
            job.kill()
    (newest,) = folder.newest_whole(run / "checkpoints")
    assert newest.step >= 3
