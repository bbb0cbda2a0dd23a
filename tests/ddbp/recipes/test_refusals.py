"""What recipes refuse: in a line that names the file, with status 1, and nothing half done."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from ddbp.commands import cli

from . import made

pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'ddbp[images]'")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return a bundle of a table."""
    folder = tmp_path_factory.mktemp("bundle")
    path = made.table(folder / "kinds.csv", 40)
    run = ("--epochs", "1", "--run-dir", str(folder / "run"), "--quiet")
    assert cli.main(["train", "table", "--data", str(path), *run]) == 0
    return folder / "run" / "model.ddbp"


@pytest.mark.parametrize(("arguments", "words"), [
    (("table", "--data", "none.csv"), "none.csv, which is not there"),
    (("table", "--data", "kinds.csv", "--target", "height"), "--target must be a column"),
    (("table", "--data", "kinds.csv", "--ignore", "height"), "must have the column"),
    (("images", "--data", "empty"), "must have a sub-folder for each class"),
    (("images", "--data", "nothing_of_that_name"), "a path that is there, or one of digits"),
    (("images", "--data", "picture.png"), "in a folder for each class; got picture.png, an image"),
    (("images", "--data", "kinds.csv"), "got kinds.csv, a table. Recipes for others are"),
    (("images", "--data", "short.tar"), "path must be CIFAR's archive, and whole; got short.tar"),
    (("table", "--data", "picture.png"), "got picture.png, an image"),
    (("text", "--data", "picture.png"), "got picture.png, an image"),
    (("series", "--data", "picture.png"), "got picture.png, an image"),
    (("text", "--data", "nothing.txt"), "must have letters; got none in nothing.txt"),
    (("images", "--data", "shapes", "--size", "3"), "of --model cnn must be of 4 x 4 or more; got"),
    (("images", "--data", "shapes", "--augment", "Flop()"), 'Write --augment "Flip(), Crop(4)"'),
    (("images", "--data", "japanese_vowels"), "must be made for this recipe"),
    (("images", "--data", "shapes", "--model", "lenet", "--size", "12"), "must be of 28 x 28"),
    (("images", "--data", "shapes", "--augment", "Turn()"), "each of Flip, Crop, Shift"),
    (("text", "--data", "short.txt"), "must have more than 512 tokens"),
    (("text", "--data", "latin.txt"), "must be UTF-8; got latin.txt"),
    (("text", "--data", "short.txt", "--labels"), "short.txt, line 1"),
    (("text", "--data", "said.txt", "--labels", "--model", "gpt"), "must be recurrent"),
    (("series", "--data", "wave.csv", "--column", "depth"), "column must be one of"),
    (("series", "--data", "kinds.csv"), "column kind must be numbers; got"),
    (("series", "--data", "wave.csv", "--past", "400"), "both parts of the series must have"),
    (("series", "--data", "wave.csv", "--label", "height"), "Name it by --series"),
    (("series", "--data", "wave.csv", "--series", "time"), "of one series; got --series time"),
])  # fmt: skip
def test_data_that_cannot_be_learned_from(tmp_path, capsys, monkeypatch, arguments, words):
    if "japanese_vowels" in arguments:
        pytest.importorskip("aeon", reason="aeon is not installed")
    monkeypatch.chdir(tmp_path)
    made.table(tmp_path / "kinds.csv", 40)
    made.wave(tmp_path / "wave.csv")
    made.lines(tmp_path / "said.txt")
    (tmp_path / "empty").mkdir()
    if "shapes" in arguments:
        made.images(tmp_path / "shapes", 2)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "short.tar").write_text("too short")
    (tmp_path / "nothing.txt").touch()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1") * 99)
    error = made.refused(capsys, "train", *arguments, "--run-dir", "run")
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_is_named_or_left_out(tmp_path, capsys):
    folder = made.images(tmp_path / "shapes", 6)
    (folder / "disc" / "3.png").write_bytes(b"no image")
    flags = ("images", "--data", folder, "--epochs", 1, "--size", 8, "--run-dir", tmp_path / "run")
    assert "disc/3.png" in made.refused(capsys, "train", *flags)
    assert cli.main([*map(str, ("train", *flags, "--skip-bad"))]) == 0
    assert "1 sample left out, first" in capsys.readouterr().err
    bundle = str(tmp_path / "run" / "model.ddbp")
    assert "disc/3.png" in made.refused(capsys, "predict", bundle, folder / "disc")
    assert cli.main(["predict", bundle, str(folder / "disc"), "--skip-bad"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 6
    assert "left out: " in captured.err


@pytest.mark.parametrize("names", [("valid", "invalid"), ("train", "bus"), ("test", "bench")])
def test_classes_may_be_called_as_parts_of_data_are(tmp_path, capsys, names):
    folder = made.images(tmp_path / "shapes", 6)
    (folder / "disc").rename(folder / names[0])
    (folder / "cross").rename(folder / names[1])
    flags = ("--data", folder, "--quiet")
    run = ("--epochs", 1, "--size", 8, "--run-dir", tmp_path / "run")
    made.run(capsys, "train", "images", *flags, *run)
    found = made.run(capsys, "evaluate", tmp_path / "run", *flags)
    assert found["classes"].keys() == {*names, "square"}
    assert found["samples"] == 18


def test_parts_of_data_without_classes_are_no_classes(tmp_path, capsys):
    folder = made.images(tmp_path / "shapes", 2)
    (folder / "disc").rename(folder / "train")
    (folder / "cross").rename(folder / "test")
    (folder / "square").rename(tmp_path / "square")
    assert "no sub-folder" in made.refused(capsys, "train", "images", "--data", folder)


@pytest.mark.parametrize("arguments", [
    ["sounds"], [], ["images"], ["images", "--data", "x", "--model", "vgg"],
    ["table", "--data", "x", "--validation", "1.5"], ["table", "--data", "x", "--epochs", "0"],
])  # fmt: skip
def test_wrong_usage_is_status_two(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert any(line.startswith("ddbp train") and "error: " in line for line in said)


def test_predict_takes_patterns_and_says_what_is_of_another_kind(
    tmp_path, capsys, monkeypatch, bundle
):
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv"):
        made.table(tmp_path / name, 3)
    assert cli.main(["predict", str(bundle), "*.csv"]) == 0
    files = [line.partition(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert files == ["file", *["a.csv"] * 3, *["b.csv"] * 3]
    (tmp_path / "x.png").touch()
    for path, words in (
        ("*.txt", "got none for *.txt"),
        ("x.png", "got x.png, an image"),
        (".", "got ., which is none"),
    ):
        assert words in made.refused(capsys, "predict", bundle, path)
    assert "got x.png, an image" in made.refused(capsys, "evaluate", bundle, "--data", "x.png")
    assert "got nope, which is not there" in made.refused(capsys, "predict", "nope", "a.csv")


def test_predictions_that_nobody_reads_on_end_without_a_traceback(tmp_path, bundle):
    path = made.table(tmp_path / "kinds.csv", 400)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ddbp", "predict", str(bundle), str(path)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_one_of_several_ranks_predicts_in_letters_that_there_are(tmp_path):
    path = made.table(tmp_path / "kinds.csv", 30)
    path.write_text(path.read_text().replace("large", "groß"), encoding="utf-8")
    run, ddbp = tmp_path / "run", [sys.executable, "-m", "ddbp"]
    flags = ["--data", str(path), "--epochs", "1", "--quiet", "--run-dir", str(run)]
    assert cli.main(["train", "table", *flags]) == 0
    letters = {"PYTHONIOENCODING": "ascii"}
    for start in ([], ["launch", "--survive", "-n", "2", "-m", "ddbp"]):
        done = subprocess.run(
            [*ddbp, *start, "predict", str(run), str(path)],
            env=os.environ | letters,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 31
        assert r"p(gro\xdf)" in done.stdout
    onnx = [*ddbp, "launch", "--survive", "-n", "2", "-m", "ddbp", "export", str(run)]
    done = subprocess.run(onnx, capture_output=True, text=True, check=False)
    assert done.stdout.count("task: classification") == 1


def test_predict_names_the_file_that_is_wrong(tmp_path, capsys, bundle):
    other = tmp_path / "other.csv"
    other.write_text("length,width\n1,2\n")
    for path, words in (
        (tmp_path / "none.csv", "none.csv"),
        (other, "other.csv without colour"),
    ):
        assert words in made.refused(capsys, "predict", bundle, path)
    bad = tmp_path / "bad.csv"
    bad.write_text("length,width,colour\n1,2,red\nlong,2,red\n")
    assert "bad.csv, line 3" in made.refused(capsys, "predict", bundle, bad)


@pytest.mark.parametrize(("output", "words"), [
    ("predictions.txt", "must end in .csv, .parquet, .npz"),
    ("none/predictions.csv", "must be a file in an existing folder"),
    ("folder.csv", "must be a file in an existing folder"),
    ("/proc/predictions.csv", "/proc/predictions.csv must be a file to write to; got"),
])  # fmt: skip
def test_predictions_that_cannot_be_written_are_refused_first(
    tmp_path, capsys, monkeypatch, bundle, output, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    made.table(tmp_path / "kinds.csv", 3)
    arguments = ("predict", bundle, "kinds.csv", "--output", output)
    assert words in made.refused(capsys, *arguments)


def test_predictions_replace_nothing_that_is_read(tmp_path, capsys, bundle):
    table = made.table(tmp_path / "kinds.csv", 5)
    link = tmp_path / "link.csv"
    link.symlink_to(table)
    before = table.read_bytes()
    for output in (table, link):
        error = made.refused(capsys, "predict", bundle, table, "--output", output)
        assert "--output must be another file than those that are read; got" in error
    assert table.read_bytes() == before
    assert cli.main(["predict", str(bundle), str(table), "-o", str(tmp_path / "new.csv")]) == 0


def test_an_evaluation_that_cannot_be_written_is_told_in_a_line(tmp_path, capsys, bundle):
    table = made.table(tmp_path / "kinds.csv", 5)
    flags = ("--data", table, "--quiet", "--json", "/proc/found.json")
    error = made.refused(capsys, "evaluate", bundle, *flags)
    assert "ddbp evaluate: the file of --json must be writable; got /proc/found.json" in error


@pytest.mark.parametrize("ending", ["csv", "npz", "parquet"])
def test_names_that_are_no_utf8_are_escaped_in_predictions(tmp_path, ending):
    from ddbp.recipes import outputs

    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / f"found.{ending}"
    columns = {"file": ["caf\udce9.png", "tea.png"], "p(caf\udce9)": np.array([0.25, 0.5])}
    outputs.write(path, columns)
    if ending == "npz":
        with np.load(path) as found:
            told = {name: found[name].tolist() for name in found}
    elif ending == "csv":
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        told = dict(zip(head, map(list, zip(*rows, strict=True)), strict=True))
        told[head[1]] = [*map(float, told[head[1]])]
    else:
        from pyarrow import parquet

        told = parquet.read_table(path).to_pydict()
    assert told == {"file": ["caf\\udce9.png", "tea.png"], "p(caf\\udce9)": [0.25, 0.5]}


def test_a_bundle_of_something_else_is_refused(tmp_path, capsys, bundle):
    from ddbp.export import save_bundle
    from layers import ReLU

    path = tmp_path / "other.ddbp"
    save_bundle(path, ReLU())
    assert "must hold the preprocessing of a recipe" in made.refused(
        capsys, "predict", path, "x.csv"
    )
    path.write_bytes(b"PK no bundle")
    for command in (("predict", path, "x.csv"), ("evaluate", path, "--data", "x.csv")):
        assert "other.ddbp" in made.refused(capsys, *command)
    assert "none.ddbp" in made.refused(capsys, "predict", tmp_path / "none.ddbp", "x.csv")


def test_labels_that_the_model_does_not_know_are_refused(tmp_path, capsys, bundle):
    path = tmp_path / "kinds.csv"
    path.write_text("length,width,colour,kind\n1,2,red,huge\n")
    error = made.refused(capsys, "evaluate", bundle, "--data", path)
    assert "huge" in error
