"""Recipes from data to predictions: each is trained, evaluated and asked, by its commands."""

import csv
import json

import numpy as np
import pytest

from ddbp import Ragged
from ddbp.commands import cli
from ddbp.export import load_bundle
from ddbp.recipes.chosen import RECIPES

from . import made

pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'ddbp[images]'")


def trained(capsys, tmp_path, *arguments):
    """Return the result of a training, and its bundle."""
    folder = tmp_path / "run"
    result = made.run(capsys, "train", *arguments, "--run-dir", folder, "--quiet")
    assert result["bundle"] == str(folder / "model.ddbp")
    assert (folder / "report.html").is_file()
    return result, folder / "model.ddbp"


def predicted(capsys, tmp_path, bundle, *arguments):
    """Return the rows that are predicted."""
    output = tmp_path / "predictions.csv"
    assert cli.main(["predict", str(bundle), *map(str, arguments), "--output", str(output)]) == 0
    capsys.readouterr()
    with output.open(newline="") as file:
        return [*csv.DictReader(file)]


@pytest.mark.parametrize("kind", ["images", "table", "series", "walks", "lines", "text"])
def test_no_sample_is_trained_on_and_evaluated(tmp_path, kind):
    write = {"images": made.images, "table": made.table, "series": made.wave, "text": made.text}
    data = (write | {"walks": made.walks, "lines": made.lines})[kind](tmp_path / "data")
    recipe = {"walks": "series", "lines": "text"}.get(kind, kind)
    flags = {
        "series": ("--past", "5", "--ahead", "2"),
        "walks": ("--series", "walk", "--label", "gait"),
        "lines": ("--labels",),
        "text": ("--length", "64"),
    }.get(kind, ())
    arguments = ("--data", str(data), *flags)
    options = RECIPES[recipe].flags("train", arguments).parse_args(arguments)
    prepared = RECIPES[recipe].prepare(options).data
    parts = [rows(part) for part in (prepared.training, prepared.validation)]
    # Texts of few words, and rounded waves, may come twice.
    if kind in ("images", "table", "walks"):
        assert not {*parts[0]} & {*parts[1]}
    share = 0.1 if recipe == "text" else 0.2
    assert len(parts[1]) == pytest.approx(share * len(parts[0] + parts[1]), rel=0.25)


def rows(dataset):
    """Return the inputs of samples as bytes."""
    if not hasattr(dataset, "x"):
        dataset = dataset.in_memory(np.arange(len(dataset)))
    x = dataset.x
    return [(x[[n]].values if isinstance(x, Ragged) else x[n]).tobytes() for n in range(len(x))]


def test_images_of_a_folder(tmp_path, capsys):
    folder = made.images(tmp_path / "shapes")
    flags = ("--data", folder, "--size", made.SIDE, "--epochs", 8, "--batch-size", 16)
    result, bundle = trained(capsys, tmp_path, "images", *flags)
    assert result["metrics"]["accuracy"] > 0.9
    assert load_bundle(bundle).labels == made.SHAPES
    told = made.run(capsys, "evaluate", bundle, "--data", folder, "--quiet")
    assert told["samples"] == 90
    assert told["metrics"]["accuracy"] > 0.9
    assert [each["samples"] for each in told["classes"].values()] == [30, 30, 30]
    rows = predicted(capsys, tmp_path, bundle, folder / "disc", folder / "cross" / "3.png")
    assert len(rows) == 31
    assert rows[-1]["file"].endswith("cross/3.png")
    right = sum(row["prediction"] == "disc" for row in rows[:-1])
    assert right > 25
    for row in rows:
        chances = [float(row[f"p({name})"]) for name in made.SHAPES]
        assert sum(chances) == pytest.approx(1)
        assert max(chances) == float(row["probability"])


def test_folders_for_training_and_validation_are_taken_as_they_are(tmp_path, capsys):
    made.images(tmp_path / "data" / "train", 12)
    made.images(tmp_path / "data" / "val", 4, seed=1)
    result, bundle = trained(
        capsys, tmp_path, "images", "--data", tmp_path / "data", "--epochs", 1, "--model", "mlp"
    )
    assert np.isfinite(result["metrics"]["validation_loss"])
    assert made.run(capsys, "evaluate", bundle, "--data", tmp_path / "data")["samples"] == 12


def test_resnet_in_the_format_of_cifar(tmp_path, capsys):
    # Few steps: what is tried is the path, from binary files to predictions.
    folder = made.cifar(tmp_path / "cifar", 8)
    flags = ("--data", folder, "--model", "resnet20", "--epochs", 1, "--batch-size", 20)
    _, bundle = trained(capsys, tmp_path, "images", *flags)
    augment = json.loads((tmp_path / "run" / "config.json").read_text())["augment"]
    assert [each.partition("(")[0] for each in augment] == ["Flip", "Crop"]
    told = made.run(capsys, "evaluate", bundle, "--data", folder, "--quiet")
    assert told["samples"] == 8
    assert len(told["classes"]) == 10


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_classes_of_a_table(tmp_path, capsys, ending):
    path = made.table(tmp_path / "kinds.csv")
    if ending == ".parquet":
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        frame = pandas.read_csv(path)
        path = path.with_suffix(ending)
        frame.to_parquet(path)
    result, bundle = trained(
        capsys, tmp_path, "table", "--data", path, "--target", "kind", "--epochs", 30
    )
    assert result["metrics"]["accuracy"] > 0.85
    told = made.run(capsys, "evaluate", bundle, "--data", path, "--quiet")
    assert [*told["classes"]] == ["large", "small"]
    rows = predicted(capsys, tmp_path, bundle, path)
    assert [row["row"] for row in rows] == [str(n) for n in range(1, 201)]
    assert {row["prediction"] for row in rows} == {"large", "small"}


def test_numbers_of_a_table_are_told_in_their_units(tmp_path, capsys):
    path = made.table(tmp_path / "areas.csv", target="area")
    result, bundle = trained(capsys, tmp_path, "table", "--data", path, "--epochs", 60)
    told = made.run(capsys, "evaluate", bundle, "--data", path, "--quiet")
    rows = predicted(capsys, tmp_path, bundle, path)
    with path.open(newline="") as file:
        areas = np.array([float(row["area"]) for row in csv.DictReader(file)])
    errors = np.array([float(row["prediction"]) for row in rows]) - areas
    assert told["metrics"]["mean_absolute_error"] == pytest.approx(abs(errors).mean(), rel=1e-4)
    root = np.sqrt((errors**2).mean())
    assert told["metrics"]["root_mean_square_error"] == pytest.approx(root, rel=1e-4)
    r2 = 1 - (errors**2).mean() / areas.var()
    assert told["metrics"]["r2"] == pytest.approx(r2, rel=1e-3)
    assert result["metrics"]["r2"] > 0.8


@pytest.mark.parametrize("tokens", ["characters", "bytes", "words"])
def test_a_language_model_of_a_text(tmp_path, capsys, tokens):
    path = made.text(tmp_path / "cats.txt")
    flags = ("--model", "gru", "--hidden", 16, "--embedding", 8, "--length", 64, "--window", 16)
    result, bundle = trained(
        capsys, tmp_path, "text", "--data", path, "--tokens", tokens, "--epochs", 4, *flags
    )
    unit = {"characters": "character", "bytes": "byte", "words": "word"}[tokens]
    bits = result["metrics"][f"bits_per_{unit}"]
    assert bits == pytest.approx(result["metrics"]["validation_loss"] / np.log(2), rel=1e-4)
    told = made.run(capsys, "evaluate", bundle, "--data", path, "--quiet")
    assert told["metrics"][f"bits_per_{unit}"] > 0
    (row,) = predicted(capsys, tmp_path, bundle, path, "--characters", 20)
    assert float(row["loss"]) == pytest.approx(told["loss"], rel=0.2)
    assert row["continuation"]


def test_a_gpt_reads_windows(tmp_path, capsys):
    path = made.text(tmp_path / "cats.txt")
    flags = ("--model", "gpt", "--hidden", 16, "--window", 16, "--epochs", 1)
    _, bundle = trained(capsys, tmp_path, "text", "--data", path, *flags)
    (row,) = predicted(capsys, tmp_path, bundle, path, "--characters", 30)
    assert len(row["continuation"]) == 30


def test_labels_of_lines(tmp_path, capsys):
    path = made.lines(tmp_path / "said.txt")
    flags = ("--model", "gru", "--hidden", 16, "--embedding", 8, "--tokens", "words")
    result, bundle = trained(
        capsys, tmp_path, "text", "--labels", "--data", path, "--epochs", 6, *flags
    )
    assert result["metrics"]["accuracy"] > 0.9
    told = made.run(capsys, "evaluate", bundle, "--data", path, "--quiet")
    assert [*told["classes"]] == ["bad", "good"]
    new = tmp_path / "new.txt"
    new.write_text("it was awful\n\nit was lovely, lovely\n")
    rows = predicted(capsys, tmp_path, bundle, new)
    assert [(row["line"], row["prediction"]) for row in rows] == [("1", "bad"), ("3", "good")]


def test_a_forecast_of_a_column(tmp_path, capsys):
    path = made.wave(tmp_path / "wave.csv")
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{','.join(reversed(line.split(',')))}\n" for line in lines))
    flags = ("--past", 20, "--ahead", 3, "--hidden", 16, "--epochs", 20, "--batch-size", 32)
    flags = (*flags, "--column", "height")
    result, bundle = trained(capsys, tmp_path, "series", "--data", path, *flags)
    # The bundle knows which column it was.
    assert result["metrics"]["mean_absolute_error"] < 1.5
    told = made.run(capsys, "evaluate", bundle, "--data", path, "--quiet")
    assert told["metrics"]["r2"] > 0.9
    rows = predicted(capsys, tmp_path, bundle, path)
    expected = [np.sin(t / 5) * 10 + 20 for t in (300, 301, 302)]
    assert [float(row["prediction"]) for row in rows] == pytest.approx(expected, abs=3)
    other = tmp_path / "other.csv"
    other.write_text(path.read_text().replace("height", "level"))
    assert predicted(capsys, tmp_path, bundle, other, "--column", "level") == [
        {**row, "file": str(other)} for row in rows
    ]
    capsys.readouterr()
    assert cli.main(["predict", str(bundle), str(other)])
    assert "column must be one of" in capsys.readouterr().err


def test_classes_of_series_of_different_lengths(tmp_path, capsys):
    path = made.walks(tmp_path / "walks.csv")
    reading = ("--series", "walk", "--label", "gait", "--time", "step")
    flags = ("--hidden", 8, "--epochs", 20, "--batch-size", 8)
    result, bundle = trained(capsys, tmp_path, "series", "--data", path, *reading, *flags)
    assert result["metrics"]["accuracy"] > 0.9
    told = made.run(capsys, "evaluate", bundle, "--data", path, *reading, "--quiet")
    assert [*told["classes"]] == ["fast", "slow"]
    assert '<th scope="row">fast</th>' in (tmp_path / "run" / "report.html").read_text()
    rows = predicted(capsys, tmp_path, bundle, path, *reading)
    assert len(rows) == 40


def test_early_stopping_keeps_the_best_parameters(tmp_path, capsys):
    path = made.table(tmp_path / "kinds.csv", 60)
    flags = ("--data", path, "--epochs", 200, "--early-stopping", 2, "--learning-rate", 0.1)
    result, bundle = trained(capsys, tmp_path, "table", *flags)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["validation_loss"] for line in lines]
    assert len(losses) < 200
    assert result["metrics"]["validation_loss"] == pytest.approx(min(losses), rel=1e-6)
    assert load_bundle(bundle).task == "classification"


def test_a_run_that_was_stopped_goes_on_to_the_same_parameters(tmp_path, capsys):
    path = made.table(tmp_path / "kinds.csv")
    flags = ("table", "--data", path, "--epochs", 3, "--checkpoint-every", 4, "--quiet")
    whole = made.run(capsys, "train", *flags, "--run-dir", tmp_path / "whole")
    folder = tmp_path / "part"
    made.run(capsys, "train", *flags, "--run-dir", folder)
    newest = max((folder / "checkpoints").iterdir(), key=lambda each: each.stat().st_mtime)
    steps = [each for each in (folder / "checkpoints").iterdir() if each != newest]
    assert steps, "there must be an older one to go on from"
    again = made.run(capsys, "train", *flags, "--run-dir", tmp_path / "on", "--resume", steps[0])
    assert again["parameters_sha256"] == whole["parameters_sha256"]
    assert (tmp_path / "on" / "model.ddbp").read_bytes()


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_predictions_in_other_files(tmp_path, capsys, ending):
    path = made.table(tmp_path / "kinds.csv")
    _, bundle = trained(capsys, tmp_path, "table", "--data", path, "--epochs", 1)
    rows = predicted(capsys, tmp_path, bundle, path)
    output = tmp_path / f"predictions{ending}"
    if ending == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert cli.main(["predict", str(bundle), str(path), "--output", str(output)]) == 0
    if ending == ".npz":
        found = np.load(output)["prediction"].tolist()
    else:
        found = parquet.read_table(output).to_pydict()["prediction"]
    assert found == [row["prediction"] for row in rows]


def test_predictions_are_printed_where_no_file_is_named(tmp_path, capsys):
    path = made.table(tmp_path / "kinds.csv")
    _, bundle = trained(capsys, tmp_path, "table", "--data", path, "--epochs", 1)
    assert cli.main(["predict", str(bundle.parent), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "file,row,prediction,probability,p(large),p(small)"
    assert len(lines) == 201
