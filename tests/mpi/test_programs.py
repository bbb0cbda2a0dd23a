"""What the user sees of a run on several ranks, and the assert that the programs here rely on."""

import json

import pytest


@pytest.fixture(scope="module")
def run(pooled, tmp_path_factory):
    """Return the finished process of a fit on three ranks, and its run folder."""
    folder = tmp_path_factory.mktemp("fit") / "run"
    finished = pooled(3, "fit_with_run_folder.py", folder)
    assert finished.status == 0, finished.err
    return finished, folder


def test_one_rank_shows_progress(run):
    lines = [line.split(":")[0] for line in run[0].err.splitlines() if line.startswith("epoch")]
    assert lines == ["epoch 1", "epoch 2"]


def test_run_folder_is_written_once_and_states_the_ranks(run):
    _, folder = run
    assert sorted(path.name for path in folder.iterdir()) == [
        "architecture.json",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "samples.npz",
        "status.json",
        "steps.jsonl",
    ]
    assert json.loads((folder / "config.json").read_text())["ranks"] == 3
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]


def test_one_rank_may_predict_alone(run):
    assert run[0].out.split("\n")[0] == "(40, 3)"


def test_assert_on_all_ranks_names_the_failing_rank_and_ends_all(mpirun):
    finished = mpirun(3, "verdict_of_one_rank.py")
    assert finished.status != 0
    assert "AssertionError: the rank is not 1: not so on ranks [1]" in finished.err
    assert "not reached" not in finished.out
