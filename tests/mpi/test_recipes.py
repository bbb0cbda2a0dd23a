"""A recipe gives the same bits alone and on ranks, and its errors end all of them."""

import json
import sys

import pytest

from ..conftest import run_process
from ..ddbp.recipes import made
from .ranks import ONE_HOST, in_full


def recipe(launcher, ranks, *arguments):
    """Return a finished command of ddbp on so many ranks, alone on 0."""
    command = launcher(ranks, ONE_HOST) if ranks else [sys.executable]
    return run_process([*command, "-m", "ddbp", *arguments], timeout=300)


@pytest.mark.parametrize("kind", ["table", *in_full("text", "images")])
def test_alone_and_on_ranks_it_ends_with_the_same_parameters(tmp_path, launcher, kind):
    if kind == "images":
        pytest.importorskip("PIL", reason="Pillow is not installed: pip install 'ddbp[images]'")
        data = made.images(tmp_path / "shapes", 8)
        flags = ("--size", made.SIDE, "--epochs", 2)
    elif kind == "text":
        data = made.text(tmp_path / "cats.txt")
        flags = ("--hidden", 8, "--embedding", 4, "--length", 64, "--window", 16, "--epochs", 1)
    else:
        data, flags = made.table(tmp_path / "kinds.csv", 80), ("--epochs", 3)
    results = []
    for ranks in (0, 2, 3):
        run = ("--quiet", "--run-dir", tmp_path / f"run{ranks}")
        done = recipe(launcher, ranks, "train", kind, "--data", data, *flags, *run)
        results.append(done.result())
    assert len({each["parameters_sha256"] for each in results}) == 1
    bundles = {(tmp_path / f"run{ranks}" / "model.ddbp").read_bytes() for ranks in (0, 2, 3)}
    assert len(bundles) == 1
    told = [
        recipe(launcher, ranks, "evaluate", tmp_path / "run2", "--data", data, "--quiet").result()
        for ranks in (0, 2)
    ]
    assert json.dumps(told[0]) == json.dumps(told[1])


def test_an_error_in_the_data_ends_all_ranks_in_lines(tmp_path, launcher):
    done = recipe(launcher, 2, "train", "table", "--data", tmp_path / "none.csv")
    assert done.status != 0
    assert "none.csv, which is not there" in done.err
    assert "Traceback" not in done.err
