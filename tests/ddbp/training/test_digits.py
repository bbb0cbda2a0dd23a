"""The main job on real data: handwritten digits, by a dense and by a convolutional network."""

from pathlib import Path
from statistics import mean

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "train_digits.py"


def test_convolutional_network_reads_985_of_1000_digits(run_python, tmp_path):
    accuracies = []
    for seed in range(3):
        run = run_python(
            SCRIPT,
            "--model",
            "cnn",
            "--quiet",
            "--seed",
            seed,
            "--run-dir",
            tmp_path / str(seed),
            timeout=300,
        )
        accuracies.append(run.result()["metrics"]["accuracy"])
    assert mean(accuracies) >= 0.985, accuracies


@pytest.mark.parametrize("ranks", [2, 3])
def test_convolutional_network_is_the_same_bits_on_several_ranks(
    run_python, mpirun, tmp_path, ranks
):
    arguments = ("--model", "cnn", "--quiet", "--epochs", 1, "--shards", 4, "--run-dir")
    alone = run_python(SCRIPT, *arguments, tmp_path / "alone", timeout=300).result()
    several = mpirun(ranks, SCRIPT, *arguments, tmp_path / "several", timeout=300).result()
    assert several["ranks"] == ranks
    assert several["parameters_sha256"] == alone["parameters_sha256"]
