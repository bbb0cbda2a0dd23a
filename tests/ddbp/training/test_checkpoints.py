"""Checkpoints of a trainer: when they are written, which stay, and how runs go on from them."""

import json
import os
import signal
import threading
import time
from contextlib import nullcontext
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

import ddbp
from ddbp.checkpoint import folder, part
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from layers import Dropout

from .small import DATA, make, network
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


class Worse(ddbp.Callback):
    """Has the validation loss rise."""

    def on_epoch_end(self, trainer, record):
        record["validation_loss"] = record["epoch"]


@pytest.mark.parametrize("background", [False, True])
def test_the_best_one_waits_for_the_one_before_and_is_not_left_out(
    tmp_path, monkeypatch, background
):
    written = part.Image.write

    def slow(image, path):
        time.sleep(0.2)
        return written(image, path)

    monkeypatch.setattr(part.Image, "write", slow)
    best = {"keep_best": ("validation_loss", 1), "keep_last": 1, "busy": "skip"}
    callback = ddbp.Checkpoints(every_steps=2, background=background, **best)
    trainer_in(tmp_path, [callback, Worse()]).fit(DATA, epochs=2)
    assert steps(tmp_path)[0] == 5
    assert Checkpoint(folder.found(tmp_path / "checkpoints")[0]).facts["best"] == 1.0


def test_one_that_is_written_again_is_the_best_still(tmp_path):
    """As by a signal that comes at the end of the last epoch."""

    class Signal(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            os.kill(os.getpid(), signal.SIGTERM)

    def best():
        return checkpoints(keep_last=1, keep_best=("validation_loss", 1))

    with pytest.raises(SystemExit):
        trainer_in(tmp_path, [best(), Worse(), Signal()]).fit(DATA, epochs=1)
    trainer_in(tmp_path, [best(), Worse()], resume="auto").fit(DATA, epochs=3)
    assert steps(tmp_path) == [5, 15]


def test_two_in_one_folder_are_refused(tmp_path):
    both = [checkpoints(every_steps=2), checkpoints(every_epochs=1)]
    with pytest.raises(ValueError, match="each must have a folder of its own; got two in"):
        trainer_in(tmp_path, both)
    both[1].path = tmp_path / "others"
    trainer_in(tmp_path, both).fit(DATA, epochs=1)
    assert steps(tmp_path) == [2, 4]


@pytest.mark.parametrize(
    "make_one", [ddbp.Checkpoints, ddbp.StepDigests, ddbp.Trace], ids=lambda each: each.__name__
)
def test_what_a_later_trainer_was_made_with_is_refused(tmp_path, make_one):
    callback = make_one()
    first, second = (trainer_in(tmp_path / name, [callback]) for name in ("a", "b"))
    with pytest.raises(RuntimeError, match="a trainer must have one of its own"):
        first.fit(DATA, epochs=1)
    second.fit(DATA, epochs=1)
    # One after the other they may have it, as the folds of a cross-validation do.
    trainer_in(tmp_path / "c", [callback]).fit(DATA, epochs=1)


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
