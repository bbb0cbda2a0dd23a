"""`ddbp doctor --fix`: a run once more with the change that cures it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import ddbp
from ddbp import settings
from ddbp.commands import doctor, replay
from ddbp.doctor import finding
from ddbp.doctor.finding import Finding
from ddbp.export import load_bundle
from ddbp.training.replay import origin, recorded_digest
from layers import Dropout, Linear, ReLU, Sequential

from ...conftest import Finished, run_process
from ..recipes import made
from .test_replay import contents

PROGRAM = Path(__file__).parents[2] / "mpi" / "programs" / "fixed.py"
LAST = 79


def train(folder, *flags, launcher=()):
    done = run_process([sys.executable, *launcher, PROGRAM, folder, *flags], timeout=300)
    assert done.status == 0, done.err
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run on two ranks."""
    launcher = ("-m", "ddbp", "launch", "-n", 2)
    return train(tmp_path_factory.mktemp("fix") / "run", launcher=launcher)


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of the folder, whose findings may be written over."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def fixed(capfd):
    """Return the function that runs the command, and returns its status, output and errors."""

    def run(*arguments):
        status = doctor.run([*map(str, ("--fix", *arguments))])
        return Finished(status, *capfd.readouterr())

    return run


def test_the_change_is_printed_as_a_diff_of_options(folder, fixed):
    done = fixed(folder, "--print")
    assert done.status == 0, done.err
    assert done.out.splitlines()[1:] == ["- learning_rate=1e-06", "+ learning_rate=0.0006"]
    assert not folder.with_name("run-fixed").exists()


def test_the_repaired_run_is_that_of_the_script_with_the_change(folder, fixed, tmp_path):
    place = folder.parent
    before = contents(place)
    done = fixed(folder)
    assert done.status == 0, done.err
    assert f"2 ranks, in {place / 'run-fixed'}" in done.err
    said = "ddbp doctor --fix: in this run learning_rate=0.0006, whatever the script says."
    assert done.err.count(said) == 1
    by_hand = train(tmp_path / "by hand" / "run", "--rate", "0.0006")
    digest = recorded_digest(by_hand, LAST)
    assert digest is not None
    assert recorded_digest(place / "run-fixed", LAST) == digest != recorded_digest(folder, LAST)
    # Nothing is written over, whatever other trainers and callbacks write.
    after = contents(place)
    assert before.items() <= after.items()
    new = {name.partition("/")[0] for name in after.keys() - before.keys()}
    assert new == {"run-fixed", "run-fixed-trainer0", "by hand"}
    assert (place / "run-fixed" / "best.safetensors").is_file()
    # What is found then comes on top of it, and a step of it can be replayed.
    changes = {"clip_norm": 0.5}
    finding.append(place / "run-fixed", Finding("a", 1, "b", "c", "d", changes=changes))
    again = fixed(place / "run-fixed")
    assert again.status == 0, again.err
    assert again.out.splitlines()[1:] == ["- clip_norm=None", "+ clip_norm=0.5"]
    assert f"2 ranks, in {place / 'run-fixed-2'}" in again.err
    assert "in this run learning_rate=0.0006, clip_norm=0.5," in again.err
    assert replay.run([str(place / "run-fixed-2"), "--step", "5"]) == 0


def test_a_run_of_a_recipe_leaves_that_before_as_it_was(fixed, tmp_path):
    folder, data = tmp_path / "run", made.table(tmp_path / "table.csv", rows=40)
    flags = ("--epochs", 1, "--run-dir", folder, "--json", tmp_path / "result.json")
    command = (sys.executable, "-m", "ddbp", "train", "table", "--data", data, *flags)
    trained = run_process([*command], timeout=300)
    assert trained.status == 0, trained.err
    finding.append(folder, Finding("a", 1, "b", "c", "d", changes={"clip_norm": 0.01}))
    before = contents(tmp_path)
    done = fixed(folder)
    assert done.status == 0, done.err
    place = tmp_path / "run-fixed"
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    new = {name.partition("/")[0] for name in after.keys() - before.keys()}
    assert new == {place.name}
    # Its bundle is there, and what comes next is said of that one.
    assert f"ddbp predict {place / 'model.ddbp'} FILE" in done.err
    result = json.loads(done.out.splitlines()[-1])
    assert result["bundle"] == str(place / "model.ddbp")
    assert json.loads((place / "result.json").read_text()) == result
    bundles = [load_bundle(each / "model.ddbp").model for each in (folder, place)]
    weights = [next(iter(model.parameters())).value.tobytes() for model in bundles]
    assert weights[0] != weights[1]


def test_what_is_nearest_to_the_cause_of_what_options_cure_is_fixed(folder, fixed):
    finding.append(folder, Finding("a", 1, "b", "c", "d", changes={"clip_norm": 2.0}))
    finding.append(folder, Finding("b", 1, "b", "c", "Mend the code."))
    assert fixed(folder, "--print").out.splitlines()[1:] == ["- clip_norm=None", "+ clip_norm=2.0"]


def test_a_run_of_more_ranks_than_shards_gets_fewer(folder, fixed):
    finding.append(folder, Finding("a", 1, "b", "c", "d", changes={"shards": 1}))
    done = fixed(folder)
    assert done.status == 0, done.err
    assert done.out.splitlines()[1:] == ["- shards=4", "+ shards=1"]
    assert "1 rank, in" in done.err


def of_another_version(folder):
    path = folder / "config.json"
    facts = json.loads(path.read_text())
    facts["environment"]["ddbp"] = "0.0.1"
    path.write_text(json.dumps(facts))


def without_script(folder):
    path = folder / "config.json"
    facts = json.loads(path.read_text())
    facts["process"]["python"][0] = str(folder / "gone.py")
    path.write_text(json.dumps(facts))


WRONG = {
    "no finding": (
        lambda folder: (folder / finding.FILE).unlink(),
        "run must have a finding; got none. Nothing was found that wants mending.",
    ),
    "no option": (
        lambda folder: (folder / finding.FILE).write_text(
            Finding("imbalance", 1, "b", "c", "Weigh them.").line()
        ),
        "an option must cure what was found; got imbalance, which none does. Weigh them.",
    ),
    "another version": (of_another_version, "; got 0.0.1. Train once more, or install"),
    "no script": (without_script, "the script of the run must be there; got"),
    "no configuration": (
        lambda folder: (folder / "config.json").write_text("{"),
        "must say how the run was started",
    ),
    "no such option": (
        lambda folder: finding.append(folder, Finding("a", 1, "", "", "", changes={"depth": 3})),
        "ddbp doctor --fix: changes must be options of the trainer; got depth. They are",
    ),
    "an option out of range": (
        lambda folder: finding.append(folder, Finding("a", 1, "", "", "", changes={"l2": -1.0})),
        "l2",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_fixed_is_refused_in_words(wrong, folder, fixed):
    spoil, words = WRONG[wrong]
    spoil(folder)
    done = fixed(folder)
    assert done.status != 0
    assert words in done.err
    assert not folder.with_name("run-fixed").exists()


def test_a_folder_that_may_not_be_written_to_is_named(folder, fixed, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = fixed(folder)
    assert done.status == 1
    assert f"room for a folder beside {folder}; got Permission denied. Copy" in done.err


# What the trainer makes of the changes

RNG = np.random.default_rng(3)
LABELS = (RNG.random(90) < 0.1).astype(np.int64)
DATA = ddbp.ArrayDataset(RNG.standard_normal((90, 8)).astype(np.float32), LABELS)


def digest(optimizer=None, dropout=0.4, class_weight=None, **options):
    """Return the digest of a short run."""
    rng = np.random.default_rng(1)
    model = Sequential(Linear(8, 6, rng=rng), ReLU(), Dropout(dropout), Linear(6, 2, rng=rng))
    usual = {"loss": "cross_entropy", "batch_size": 15, "shards": 3, "quiet": True, **options}
    trainer = ddbp.Trainer(model, optimizer=optimizer or ddbp.SGD(0.1, momentum=0.5), **usual)
    trainer.fit(DATA, epochs=2, class_weight=class_weight)
    digest.number = origin(trainer)["trainer"]
    return trainer.parameters_sha256()


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"learning_rate": 0.3}, {"optimizer": ddbp.SGD(0.3, momentum=0.5)}),
        ({"schedule": None}, {}),
        ({"momentum": 0.9}, {"optimizer": ddbp.SGD(0.1, momentum=0.9)}),
        ({"momentum": 0.0, "weight_decay": 0.1}, {"optimizer": ddbp.SGD(0.1, weight_decay=0.1)}),
        ({"clip_norm": 0.1, "l2": 0.01}, {"clip_norm": 0.1, "l2": 0.01}),
        ({"shards": 5, "batch_size": 30}, {"shards": 5, "batch_size": 30}),
        ({"dropout": 0.1}, {"dropout": 0.1}),
        ({"dropout": 0.9}, {}),
        ({"class_weight": "balanced"}, {"class_weight": "balanced"}),
    ],
)
def test_a_change_does_what_the_option_of_the_script_would(changes, options, monkeypatch):
    expected = digest(**options)
    asked = {"trainer": digest.number + 1, "run_dir": None, "changes": changes}
    monkeypatch.setenv(settings.FIX, json.dumps(asked))
    assert digest() == expected
    # The next one of the script is another one.
    monkeypatch.undo()
    usual = digest()
    monkeypatch.setenv(settings.FIX, json.dumps(asked))
    assert digest() == usual


@pytest.mark.parametrize("text", ["x", "[]", "{}", '{"trainer": 0, "run_dir": "", "changes": 1}'])
def test_a_setting_that_the_command_has_not_made_is_refused(text, monkeypatch):
    monkeypatch.setenv(settings.FIX, text)
    with pytest.raises(ValueError, match="DDBP_FIX must be what `ddbp doctor --fix` sets"):
        digest()
