"""`ddbp lr-find`."""

import pytest

from ddbp import figures
from ddbp.commands import cli

from ..recipes import made


def test_a_rate_is_suggested_and_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = made.table(tmp_path / "kinds.csv")
    picture = ()
    if figures.find_spec("matplotlib") is not None:
        picture = ("--picture", tmp_path / "rates.svg")
    arguments = ("lr-find", "table", "--data", path, "--steps", 40, *picture)
    found = made.run(capsys, *arguments)
    assert 1e-5 < found["suggestion"] < 1
    assert len(found["rates"]) == len(found["losses"]) <= 40
    assert found == made.run(capsys, *arguments, "--quiet")
    assert not picture or (tmp_path / "rates.svg").read_text().startswith("<?xml")
    assert not (tmp_path / "runs").exists()


def test_a_recurrent_language_model_is_tried_on_windows(tmp_path, capsys):
    path = made.text(tmp_path / "cats.txt")
    flags = ("--hidden", 16, "--embedding", 8, "--length", 64, "--window", 16, "--steps", 20)
    found = made.run(capsys, "lr-find", "text", "--model", "rnn", "--data", path, *flags)
    assert found["rates"][0] == 1e-6


def test_it_begins_with_the_parameters_that_are_given(tmp_path, capsys):
    path = made.table(tmp_path / "kinds.csv")
    run = tmp_path / "run"
    made.run(capsys, "train", "table", "--data", path, "--run-dir", run)
    given = ("--parameters", run / "model.safetensors")
    usual = ("lr-find", "table", "--data", path, "--steps", 20)
    trained, fresh = (made.run(capsys, *usual, *flags)["losses"][0] for flags in (given, ()))
    assert trained < 0.8 * fresh


def test_a_picture_that_cannot_be_written_is_told_in_a_line(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = made.table(tmp_path / "kinds.csv")
    flags = ("--steps", 10, "--picture", "/proc/rates.svg")
    error = made.refused(capsys, "lr-find", "table", "--data", path, *flags)
    assert "/proc/rates.svg must be a file to write to" in error


def test_nonsense_is_refused(tmp_path, capsys):
    path = made.table(tmp_path / "kinds.csv")
    usual = ("lr-find", "table", "--data", path)
    for flags, words in (
        (("--lowest", 1, "--highest", 0.1), "lowest must be below highest"),
        (("--steps", 3), "steps must be at least 10"),
        (("--picture", "rates.txt"), "must end in .svg"),
        (("--json", "/proc/rates.json", "--steps", 10), "the file of --json must be writable; got"),
        (("--exchange", "LocalSGD(workers=2, every=4)"), "needs workers that exchange gradients"),
    ):
        assert words in made.refused(capsys, *usual, *flags)
    for flags in (
        *(("--lowest", "0"), ("--highest", "inf"), ("--steps", "many")),
        ("--picture", tmp_path / "none" / "rates.svg"),
    ):
        with pytest.raises(SystemExit):
            cli.main([*map(str, (*usual, *flags))])
