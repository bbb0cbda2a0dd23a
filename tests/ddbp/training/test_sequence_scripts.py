"""The scripts that train recurrent networks: they learn, write what they promise, and refuse what
makes no sense.
"""

from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
LANGUAGE, SEQUENCE, FORECAST = (
    SCRIPTS / f"train_{name}.py" for name in ("char_lm", "sequence", "forecast")
)
SMALL = ("--hidden", 32, "--embedding", 8, "--length", 64, "--window", 16, "--epochs", 1)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Return a file of three words in a random order."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("".join(np.random.default_rng(0).choice(["one ", "two ", "three "], 6000)))
    return path


@pytest.mark.parametrize("model", ["lstm", "gru", "rnn", "gpt"])
def test_language_model_learns(pooled, tmp_path, text, model):
    arguments = (*SMALL, "--text", text, "--model", model)
    trained = pooled(0, LANGUAGE, *arguments, "--run-dir", tmp_path)
    # Eight characters have 3 bits; of a word that has begun, the rest is certain.
    assert trained.result()["metrics"]["bits_per_character"] < 2.5


@pytest.mark.full
def test_language_model_is_the_same_bits_on_two_ranks(pooled, tmp_path, text):
    arguments = (*SMALL, "--text", text, "--shards", 4, "--quiet", "--run-dir")
    alone = pooled(0, LANGUAGE, *arguments, tmp_path / "alone").result()
    both = pooled(2, LANGUAGE, *arguments, tmp_path / "both").result()
    assert both["ranks"] == 2
    assert both["parameters_sha256"] == alone["parameters_sha256"]


@pytest.mark.full
def test_lstm_adds_two_marked_numbers(pooled, tmp_path):
    arguments = (
        "--task",
        "adding",
        "--length",
        20,
        "--samples",
        10_000,
        "--epochs",
        6,
        "--quiet",
        "--run-dir",
        tmp_path,
    )
    # Always saying 1 has 1/6.
    assert pooled(0, SEQUENCE, *arguments).result()["metrics"]["validation_loss"] < 0.01


@pytest.mark.full
def test_digits_are_read_row_by_row(pooled, tmp_path):
    arguments = (
        "--task",
        "digits",
        "--model",
        "gru",
        "--epochs",
        10,
        "--quiet",
        "--run-dir",
        tmp_path,
    )
    assert pooled(0, SEQUENCE, *arguments).result()["metrics"]["accuracy"] > 0.9


@pytest.mark.full
def test_symbols_are_copied_better_than_by_chance(pooled, tmp_path):
    arguments = (
        "--task",
        "copying",
        "--length",
        24,
        "--samples",
        5000,
        "--epochs",
        5,
        "--quiet",
        "--run-dir",
        tmp_path,
    )
    assert pooled(0, SEQUENCE, *arguments).result()["metrics"]["recalled"] > 0.2


def test_forecast_of_a_csv_beats_persistence(pooled, tmp_path):
    t = np.arange(1200)
    table = np.c_[t, np.sin(t / 5) + 0.5 * np.sin(t / 3)]
    np.savetxt(tmp_path / "waves.csv", table, delimiter=",", header="time,height", comments="")
    arguments = (
        "--csv",
        tmp_path / "waves.csv",
        "--column",
        "height",
        "--epochs",
        6,
        "--quiet",
        "--run-dir",
        tmp_path / "run",
    )
    metrics = pooled(0, FORECAST, *arguments).result()["metrics"]
    assert metrics["rmse"] < 0.3 * metrics["persistence_rmse"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--column", "depth"), "table.csv; got depth. It has time, height"),
        (("--past", 400), "a series must have 410 values"),
    ],
)
def test_forecast_refuses_what_the_table_does_not_have(pooled, tmp_path, arguments, message):
    np.savetxt(
        tmp_path / "table.csv", np.ones((100, 2)), delimiter=",", header="time,height", comments=""
    )
    finished = pooled(0, FORECAST, "--csv", tmp_path / "table.csv", *arguments)
    assert finished.status != 0
    assert message in finished.err


def test_forecast_names_the_line_of_a_missing_value(pooled, tmp_path):
    (tmp_path / "table.csv").write_text("time,height\n0,1\n1,\n2,3\n")
    finished = pooled(0, FORECAST, "--csv", tmp_path / "table.csv")
    assert finished.status != 0
    assert "line 3" in finished.err
