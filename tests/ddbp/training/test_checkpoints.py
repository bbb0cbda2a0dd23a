"""Checkpoints of a trainer: when they are written, which stay, and how runs go on from them."""

import json
import os
import threading
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import ddbp
from ddbp import settings
from ddbp.checkpoint import folder, part
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from ddbp.instruments.recording import Recording
from ddbp.training.replay import StepDigests
from layers import Dropout

from .small import DATA, make, network

EPOCHS = 4


class StopError(Exception):
    """The run ends here."""


class Stop(ddbp.Callback):
    """Ends the run after a step, whatever it is in the midst of."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer, step, loss):
        if step == self.step:
            raise StopError


def checkpoints(**options):
    """Return a callback that writes at once, unless asked otherwise."""
    return ddbp.Checkpoints(**{"background": False, **options})


def trainer_in(run_dir, callbacks=(), **options):
    """Return a trainer of a network with random masks."""
    return make(network(Dropout(0.2)), run_dir=run_dir, callbacks=callbacks, **options)


def steps(run_dir):
    """Return the steps of the checkpoints of a run."""
    return [Checkpoint(path).step for path in folder.found(run_dir / "checkpoints")]


def undisturbed(run_dir, **options):
    """Return the digest and the history of a run that nobody stopped."""
    trainer = trainer_in(run_dir, **options)
    history = trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    return trainer.parameters_sha256(), timeless(history)


def timeless(history):
    return [{k: v for k, v in record.items() if "second" not in k} for record in history]


def stopped(run_dir, step, callback, **options):
    """Train until after a step."""
    trainer = trainer_in(run_dir, [callback, Stop(step)], **options)
    with pytest.raises(StopError):
        trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    callback.wait()


# A batch has 20 of 83 samples: there are five in an epoch.
@pytest.mark.parametrize("step", [1, 5, 6, 12, 19])
def test_run_goes_on_to_the_bits_and_the_history_of_the_undisturbed_one(tmp_path, step):
    expected = undisturbed(tmp_path / "whole")
    run_dir = tmp_path / "stopped"
    stopped(run_dir, step, checkpoints(every_steps=1, background=True))
    trainer = trainer_in(run_dir, [checkpoints()], resume="auto")
    assert trainer.step_count in (step - 1, step)
    history = trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    assert (trainer.parameters_sha256(), timeless(history)) == expected
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert timeless(map(json.loads, lines)) == expected[1]


def test_run_may_be_stopped_again_and_again(tmp_path):
    expected = undisturbed(tmp_path / "whole")
    run_dir = tmp_path / "stopped"
    stopped(run_dir, 4, checkpoints(every_steps=1))
    for step in (9, 10, 17):
        stopped(run_dir, step, checkpoints(every_steps=1), resume="auto")
    trainer = trainer_in(run_dir, [checkpoints()], resume="auto")
    history = trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    assert (trainer.parameters_sha256(), timeless(history)) == expected


def train_in_three_runs(trainer):
    """Train as a script of two fits, and a loop between them, does; return the histories."""
    first = trainer.fit(DATA, epochs=2, validation=DATA)
    for batch in trainer.batches(DATA):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    return timeless(first), timeless(trainer.fit(DATA, epochs=2))


# Steps 1 to 10 are those of the first fit, 11 to 15 of the loop, 16 to 25 of the second fit.
@pytest.mark.parametrize("step", [5, 10, 11, 15, 16, 18, 24, 25])
def test_script_of_several_runs_goes_on_in_the_one_that_it_was_in(tmp_path, step):
    whole, run_dir = trainer_in(tmp_path / "whole"), tmp_path / "stopped"
    expected = train_in_three_runs(whole), whole.parameters_sha256()
    with pytest.raises(StopError):
        train_in_three_runs(trainer_in(run_dir, [checkpoints(every_steps=1), Stop(step)]))
    trainer = trainer_in(run_dir, [checkpoints(every_steps=1)], resume="auto")
    found = train_in_three_runs(trainer), trainer.parameters_sha256()
    assert found == expected
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert timeless(map(json.loads, lines)) == [*expected[0][0], *expected[0][1]]


def halve(trainer):
    with ddbp.modify_parameters(trainer) as mine:
        if mine:
            trainer.model[0].weight.value *= 0.5


def train_and_change(trainer):
    """Train as a script does that changes parameters before, between and in its loops."""
    halve(trainer)
    trainer.fit(DATA, epochs=1)
    for callback in trainer.callbacks:
        if isinstance(callback, ddbp.Checkpoints):
            callback.write(trainer)
    halve(trainer)
    halve(trainer)
    for batch in trainer.batches(DATA):
        halve(trainer)
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    halve(trainer)
    for step in trainer.steps(14):
        halve(trainer)
        trainer.train_step(DATA.x[step : step + 20], DATA.y[step : step + 20])
    halve(trainer)
    trainer.fit(DATA, epochs=1)
    return trainer.parameters_sha256()


# Steps 1 to 5 are those of the first fit, 6 to 10 of the loop, 11 to 14 of train_step.
@pytest.mark.parametrize("step", [1, 5, 6, 8, 10, 11, 13, 14, 15, 18])
@pytest.mark.parametrize("keep", [0, 1])
def test_changes_between_loops_are_made_once(tmp_path, step, keep):
    expected = train_and_change(trainer_in(tmp_path / "whole", [checkpoints()]))
    run_dir = tmp_path / "stopped"
    with pytest.raises(StopError):
        train_and_change(
            trainer_in(run_dir, [checkpoints(every_steps=keep + 1, keep_last=1), Stop(step)])
        )
    trainer = trainer_in(run_dir, [checkpoints(every_steps=1)], resume="auto")
    assert train_and_change(trainer) == expected


@pytest.mark.parametrize("changes", [0, 1, 2])
def test_state_between_loops_knows_the_changes_before_it(tmp_path, changes):
    whole = trainer_in(tmp_path / "whole")
    whole.fit(DATA, epochs=1)
    halve(whole)
    halve(whole)
    first = trainer_in(tmp_path / "first", [checkpoints(every_epochs=9)])
    first.fit(DATA, epochs=1)
    for _ in range(changes):
        halve(first)
    first.callbacks[-1].write(first)
    second = trainer_in(tmp_path / "first", [checkpoints()], resume="auto")
    second.fit(DATA, epochs=1)
    halve(second)
    halve(second)
    assert second.parameters_sha256() == whole.parameters_sha256()


def test_change_after_a_state_that_a_script_has_loaded_is_made(tmp_path):
    first, second, other = (trainer_in(tmp_path / name) for name in "abc")
    first.fit(DATA, epochs=1)
    halve(first)
    second.load_state(first.state())
    assert second.parameters_sha256() == first.parameters_sha256()
    halve(second)
    assert second.parameters_sha256() != first.parameters_sha256()
    halve(first)
    assert second.parameters_sha256() == first.parameters_sha256()
    other.load_state(second.state())
    assert other.state().digest() == second.state().digest()


def test_loop_of_train_step_that_counts_its_steps_changes_parameters_in_each(tmp_path):
    def train(trainer, end):
        while trainer.step_count < end:
            halve(trainer)
            trainer.train_step(DATA.x[:20], DATA.y[:20])
        return trainer.parameters_sha256()

    expected = train(trainer_in(tmp_path / "whole"), 6)
    with pytest.raises(StopError):
        train(trainer_in(tmp_path / "run", [checkpoints(every_steps=1), Stop(4)]), 6)
    again = trainer_in(tmp_path / "run", [checkpoints()], resume="auto")
    assert train(again, 6) == expected


def test_epoch_that_has_begun_comes_to_its_end_where_fewer_are_asked_for(tmp_path):
    stopped(tmp_path, 13, checkpoints(every_steps=1))
    trainer = trainer_in(tmp_path, resume="auto")
    trainer.fit(DATA, epochs=1, validation=DATA)
    assert (trainer.epoch, trainer.step_count) == (3, 15)


def test_a_run_without_checkpoints_begins(tmp_path):
    trainer = trainer_in(tmp_path, [checkpoints()], resume="auto")
    assert trainer.step_count == 0
    trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    assert trainer.parameters_sha256() == undisturbed(tmp_path / "whole")[0]


def test_checkpoints_come_after_so_many_steps_and_the_last_ones_stay(tmp_path):
    callback = checkpoints(every_steps=3, keep_last=2)
    trainer_in(tmp_path, [callback]).fit(DATA, epochs=EPOCHS)
    assert steps(tmp_path) == [15, 18]


def test_checkpoints_come_after_each_epoch_unless_said(tmp_path):
    trainer_in(tmp_path, [checkpoints(keep_last=9)]).fit(DATA, epochs=EPOCHS)
    assert steps(tmp_path) == [5, 10, 15, 20]


def test_checkpoints_come_after_so_many_seconds(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    # It is looked at in each step, and when a checkpoint is written.
    fake = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr("ddbp.training.checkpoints.time", fake)
    callback = checkpoints(every_seconds=4, keep_last=9)
    trainer_in(tmp_path, [callback]).fit(DATA, epochs=2)
    found = steps(tmp_path)
    assert len(found) > 1
    assert {b - a for a, b in pairwise(found)} == {4}


def test_best_ones_stay_beside_the_last(tmp_path):
    values = iter([3.0, 1.0, 2.0, 4.0])

    class Given(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            record["validation_loss"] = next(values)

    callback = checkpoints(every_epochs=2, keep_last=1, keep_best=("validation_loss", 1))
    trainer_in(tmp_path, [callback, Given()]).fit(DATA, epochs=EPOCHS)
    assert steps(tmp_path) == [10, 20]
    assert Checkpoint(folder.found(tmp_path / "checkpoints")[0]).facts["best"] == 1.0


def test_best_value_is_known_to_a_run_that_goes_on(tmp_path):
    class Given(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            record["validation_loss"] = [1.0, 2.0, 3.0, 0.5][record["epoch"] - 1]

    def best():
        return checkpoints(every_epochs=9, every_steps=7, keep_best=("validation_loss", 2))

    with pytest.raises(StopError):
        trainer_in(tmp_path, [best(), Given(), Stop(8)]).fit(DATA, epochs=EPOCHS)
    assert steps(tmp_path) == [5, 7]
    trainer_in(tmp_path, [best(), Given()], resume="auto").fit(DATA, epochs=EPOCHS)
    assert steps(tmp_path) == [5, 7, 14, 20]


def test_damaged_one_is_named_and_the_one_before_is_taken(tmp_path, capsys):
    stopped(tmp_path, 9, checkpoints(every_steps=2))
    path = tmp_path / "checkpoints" / folder.step_name(8)
    os.truncate(path / "part-0000-of-0001.safetensors", 900)
    trainer = trainer_in(tmp_path, [checkpoints()], resume="auto")
    assert trainer.step_count == 6
    told = capsys.readouterr().err
    assert str(path) in told
    assert "step-000000006 is taken" in told
    trainer.fit(DATA, epochs=EPOCHS, validation=DATA)
    assert trainer.parameters_sha256() == undisturbed(tmp_path / "whole")[0]


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


def test_what_was_left_unfinished_is_removed_when_there_is_a_new_one(tmp_path):
    stopped(tmp_path, 3, checkpoints(every_steps=2))
    left = tmp_path / "checkpoints" / ".step-000000003.new"
    left.mkdir()
    stopped(tmp_path, 5, checkpoints(every_steps=2), resume="auto")
    assert not left.exists()


def test_nothing_but_damaged_ones_is_an_error(tmp_path):
    stopped(tmp_path, 3, checkpoints(every_steps=2))
    os.truncate(tmp_path / "checkpoints" / folder.step_name(2) / folder.STATE, 9)
    with pytest.raises(DamagedError, match=r"step-000000002: state\.json must be whole"):
        trainer_in(tmp_path, resume="auto")


@pytest.mark.parametrize("where", ["", "checkpoints", "checkpoints/step-000000002"])
def test_checkpoint_may_be_named(tmp_path, where):
    stopped(tmp_path, 3, checkpoints(every_steps=2))
    assert trainer_in(None, resume=tmp_path / where).step_count == 2


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="resume must have a checkpoint; got"):
        trainer_in(None, resume=tmp_path)


def test_resuming_needs_a_run_folder_or_a_path():
    with pytest.raises(ValueError, match=r"resume=\"auto\" needs a run folder"):
        trainer_in(None, resume="auto")


@pytest.mark.parametrize("writes", [True, False])
def test_new_run_in_a_folder_with_checkpoints_is_refused(tmp_path, writes):
    stopped(tmp_path, 8, checkpoints(every_steps=2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="a new run must have a folder of its own"):
        trainer_in(tmp_path, [checkpoints()] * writes)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_new_run_is_refused_where_its_checkpoints_would_meet_others(tmp_path):
    stopped(tmp_path / "first", 3, checkpoints(every_steps=2))
    elsewhere = checkpoints(path=tmp_path / "first" / "checkpoints")
    with pytest.raises(ValueError, match="a new run must have a folder of its own"):
        trainer_in(tmp_path / "second", [elsewhere])


def test_checkpoints_without_a_folder_are_refused():
    with pytest.raises(ValueError, match="checkpoints must have a folder"):
        trainer_in(None, [checkpoints()])


def test_other_options_are_refused_unless_they_may_differ(tmp_path):
    stopped(tmp_path, 3, checkpoints(every_steps=2))
    faster = {"optimizer": ddbp.SGD(0.2, momentum=0.9)}
    with pytest.raises(ValueError, match=r"same optimizer.*resume_options=\['optimizer'\]"):
        trainer_in(tmp_path, resume="auto", **faster)
    trainer = trainer_in(tmp_path, resume="auto", resume_options=("optimizer",), **faster)
    assert trainer.optimizer.schedule.rate(0) == 0.2
    assert trainer.step_count == 2
    assert np.isfinite(trainer.fit(DATA, epochs=EPOCHS)[-1]["loss"])


def test_unknown_names_of_what_may_differ_are_refused(tmp_path):
    stopped(tmp_path, 3, checkpoints(every_steps=2))
    with pytest.raises(ValueError, match=r"resume_options must be facts of a run; got \['rate'\]"):
        trainer_in(tmp_path, resume="auto", resume_options=("rate",))


def test_optimizer_of_another_kind_cannot_go_on(tmp_path):
    stopped(tmp_path, 3, checkpoints(every_steps=2))
    with pytest.raises(ValueError, match=r"optimizer\.mean\S+ must be an array .*; got absent"):
        trainer_in(tmp_path, resume="auto", resume_options=("optimizer",), optimizer=ddbp.Adam(0.1))


def test_longer_training_goes_on(tmp_path):
    stopped(tmp_path, 8, checkpoints(every_steps=2))
    trainer = trainer_in(tmp_path, resume="auto")
    trainer.fit(DATA, epochs=EPOCHS + 2, validation=DATA)
    assert trainer.epoch == EPOCHS + 2


def test_writing_in_the_background_takes_what_there_was_at_the_step(tmp_path, monkeypatch):
    written, go_on = part.Image.write, threading.Event()

    def slow(image, path):
        assert go_on.wait(60)
        return written(image, path)

    monkeypatch.setattr(part.Image, "write", slow)

    class Late(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == 5:
                go_on.set()

    callback = ddbp.Checkpoints(every_steps=2, keep_last=9, busy="skip")
    trainer_in(tmp_path, [callback, Late()]).fit(DATA, epochs=1)
    # That of step 4 would have had to wait.
    assert steps(tmp_path) == [2]
    direct = make(network(Dropout(0.2)), callbacks=[Stop(2)])
    with pytest.raises(StopError):
        direct.fit(DATA, epochs=1)
    expected = {f"model.{name}": p.value.tobytes() for name, p in direct.model.named_parameters()}
    found = Checkpoint(folder.found(tmp_path / "checkpoints")[0]).snapshot().arrays
    assert {name: np.asarray(found[name]).tobytes() for name in expected} == expected


@pytest.mark.parametrize("background", [False, True])
def test_disk_that_takes_nothing_is_an_error_with_the_path(tmp_path, monkeypatch, background):
    def full(image, path):
        raise OSError(28, "No space left on device", str(path))

    callback = ddbp.Checkpoints(every_steps=2, background=background)
    trainer = trainer_in(tmp_path, [callback])
    trainer.fit(DATA, epochs=1)
    monkeypatch.setattr(part.Image, "write", full)
    with pytest.raises(OSError, match=r"part-0000-of-0001\.safetensors: No space left on device"):
        trainer.fit(DATA, epochs=1)
    assert steps(tmp_path) == [2, 4]


@pytest.mark.parametrize(
    ("options", "must"),
    [
        ({"every_steps": 0}, "every_steps must be"),
        ({"every_seconds": -1}, "every_seconds must be"),
        ({"every_epochs": 1.5}, "every_epochs must be"),
        ({"keep_last": 0}, "keep_last must be"),
        ({"keep_best": "validation_loss"}, "keep_best must be the name"),
        ({"keep_best": ("validation_loss", 0)}, "keep_best must be"),
        ({"busy": "drop"}, "busy must be"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, must):
    with pytest.raises(ValueError, match=must):
        ddbp.Checkpoints(**options)


class Disk:
    """Counts the calls that change the disk, and fails from one of them on."""

    def __init__(self, monkeypatch, last):
        self.calls = 0
        self.last = last
        for owner, name in [
            *((folder.os, name) for name in ("fsync", "write", "ftruncate")),
            *((folder.Path, name) for name in ("rename", "mkdir", "unlink", "open", "replace")),
        ]:
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, function):
        def call(*arguments, **options):
            self.calls += 1
            if self.calls > self.last:
                raise OSError(5, "Input/output error")
            return function(*arguments, **options)

        return call


def test_a_failure_at_any_point_of_writing_leaves_a_whole_one(tmp_path, monkeypatch):
    def calls(run_dir, last):
        """Return how many calls a step with a checkpoint makes, of which so many succeed."""
        stopped(run_dir, 3, checkpoints(every_steps=2))
        trainer = trainer_in(run_dir, [checkpoints(every_steps=1, keep_last=1)], resume="auto")
        with monkeypatch.context() as patch:
            disk = Disk(patch, last)
            fails = pytest.raises(OSError, match="Input/output error")
            with fails if last < 10**6 else nullcontext():
                trainer.train_step(DATA.x[:20], DATA.y[:20])
        return disk.calls

    points = calls(tmp_path / "whole", 10**6)
    assert points > 8
    for last in range(points):
        run_dir = tmp_path / str(last)
        calls(run_dir, last)
        (whole,) = folder.newest_whole(run_dir / "checkpoints")
        assert whole.step in (2, 3)
