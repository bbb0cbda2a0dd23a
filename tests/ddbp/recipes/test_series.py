"""The recipe of series: what becomes of steps that cannot be read."""

import numpy as np
import pytest

from ddbp.commands import cli
from ddbp.data.series import windows
from ddbp.data.series_files import read_column, read_series_table

from . import made


def damaged(path, *lines):
    """Write a wave with some lines, counted from 1, that are no steps; return its path."""
    made.wave(path)
    text = path.read_text().splitlines()
    for line, content in lines:
        text[line - 1] = content
    path.write_text("\n".join(text) + "\n")
    return path


def test_steps_that_cannot_be_read_keep_their_place(tmp_path):
    path = damaged(tmp_path / "wave.csv", (4, "2,"), (6, "4,1,2"), (8, "no row"), (10, "8,high"))
    values, name, skipped = read_column(path, skip_bad=True)
    assert (len(values), name) == (300, "height")
    assert np.flatnonzero(np.isnan(values)).tolist() == [2, 4, 6, 8]
    whole = made.wave(tmp_path / "whole.csv")
    good = np.isfinite(values)
    assert np.array_equal(values[good], read_column(whole)[0][good])
    assert sorted(each.place.rpartition(" ")[2] for each in skipped) == ["10", "4", "6", "8"]
    found = windows(values, 3, 2)
    assert len(found) == 300 - 9 - 4
    assert np.isfinite(found.x).all()
    with pytest.raises(ValueError, match="6 numbers in a row"):
        windows(values[:9], 3, 3)


@pytest.mark.parametrize("line", ["199,high", "199,", "199,1,2"])
def test_a_forecast_goes_round_steps_that_cannot_be_read(tmp_path, capsys, line):
    path = damaged(tmp_path / "wave.csv", (100, line))
    flags = ("train", "series", "--data", path, "--column", "height", "--past", 5, "--ahead", 2)
    flags = (*flags, "--epochs", 1, "--hidden", 4, "--run-dir", tmp_path / "run", "--quiet")
    assert "wave.csv, line 100" in made.refused(capsys, *flags)
    assert cli.main([*map(str, (*flags, "--skip-bad"))]) == 0
    assert "1 sample left out, first" in capsys.readouterr().err
    bundle = tmp_path / "run" / "model.ddbp"
    evaluate = ("evaluate", bundle, "--data", path, "--quiet")
    assert "wave.csv, line 100" in made.refused(capsys, *evaluate)
    assert made.run(capsys, *evaluate, "--skip-bad")["samples"] == 300 - 6 - 7
    assert cli.main(["predict", str(bundle), str(path), "--skip-bad"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    late = damaged(tmp_path / "late.csv", (299, line))
    assert cli.main(["predict", str(bundle), str(path), str(late), "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert "late.csv: 1 of its last 5 steps cannot be read" in captured.err
    assert len(captured.out.splitlines()) == 3
    error = made.refused(capsys, "predict", bundle, late, "--skip-bad")
    assert "a file must end in 5 steps that can be read" in error


def test_a_bundle_knows_the_columns_of_its_series(tmp_path, capsys):
    path = made.walks(tmp_path / "walks.csv")
    flags = ("--series", "walk", "--label", "gait", "--time", "step")
    flags = (*flags, "--epochs", 3, "--hidden", 4, "--run-dir", tmp_path / "run", "--quiet")
    assert cli.main([*map(str, ("train", "series", "--data", path, *flags))]) == 0
    capsys.readouterr()
    rows = [line.split(",") for line in path.read_text().splitlines()]
    orders = {"same.csv": [0, 1, 2, 3, 4], "swapped.csv": [4, 3, 1, 0, 2], "new.csv": [0, 1, 3, 2]}
    told = set()
    for name, order in orders.items():
        others = [rows[0], *reversed(rows[1:])] if name == "swapped.csv" else rows
        file = tmp_path / name
        file.write_text("".join(",".join(row[n] for n in order) + "\n" for row in others))
        if name != "new.csv":
            found = made.run(capsys, "evaluate", tmp_path / "run", "--data", file, "--quiet")
            told.add(round(found["loss"], 6))
        assert cli.main(["predict", str(tmp_path / "run"), str(file)]) == 0
        lines = capsys.readouterr().out.replace(name, "").splitlines()[1:]
        told.add(tuple(sorted(line.partition(", from line ")[0] for line in lines)))
        told.add(tuple(sorted(line.partition('",')[2] for line in lines)))
    assert len(told) == 3
    (tmp_path / "id.csv").write_text(path.read_text().replace("walk,", "id,"))
    error = made.refused(capsys, "predict", tmp_path / "run", tmp_path / "id.csv")
    assert "must have the columns walk, step, x, y; got no walk" in error
    named = ("predict", tmp_path / "run", tmp_path / "id.csv", "--series", "id")
    assert cli.main([*map(str, named)]) == 0
    (tmp_path / "less.csv").write_text(path.read_text().replace("y,gait", "z,gait"))
    error = made.refused(capsys, "evaluate", tmp_path / "run", "--data", tmp_path / "less.csv")
    assert "got no y" in error


def test_rows_of_no_series_are_none(tmp_path):
    path = tmp_path / "walks.csv"
    path.write_text("walk,x,gait\na,1,up\na,2,up\n,3,up\nb,1,down\nb,2,down\n")
    names = {"series": "walk", "label": "gait"}
    with pytest.raises(ValueError, match=r"column walk must say which .*walks.csv, line 4"):
        read_series_table(path, **names)
    found = read_series_table(path, **names, skip_bad=True)
    assert len(found.sequences) == 2
    assert [each.place[-6:] for each in found.skipped] == ["line 4"]


def test_a_forecast_is_in_the_order_of_time(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = made.wave(tmp_path / "wave.csv")
    head, *rows = path.read_text().splitlines()
    mixed = [*np.random.default_rng(0).permutation(rows)]
    (tmp_path / "mixed.csv").write_text("\n".join([head, *mixed]) + "\n")
    flags = ("--time", "time", "--past", 5, "--ahead", 2, "--epochs", 1, "--hidden", 4, "--quiet")
    told = set()
    for name in ("wave", "mixed"):
        run = tmp_path / name
        command = ("train", "series", "--data", f"~/{name}.csv", *flags, "--run-dir", run)
        told.add(made.run(capsys, *command)["parameters_sha256"])
    assert len(told) == 1
    for name in ("wave", "mixed"):
        data = tmp_path / f"{name}.csv"
        loss = made.run(capsys, "evaluate", tmp_path / "wave", "--data", data, "--quiet")["loss"]
        assert cli.main(["predict", str(tmp_path / "wave"), str(data)]) == 0
        told |= {loss, capsys.readouterr().out.replace(name, "")}
    assert len(told) == 3
    for flag in ("--series", "--label"):
        error = made.refused(
            capsys, "evaluate", tmp_path / "wave", "--data", path, flag, "time", "--quiet"
        )
        assert f"a forecast must be of one series; got {flag} time" in error


def test_steps_without_a_time_stay_after_those_before_them(tmp_path):
    path = tmp_path / "wave.csv"
    path.write_text("time,height\n,9\n3,30\nsoon,40\n1,10\n1,2,3\n2,20\n")
    with pytest.raises(ValueError, match=r"wave\.csv, line 6"):
        read_column(path, time="time")
    values, name, skipped = read_column(path, time="time", skip_bad=True)
    np.testing.assert_array_equal(values, [np.nan, 10, np.nan, 20, 30, np.nan])
    assert (name, len(skipped)) == ("height", 3)
    path.write_text("height,time\n2,2024-02-01\n1,2024-01-01\n")
    assert read_column(path, time="time")[0].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"time must be one of .*; got day"):
        read_column(path, time="day")
