"""Backpropagation through structure on a task with exact answers: boolean expressions, tested on
deeper trees than trained on.
"""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "train_tree.py"


@pytest.mark.full
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_expressions_deeper_than_those_trained_on_are_evaluated(pooled, tmp_path, cell):
    for seed in range(2):
        run = pooled(
            0,
            SCRIPT,
            "--cell",
            cell,
            "--quiet",
            "--seed",
            seed,
            "--run-dir",
            tmp_path / str(seed),
        )
        assert run.result()["metrics"]["accuracy"] >= 0.99


@pytest.mark.full
@pytest.mark.parametrize("ranks", [2, 3])
def test_training_on_trees_is_the_same_bits_on_several_ranks(pooled, tmp_path, ranks):
    arguments = ("--quiet", "--epochs", 1, "--trees", 1000, "--shards", 4, "--run-dir")
    alone = pooled(0, SCRIPT, *arguments, tmp_path / "alone").result()
    several = pooled(ranks, SCRIPT, *arguments, tmp_path / "several").result()
    assert several["ranks"] == ranks
    assert several["parameters_sha256"] == alone["parameters_sha256"]
