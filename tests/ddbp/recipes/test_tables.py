"""The recipe of tables: what it says of columns, classes and categories that do not fit."""

import csv
import json

import numpy as np
import pytest

from ddbp.commands import cli
from ddbp.export import load_bundle, load_run
from layers import Sequential

from . import made


def train(tmp_path, path, *flags):
    """Train for an epoch; return the status."""
    run = ("--epochs", "1", "--run-dir", tmp_path / "run", "--quiet")
    return cli.main([*map(str, ("train", "table", "--data", path, *run, *flags))])


def rows(path, *given):
    """Write rows to a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(given)
    return path


def test_categories_that_training_did_not_have_are_said_or_refused(tmp_path, capsys):
    data = made.table(tmp_path / "kinds.csv", 60)
    assert train(tmp_path, data) == 0
    assert "did not have" not in capsys.readouterr().err
    new = rows(
        tmp_path / "new.csv",
        ["length", "width", "colour", "kind"],
        *([2, 3, colour, "small"] for colour in ("red", "green", "pink", "green", "")),
    )
    bundle = str(tmp_path / "run" / "model.ddbp")
    said = "new.csv: column colour: 4 of 5 rows have categories that training did not have: "
    for command in (["predict", bundle, str(new)], ["evaluate", bundle, "--data", str(new)]):
        assert cli.main(command) == 0
        assert f"{said}green, pink, missing\n" in capsys.readouterr().err
    assert train(tmp_path, data, "--unknown", "refuse") == 0
    error = made.refused(capsys, "predict", bundle, new)
    assert "column colour must be among blue, red; got" in error
    assert "new.csv, line 3: 'green'" in error


def test_predictions_are_numbered_by_the_rows_of_the_file(tmp_path, capsys):
    lines = made.table(tmp_path / "kinds.csv", 60).read_text().splitlines()
    data = tmp_path / "bad.csv"
    data.write_text("\n".join([*lines[:4], "1,2", *lines[4:8], "far,1,red,small", *lines[8:], ""]))
    assert train(tmp_path, data, "--skip-bad") == 0
    bundle, out = tmp_path / "run" / "model.ddbp", tmp_path / "out.csv"
    capsys.readouterr()
    assert cli.main([*map(str, ("predict", bundle, data, "--skip-bad", "-o", out))]) == 0
    said = capsys.readouterr().err
    assert [said.count(f"bad.csv, line {line}: ") for line in (5, 10)] == [1, 1]
    with out.open(newline="") as file:
        found = [int(row["row"]) for row in csv.DictReader(file)]
    assert found == [row for row in range(1, 63) if row not in (4, 9)]
    assert made.run(capsys, "evaluate", bundle, "--data", data, "--skip-bad")["samples"] == 60
    assert cli.main([*map(str, ("evaluate", bundle, "--data", data, "--skip-bad", "--quiet"))]) == 0
    assert "2 samples left out, first" in capsys.readouterr().err


def test_an_index_of_pandas_is_left_out_and_said(tmp_path, capsys):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame = pandas.DataFrame({"x": [n % 5 for n in range(40)], "y": [*"ab"] * 20})
    path = tmp_path / "part.parquet"
    frame.sort_values("y").to_parquet(path)
    assert train(tmp_path, path) == 0
    assert "__index_level_0__: left out, as the index" in capsys.readouterr().err
    encoder = load_bundle(tmp_path / "run" / "model.ddbp").preprocessing
    assert (encoder["target"], [each["name"] for each in encoder["columns"]]) == ("y", ["x"])
    assert train(tmp_path, path, "--numbers", "__index_level_0__") == 0
    assert "left out" not in capsys.readouterr().err


def test_a_class_of_too_few_rows_is_named(tmp_path, capsys):
    flags = ("train", "table", "--run-dir", tmp_path / "run", "--data")
    few = rows(tmp_path / "two.csv", ["x", "y"], *([n, "u" if n else "v"] for n in range(5)))
    seen = set()
    for seed in range(12):
        status = cli.main([*map(str, (*flags, few, "--epochs", "1", "--seed", seed))])
        error = capsys.readouterr().err
        seen.add(status)
        if status:
            assert "every class of y must have rows for training" in error
            assert "got 1 of v in" in error
            assert "regression" not in error
    assert 1 in seen
    one = rows(tmp_path / "one.csv", ["x", "y"], *([n, "u"] for n in range(9)))
    assert "two classes or more; got u alone" in made.refused(capsys, *flags, one)


def test_columns_without_a_value_are_left_out_and_named(tmp_path, capsys):
    data = rows(
        tmp_path / "gaps.csv", ["x", "note", "y"], *([n, "", "uv"[n % 2]] for n in range(40))
    )
    assert train(tmp_path, data) == 0
    assert "note: left out, as no row to train on has a value there" in capsys.readouterr().err
    assert cli.main(["predict", str(tmp_path / "run" / "model.ddbp"), str(data)]) == 0


@pytest.mark.parametrize(("flags", "words"), [
    (("--ignore", "kind"), "column kind must have one role; got --target and --ignore"),
    (("--ignore", "width", "--numbers", "width"), "must have one role; got --ignore and --numbers"),
])  # fmt: skip
def test_a_column_has_one_role(tmp_path, capsys, flags, words):
    data = made.table(tmp_path / "kinds.csv", 40)
    error = made.refused(capsys, "train", "table", "--data", data, *flags)
    assert words in error


def test_tables_that_are_the_same_are_divided_alike_whatever_the_file(tmp_path, capsys):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: ddbp[arrow]")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: ddbp[arrow]")
    frame = pandas.DataFrame({"f": [n % 3 == 0 for n in range(60)], "x": range(60)})
    frame["y"] = frame["f"] ^ (frame["x"] > 30)
    frame.to_csv(tmp_path / "a.csv")
    frame.to_parquet(tmp_path / "a.parquet")
    found = [
        made.run(
            capsys,
            *("train", "table", "--epochs", 2, "--quiet", "--data", tmp_path / f"a.{kind}"),
            *("--run-dir", tmp_path / kind),
        )["metrics"]
        for kind in ("csv", "parquet")
    ]
    assert found[0] == found[1]
    for kind, other in (("csv", "parquet"), ("parquet", "csv")):
        bundle = tmp_path / kind / "model.ddbp"
        assert cli.main(["predict", str(bundle), str(tmp_path / f"a.{other}")]) == 0
        captured = capsys.readouterr()
        assert "did not have" not in captured.err
        assert len(captured.out.splitlines()) == 61


def test_a_bundle_predicts_as_the_rule_that_it_was_trained_by_does(tmp_path, capsys):
    data = made.table(tmp_path / "kinds.csv", 300)
    flags = ("--rule", "forward_forward", "--epochs", "12", "--json", tmp_path / "a.json")
    assert train(tmp_path, data, *flags) == 0
    trained = json.loads((tmp_path / "a.json").read_text())["metrics"]["accuracy"]
    with np.load(tmp_path / "run" / "samples.npz", allow_pickle=False) as found:
        labels, predicted, counts = found["pairs"].T
    assert np.isclose(counts[labels == predicted].sum() / counts.sum(), trained)
    reader, run = load_bundle(tmp_path / "run" / "model.ddbp"), load_run(tmp_path / "run")
    x = np.random.default_rng(0).standard_normal((50, *reader.example[0])).astype(np.float32)
    assert repr(reader.model).startswith("ForwardForwardPredictor(Sequential(")
    assert np.array_equal(reader.predict(x), run.predict(x))
    assert not np.allclose(reader.predict(x), Sequential(*run.model.layers)(x))


def test_names_with_brackets_are_shown_as_they_are(tmp_path, capsys):
    names = {"large": "[/b]", "small": "[red]s\x1b[2J"}
    text = made.table(tmp_path / "table.csv").read_text()
    for name, other in names.items():
        text = text.replace(name, other)
    path = tmp_path / "brackets.csv"
    path.write_text(text)
    train(tmp_path, path, "--quiet")
    bundle = tmp_path / "run"
    capsys.readouterr()
    assert cli.main(["evaluate", str(bundle), "--data", str(path)]) == 0
    out, err = capsys.readouterr()
    assert {*json.loads(out)["classes"]} == {*names.values()}
    assert "[/b] " in err
    assert "[red]s\\x1b[2J " in err
