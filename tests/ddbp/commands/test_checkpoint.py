"""`ddbp checkpoint`: list, show, verify and export."""

import os

import numpy as np
import pytest
import safetensors.numpy

import ddbp
from ddbp.checkpoint import folder
from ddbp.commands import checkpoint

from ..training.small import DATA, make, network


@pytest.fixture
def run(tmp_path):
    """Return the folder of a run with three checkpoints, and its trainer."""
    callback = ddbp.Checkpoints(background=False)
    trainer = make(network(), run_dir=tmp_path, callbacks=[callback])
    trainer.fit(DATA, epochs=3)
    return tmp_path, trainer


def damage(run_dir, step):
    path = run_dir / "checkpoints" / folder.step_name(step) / "part-0000-of-0001.safetensors"
    os.truncate(path, path.stat().st_size - 8)


@pytest.mark.parametrize("where", ["", "checkpoints"])
def test_checkpoints_are_listed_from_the_oldest_on(run, capsys, where):
    assert checkpoint.run(["list", str(run[0] / where)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [folder.step_name(n) for n in (5, 10, 15)]
    assert "epoch 3  1 ranks" in lines[-1]


def test_newest_is_shown_with_values_and_arrays(run, capsys):
    assert checkpoint.run(["show", str(run[0])]) == 0
    shown = capsys.readouterr().out
    assert "step: 15" in shown
    assert "stream.epoch: 3" in shown
    assert "optimizer.momentum.layers.0.weight: (16, 6) float32, in 1 pieces" in shown


def test_damaged_ones_make_the_status_one(run, capsys):
    assert checkpoint.run(["verify", str(run[0])]) == 0
    damage(run[0], 10)
    assert checkpoint.run(["verify", str(run[0])]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-3:] == [
        f"{folder.step_name(5)}  whole",
        f"{folder.step_name(10)}  damaged",
        f"{folder.step_name(15)}  whole",
    ]
    assert "step-000000010" in err


def test_exported_model_is_that_of_the_trainer(run, tmp_path):
    run_dir, trainer = run
    target = tmp_path / "exported.safetensors"
    assert checkpoint.run(["export", str(run_dir), "-o", str(target)]) == 0
    expected = {name: p.value for name, p in trainer.model.named_parameters()}
    found = safetensors.numpy.load_file(target)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
    other = network()
    ddbp.load_parameters(other, target)
    assert make(other).parameters_sha256() == trainer.parameters_sha256()


def test_a_damaged_one_is_not_exported(run, tmp_path, capsys):
    damage(run[0], 15)
    target = tmp_path / "export.safetensors"
    assert checkpoint.run(["export", str(run[0]), "-o", str(target)]) == 1
    assert "its arrays must be as they were written" in capsys.readouterr().err
    assert not target.exists()


def test_file_that_is_there_is_overwritten_where_that_is_asked_for_alone(run, tmp_path, capsys):
    target = tmp_path / "export.safetensors"
    command = ["export", str(run[0]), "-o", str(target)]
    target.write_text("precious")
    assert checkpoint.run(command) == 1
    assert f"export must write a new file; got {target}. Name one by -o" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert checkpoint.run([*command, "--overwrite"]) == 0
    assert safetensors.numpy.load_file(target).keys()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert checkpoint.run(["export", str(run[0]), "-o", str(link)]) == 1


def test_one_that_has_made_way_for_another_is_listed(run, capsys):
    path = run[0] / "checkpoints" / folder.step_name(15)
    path.rename(path.with_name(f".{path.name}.old"))
    assert checkpoint.run(["verify", str(run[0])]) == 0
    assert f".{path.name}.old  whole" in capsys.readouterr().out


def test_folder_without_checkpoints_is_refused(tmp_path, capsys):
    assert checkpoint.run(["list", str(tmp_path)]) == 1
    assert "there must be a checkpoint" in capsys.readouterr().err
