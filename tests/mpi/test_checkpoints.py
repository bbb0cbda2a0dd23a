"""Runs on ranks that are asked to end by a signal save, and go on elsewhere to the same bits."""

import pytest

from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint
from ddbp.training.signals import SAVED

from .ranks import differences

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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR2"])
def test_process_that_was_asked_to_end_says_by_its_status_that_it_has_saved(
    name, run_python, tmp_path, undisturbed, run_alone
):
    run = tmp_path / "run"
    ended = run_python(PROGRAM, tmp_path, run, "--signal", name, 0, 4, "--exit")
    assert ended.status == SAVED, ended.err
    assert differences(run_alone(PROGRAM, run), undisturbed) == []
