"""Runs that go on from an older checkpoint, or are refused: nothing is lost, nothing twice."""

import json
import os

import pytest

import ddbp
from ddbp import settings
from ddbp.checkpoint import folder
from ddbp.instruments.recording import Recording
from ddbp.training.replay import StepDigests

from .small import DATA
from .stopped_runs import (
    EPOCHS,
    Stop,
    StopError,
    checkpoints,
    steps,
    stopped,
    timeless,
    trainer_in,
    undisturbed,
)


def contents(path):
    """Return the files beneath a folder."""
    return {each.relative_to(path): each.read_bytes() for each in path.rglob("*") if each.is_file()}


@pytest.mark.parametrize(("every", "new"), [(2, [4, 6]), (3, [4, 6]), (5, [4, 5])])
def test_run_that_goes_on_from_an_older_one_sets_the_later_ones_aside(tmp_path, capsys, every, new):
    stopped(tmp_path, 9, checkpoints(every_steps=2))
    place = tmp_path / "checkpoints"
    aside = place / folder.ASIDE
    held = {step: contents(place / folder.step_name(step)) for step in (6, 8)}
    rate = {"optimizer": ddbp.SGD(0.2, momentum=0.9), "resume_options": ("optimizer",)}
    older = place / folder.step_name(4)
    trainer = trainer_in(
        tmp_path, [checkpoints(every_steps=every, keep_last=2), Stop(7)], resume=older, **rate
    )
    # It has come to no checkpoint yet: nothing has changed.
    assert steps(tmp_path) == [4, 6, 8]
    with pytest.raises(StopError):
        trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    assert steps(tmp_path) == new
    assert {each: contents(aside / folder.step_name(each)) for each in held} == held
    told = capsys.readouterr().err
    for step in held:
        name = folder.step_name(step)
        assert f"{place / name} is of a later step than this run" in told
        assert f"is {aside / name} now." in told
    assert trainer_in(tmp_path, resume="auto", **rate).step_count == new[-1]
    again = trainer_in(None, resume=aside / folder.step_name(8))
    assert again.step_count == 8


def test_run_that_begins_again_goes_on_from_what_it_has_written_since_an_older_one(
    tmp_path, monkeypatch
):
    stopped(tmp_path, 9, checkpoints(every_steps=2))
    older = tmp_path / "checkpoints" / folder.step_name(4)

    def begins():
        return trainer_in(tmp_path, resume=older).step_count

    # As `ddbp launch --max-restarts` asks of it.
    monkeypatch.setenv(settings.RESUME, "1")
    assert begins() == 4
    stopped(tmp_path, 7, checkpoints(every_steps=1), resume=older)
    assert begins() == 6
    os.truncate(tmp_path / "checkpoints" / folder.step_name(6) / folder.STATE, 9)
    assert begins() == 5
    monkeypatch.delenv(settings.RESUME)
    assert begins() == 4


def test_ones_of_a_step_that_are_set_aside_again_lie_beside_each_other(tmp_path):
    stopped(tmp_path, 7, checkpoints(every_steps=2))
    for _ in range(3):
        older = tmp_path / "checkpoints" / folder.step_name(2)
        stopped(tmp_path, 5, checkpoints(every_steps=2), resume=older)
    aside = tmp_path / "checkpoints" / folder.ASIDE
    names = {each.name for each in aside.iterdir()}
    assert names == {"step-000000004", "step-000000004-2", "step-000000004-3", "step-000000006"}
    assert steps(tmp_path) == [2, 4]


def test_run_does_not_go_on_from_elsewhere_in_the_folder_of_another(tmp_path):
    other, mine = tmp_path / "other", tmp_path / "mine"
    stopped(other, 7, checkpoints(every_steps=6))
    stopped(mine, 5, checkpoints(every_steps=2, keep_last=9))
    before = contents(mine)
    with pytest.raises(ValueError, match="must have a folder of its own; got a checkpoint of anot"):
        trainer_in(mine, [checkpoints(keep_last=1)], resume=other)
    assert contents(mine) == before


def test_run_goes_on_from_elsewhere_once_more_in_its_folder(tmp_path):
    other, mine = tmp_path / "other", tmp_path / "mine"
    stopped(other, 7, checkpoints(every_steps=6))
    stopped(mine, 9, checkpoints(every_steps=1), resume=other)
    os.truncate(mine / "checkpoints" / folder.step_name(7) / folder.STATE, 9)
    stopped(mine, 8, checkpoints(every_steps=1), resume=other)
    assert steps(mine) == [7]


def test_best_value_is_that_of_the_checkpoint_that_a_run_goes_on_from(tmp_path):
    class Given(ddbp.Callback):
        def __init__(self, *values):
            self.values = values

        def on_epoch_end(self, trainer, record):
            record["validation_loss"] = self.values[record["epoch"] - 1]

    def best():
        return checkpoints(every_epochs=9, keep_last=1, keep_best=("validation_loss", 9))

    trainer_in(tmp_path, [best(), Given(3.0, 2.0, 1.0, 0.5)]).fit(DATA, epochs=EPOCHS)
    older = tmp_path / "checkpoints" / folder.step_name(5)
    trainer_in(tmp_path, [best(), Given(9, 2.5, 9.0, 2.2)], resume=older).fit(DATA, epochs=EPOCHS)
    assert steps(tmp_path) == [5, 10, 20]


@pytest.mark.parametrize("every", [1, 4, None])
def test_run_from_an_older_checkpoint_records_each_step_once(tmp_path, every):
    def callbacks(measured):
        return [
            checkpoints(every_steps=3, keep_last=9),
            ddbp.Instruments(measured),
            StepDigests(),
        ]

    def lines(name):
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    trainer_in(tmp_path, callbacks(1)).fit(DATA, epochs=EPOCHS)
    older = tmp_path / "checkpoints" / folder.step_name(9)
    rate = {"optimizer": ddbp.SGD(0.2, momentum=0.9), "resume_options": ("optimizer",)}
    trainer = trainer_in(tmp_path, callbacks(every), resume=older, **rate)
    history = trainer.fit(DATA, epochs=3)
    assert lines("metrics.jsonl") == history
    assert [line["step"] for line in lines("steps.jsonl")] == [*range(1, 16)]
    assert [line["step"] for line in lines("digests.jsonl")] == [*range(15)]
    assert lines("digests.jsonl")[-1]["sha256"] == trainer.parameters_sha256()
    recorded = Recording.read(tmp_path).steps.tolist()
    assert recorded == {1: [*range(15)], 4: [0, 4, 8, 12], None: [*range(9), 10, 12, 14]}[every]


def test_recording_has_no_steps_of_a_future_that_was_left_behind(tmp_path):
    def callbacks(every):
        return [checkpoints(every_steps=2, keep_last=9), ddbp.Instruments(every)]

    trainer_in(tmp_path, callbacks(1)).fit(DATA, epochs=2)
    older = tmp_path / "checkpoints" / folder.step_name(4)
    # It comes to its end before it measures a step.
    trainer_in(tmp_path, callbacks(20), resume=older).fit(DATA, epochs=1)
    assert Recording.read(tmp_path).steps.tolist() == [0]


FASTER = {"optimizer": ddbp.SGD(0.2, momentum=0.9)}
OTHER = {"optimizer": ddbp.Adam(0.1), "resume_options": ("optimizer",)}


@pytest.mark.parametrize(
    ("options", "data", "must"),
    [
        (FASTER, DATA, "must be of a trainer with the same optimizer"),
        (OTHER, DATA, "cannot go on after this change of optimizer"),
        ({"resume": folder.step_name(6)}, DATA, "arrays must be as they were written"),
        ({"resume": folder.step_name(7)}, DATA, "resume must have a checkpoint"),
        ({}, ddbp.ArrayDataset(DATA.x + 1, DATA.y), "the data must be those of the epoch"),
    ],
    ids=["other optimizer", "its moments", "damaged", "none", "other data"],
)
def test_refused_run_leaves_its_folder_as_it_was(tmp_path, options, data, must):
    def callbacks():
        return [checkpoints(every_steps=2), ddbp.Instruments(2), StepDigests()]

    with pytest.raises(StopError):
        trainer_in(tmp_path, [*callbacks(), Stop(9)]).fit(DATA, epochs=EPOCHS, validation=DATA)
    place = tmp_path / "checkpoints"
    os.truncate(place / folder.step_name(6) / "part-0000-of-0001.safetensors", 900)
    (place / ".step-000000010.new").mkdir()
    (place / ".step-000000010.new" / "part").touch()
    (tmp_path / "findings.jsonl").touch()
    before = contents(tmp_path)
    assert len(before) > 10
    options = {"resume": "auto", **options}
    if options["resume"] != "auto":
        options["resume"] = place / options["resume"]
    with pytest.raises(ValueError, match=must):
        trainer_in(tmp_path, callbacks(), **options).fit(data, epochs=EPOCHS, validation=DATA)
    assert contents(tmp_path) == before


def test_run_that_was_refused_its_data_goes_on_with_the_right_ones(tmp_path):
    expected = undisturbed(tmp_path / "whole")
    run_dir = tmp_path / "stopped"
    stopped(run_dir, 9, checkpoints(every_steps=2))
    trainer = trainer_in(run_dir, [checkpoints()], resume="auto")
    with pytest.raises(ValueError, match="the data must be those of the epoch"):
        trainer.fit(ddbp.ArrayDataset(DATA.x + 1, DATA.y), epochs=EPOCHS, validation=DATA)
    history = trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    assert (trainer.parameters_sha256(), timeless(history)) == expected
