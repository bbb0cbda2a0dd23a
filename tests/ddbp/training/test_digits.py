"""The main job on real data: handwritten digits, by a dense and by a convolutional network."""

from pathlib import Path
from statistics import mean

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "train_digits.py"


@pytest.mark.full
def test_convolutional_network_reads_985_of_1000_digits(pooled, tmp_path):
    accuracies = []
    for seed in range(3):
        run = pooled(
            0,
            SCRIPT,
            "--model",
            "cnn",
            "--quiet",
            "--seed",
            seed,
            "--run-dir",
            tmp_path / str(seed),
        )
        accuracies.append(run.result()["metrics"]["accuracy"])
    assert mean(accuracies) >= 0.985, accuracies


@pytest.mark.full
@pytest.mark.parametrize("ranks", [2, 3])
def test_convolutional_network_is_the_same_bits_on_several_ranks(pooled, tmp_path, ranks):
    arguments = ("--model", "cnn", "--quiet", "--epochs", 1, "--shards", 4, "--run-dir")
    alone = pooled(0, SCRIPT, *arguments, tmp_path / "alone").result()
    several = pooled(ranks, SCRIPT, *arguments, tmp_path / "several").result()
    assert several["ranks"] == ranks
    assert several["parameters_sha256"] == alone["parameters_sha256"]
