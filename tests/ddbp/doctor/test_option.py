"""`Trainer(doctor=…)`: who watches then, what is said when a run is interrupted, and states of runs
with and without.
"""

import json

import numpy as np
import pytest

import ddbp
from ddbp.doctor import finding
from ddbp.optim.clipping import NotFiniteError
from layers import LSTM, Linear, Sequential, SoftmaxCrossEntropy

from .patients import TRAINING, VALIDATION, dense

DATA = ddbp.ArrayDataset(*TRAINING)


def made(rate=1e-6, **options):
    """Return a trainer, with a rate that is too low unless given."""
    usual = {"batch_size": 32, "shards": 4, "quiet": True}
    return ddbp.Trainer(
        dense(), loss=SoftmaxCrossEntropy(), optimizer=ddbp.Adam(rate), **usual | options
    )


def watching(trainer):
    return [each for each in trainer.callbacks if isinstance(each, ddbp.Doctor | ddbp.Instruments)]


def test_a_doctor_and_what_it_needs_watch_if_that_is_asked_for():
    assert watching(made()) == watching(made(doctor=False)) == []
    for asked, shown in (
        (True, repr(ddbp.Doctor(strict=False))),
        ("strict", repr(ddbp.Doctor(strict=True))),
    ):
        instruments, doctor = watching(made(doctor=asked))
        assert (repr(instruments), repr(doctor)) == ("Instruments(every=None)", shown)


def test_those_of_ones_own_are_taken_as_they_are():
    instruments, doctor = ddbp.Instruments(7), ddbp.Doctor()
    assert watching(made(callbacks=[instruments, doctor], doctor="strict")) == [instruments, doctor]
    kept, added = watching(made(callbacks=[instruments], doctor=True))
    assert kept is instruments
    assert repr(added) == repr(ddbp.Doctor(strict=False))


@pytest.mark.parametrize("asked", ["loud", None, 1, 0.0, "", np.zeros(2)])
def test_what_is_no_such_option_is_refused(asked):
    with pytest.raises(ValueError, match='Trainer: doctor must be True, False or "strict"'):
        made(doctor=asked)


def test_training_has_the_same_bits_with_and_without():
    digests = set()
    for doctor in (True, False):
        trainer = made(3e-3, doctor=doctor)
        trainer.fit(DATA, epochs=2)
        digests.add(trainer.parameters_sha256())
    assert len(digests) == 1


def test_what_is_found_is_said_with_the_command_that_shows_the_step(tmp_path, capsys):
    made(doctor=True, run_dir=tmp_path).fit(DATA, epochs=5)
    lines = capsys.readouterr().err.splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("doctor: rate_low"))
    (found,) = finding.read(tmp_path)
    again = f"To see this step once more: ddbp replay {tmp_path} --step {found.step - 1}"
    assert lines[number + 1] == again
    assert again in (tmp_path / "report.html").read_text()


def test_no_command_is_said_where_nothing_can_be_shown_once_more(tmp_path, capsys):
    made(doctor=True).fit(DATA, epochs=5)
    trainer = made(doctor=True, run_dir=tmp_path)
    for _ in range(4):
        for batch in trainer.batches(DATA):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    said = capsys.readouterr().err
    assert said.count("doctor: rate_low") == 2
    assert "ddbp replay" not in said
    found = finding.read(tmp_path)[0]
    for process in ({"python": ["-c", "…"]}, {"python": []}, {}, [], None):
        (tmp_path / "config.json").write_text(json.dumps({"process": process}))
        assert found.replay(tmp_path) == ""


def test_a_strict_one_ends_the_run_at_a_step_that_can_be_shown(tmp_path):
    with pytest.raises(ddbp.DoctorError) as caught:
        made(doctor="strict", run_dir=tmp_path).fit(DATA, epochs=5)
    step = caught.value.finding.step - 1
    command = f"To see this step once more: ddbp replay {tmp_path} --step {step}"
    assert caught.value.__notes__ == [command]


def test_findings_are_noted_on_the_error_of_numbers_that_are_not_finite():
    with pytest.raises(NotFiniteError) as caught:
        made(1e38, doctor=True).fit(DATA, epochs=1)
    assert any("doctor: rate_high" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("event", ["on_step_begin", "on_step_end"])
def test_what_was_measured_and_found_by_an_interrupt_is_written(error, event, tmp_path, capsys):
    def interrupt(self, trainer, *rest):
        if trainer.step_count == 70:
            raise error

    interrupts = type("Interrupts", (ddbp.Callback,), {event: interrupt})()
    trainer = made(batch_size=8, doctor=True, callbacks=[interrupts], run_dir=tmp_path)
    with pytest.raises(error):
        trainer.fit(DATA, epochs=3)
    # It has looked after 40 steps, and would do so after 80.
    assert [(each.rule, each.step) for each in finding.read(tmp_path)] == [("rate_low", 70)]
    assert capsys.readouterr().err.count("doctor: rate_low") == 1
    assert ddbp.Recording.read(tmp_path).steps[-1] == 64


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("event", ["on_fit_begin", "on_epoch_begin", "on_step_begin", "on_phase"])
def test_a_run_that_is_interrupted_before_there_is_anything_to_see_is_told_nothing(event, capsys):
    def interrupt(self, trainer, *rest):
        raise KeyboardInterrupt

    interrupts = type("Interrupts", (ddbp.Callback,), {event: interrupt})()
    with pytest.raises(KeyboardInterrupt):
        made(doctor="strict", callbacks=[interrupts]).fit(DATA, epochs=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (True, "strict")])
def test_a_run_goes_on_with_a_doctor_and_without_one(before, after, tmp_path):
    whole = made(3e-3)
    whole.fit(DATA, epochs=2)

    def run(doctor, epochs, **options):
        average = ddbp.ExponentialMovingAverage(0.9)
        callbacks = [ddbp.Checkpoints(every_steps=7, background=False), average]
        options |= {"run_dir": tmp_path, "callbacks": callbacks}
        trainer = made(3e-3, doctor=doctor, **options)
        trainer.fit(DATA, epochs=epochs)
        return trainer

    run(before, 1)
    trainer = run(after, 2, resume="auto")
    assert trainer.step_count == 40
    assert trainer.parameters_sha256() == whole.parameters_sha256()


def test_a_doctor_that_comes_later_does_not_speak_of_a_beginning_it_has_not_seen(capsys):
    first = made()
    first.fit(DATA, epochs=2)
    trainer = made(doctor=True)
    trainer.load_state(first.state())
    trainer.fit(DATA, epochs=4)
    assert "doctor:" not in capsys.readouterr().err
    *_, doctor = watching(trainer)
    assert doctor.findings == []
    assert doctor.state()["losses"] == 0


def test_windows_of_sequences_and_steps_on_batches_of_ones_own_are_watched_too():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 6, 4)).astype(np.float32)
    model = Sequential(LSTM(4, 8, rng=rng), Linear(8, 2, rng=rng))
    trainer = ddbp.Trainer(
        model, loss="mse", optimizer="adam", batch_size=8, truncate=3, doctor=True, quiet=True
    )
    trainer.fit(ddbp.ArrayDataset(x, x[:, :, :2].copy()), epochs=3)
    instruments, _ = watching(trainer)
    assert instruments.recording.steps.tolist() == [*range(8), 8, 10]
    trainer = made(50.0, doctor=True)
    for start in range(0, 480, 32):
        rows = slice(start, start + 32)
        trainer.train_step(TRAINING[0][rows], TRAINING[1][rows])
    assert watching(trainer)[0].recording.steps[-1] == 14


def test_a_healthy_run_is_told_nothing(capsys):
    made(3e-3, doctor=True).fit(DATA, epochs=5, validation=ddbp.ArrayDataset(*VALIDATION))
    assert "doctor:" not in capsys.readouterr().err
