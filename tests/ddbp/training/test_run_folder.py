"""What a run leaves behind: its folder, and lines of progress."""

import json
import re

import numpy as np
import pytest

import ddbp
from layers import SoftmaxCrossEntropy

from .small import DATA, X, make, network


def test_run_folder_holds_configuration_metrics_and_parameters(tmp_path):
    folder = tmp_path / "deep" / "run"
    trainer = make(run_dir=folder, seed=4, l2=0.5)
    history = trainer.fit(DATA, epochs=2)
    configuration = json.loads((folder / "config.json").read_text())
    assert configuration["seed"] == 4
    assert configuration["l2"] == 0.5
    assert configuration["epochs"] == 2
    assert configuration["ranks"] == 1
    assert "Linear(6, 16)" in configuration["model"]
    assert [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ] == history
    other = network()
    ddbp.load_parameters(other, folder / "model.safetensors")
    assert other(X.astype(np.float32)).tobytes() == trainer.predict(X).tobytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
    ]


def test_options_are_read_from_the_configuration(tmp_path):
    trainer = make(run_dir=tmp_path, seed=4, l2=0.5, clip_norm=2.0, accumulate=3, wire="float16")
    trainer.fit(DATA, epochs=1)
    options = ddbp.TrainerOptions.read(tmp_path)
    assert options == trainer.options
    assert make(**options.as_dict()).options == options


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("3", "not iterable"),
        ("{}", "batch_size"),
        ('{"batch_size": 0}', "batch_size must be a positive integer; got 0"),
    ],
)
def test_folder_without_a_whole_configuration_is_refused_by_its_path(tmp_path, text, got):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    said = f"TrainerOptions.read: {path} must be the configuration of a run; got "
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        ddbp.TrainerOptions.read(tmp_path)
    assert got in str(caught.value)
    assert str(caught.value).endswith(" Pass the run_dir= of a trainer whose fit has begun.")


@pytest.mark.parametrize("shards", ["x", 0, 1.5])
def test_options_with_shards_that_are_no_positive_integer_are_refused(shards):
    said = f"Trainer: shards must be a positive integer; got {shards!r}. Leave it out for one per"
    with pytest.raises(ValueError, match=re.escape(said)):
        ddbp.TrainerOptions(batch_size=20, shards=shards)


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make().fit(DATA, epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_a_line_per_epoch_where_there_is_no_terminal(capsys):
    ddbp.Trainer(network(), loss=SoftmaxCrossEntropy(), optimizer=ddbp.SGD(0.1), batch_size=20).fit(
        DATA, epochs=2
    )
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("epoch")]
    assert out == ""
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert all("loss" in line and "samples/s" in line for line in lines)


def test_quiet_trainer_prints_nothing(capsys):
    make().fit(DATA, epochs=2)
    assert [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("Compiling")
    ] == []
