"""When the doctor looks, whom it tells, and what is left of what it has found."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

import ddbp
from ddbp.commands import doctor as command
from ddbp.doctor import finding
from ddbp.doctor.facts import DataFacts
from ddbp.doctor.finding import Finding
from ddbp.doctor.rules import RULES
from ddbp.optim.clipping import NotFiniteError
from layers import (
    Coefficients,
    Composite,
    Huber,
    Linear,
    MeanSquaredError,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)

from .patients import TRAINING, dense

LISTED = Finding("a", 1, "b", "c", "d", changes={"learning_rate": [1]}).line()


def trained(*callbacks, epochs=5, **options):
    """Train on digits with a rate that is too low, and return the trainer."""
    usual = {"optimizer": ddbp.Adam(1e-6), "batch_size": 32, "quiet": True}
    trainer = ddbp.Trainer(
        dense(), loss=SoftmaxCrossEntropy(), callbacks=callbacks, **usual | options
    )
    trainer.fit(ddbp.ArrayDataset(*TRAINING), epochs=epochs)
    return trainer


def test_a_finding_is_said_once_and_kept_in_the_run_folder(tmp_path, capsys):
    doctor = ddbp.Doctor()
    trained(ddbp.Instruments(every=10), doctor, run_dir=tmp_path)
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if line.startswith("doctor: ")]
    assert said == [f"doctor: {doctor.findings[0]}"]
    assert f"To see this step once more: ddbp replay {tmp_path} --step 59" in lines
    assert "rate_low, step 60: an update is " in said[0]
    assert "Try this: Set learning_rate=0.0004." in said[0]
    assert finding.read(tmp_path) == doctor.findings
    assert command.run([str(tmp_path)]) == 1
    again = f"To see this step once more: ddbp replay {tmp_path} --step 59"
    assert capsys.readouterr().out.splitlines() == [str(doctor.findings[0]), again]


def test_a_run_that_goes_on_does_not_say_it_again(tmp_path, capsys):
    def options():
        return {
            "run_dir": tmp_path,
            "callbacks": [ddbp.Instruments(every=10), ddbp.Doctor(), ddbp.Checkpoints()],
        }

    first = options()
    trained(*first["callbacks"], run_dir=tmp_path)
    second = options()
    trained(*second["callbacks"], run_dir=tmp_path, epochs=7, resume="auto")
    assert capsys.readouterr().err.count("doctor: rate_low") == 1
    assert second["callbacks"][1].findings == first["callbacks"][1].findings
    # A run that begins anew forgets.
    shutil.rmtree(tmp_path / "checkpoints")
    trained(ddbp.Instruments(every=10), ddbp.Doctor(), run_dir=tmp_path, epochs=1)
    assert finding.read(tmp_path) == []


def test_a_torn_line_of_findings_does_not_keep_a_run_from_going_on(tmp_path, capsys):
    for epochs in (5, 7):
        callbacks = [ddbp.Instruments(every=10), ddbp.Doctor(), ddbp.Checkpoints()]
        trained(*callbacks, run_dir=tmp_path, epochs=epochs, resume="auto")
        with (tmp_path / finding.FILE).open("a") as file:
            file.write('{"rule": "torn')
    assert capsys.readouterr().err.count("doctor: rate_low") == 1
    another = Finding("another", 1, "b", "c", "d")
    finding.append(tmp_path, another)
    found, damage = finding.found_in(tmp_path)
    assert [each.rule for each in found] == ["rate_low", "another"]
    assert "line 2 of" in damage


def test_a_run_that_goes_on_knows_its_first_losses():
    whole = trained(ddbp.Instruments(every=10), first := ddbp.Doctor(), epochs=1)
    state = whole.state()
    whole.fit(ddbp.ArrayDataset(*TRAINING), epochs=1)
    trainer = trained(ddbp.Instruments(every=10), doctor := ddbp.Doctor(), epochs=2)
    trainer.load_state(state)
    trainer.fit(ddbp.ArrayDataset(*TRAINING), epochs=1)
    assert len(first._begun) == 40
    assert doctor.state()["begun"].tobytes() == first.state()["begun"].tobytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [1e-6, 50.0])
def test_rules_that_need_the_beginning_are_silent_where_it_is_not_known(rate):
    doctor = ddbp.Doctor()
    trainer = trained(ddbp.Instruments(every=2), doctor, optimizer=ddbp.SGD(rate), epochs=5)
    chart = doctor.chart(trainer)
    assert any(each.finding(chart) for each in RULES)
    recording = chart.recording
    rows = {
        int(step): {name: array[i] for name, array in recording.values.items()}
        for i, step in enumerate(recording.steps)
    }
    later = {step: row for step, row in rows.items() if step >= 30}
    for kept, begun in (({}, []), (later, chart.begun), (rows, []), (later, [])):
        other = replace(chart, recording=recording.of_rows(kept), begun=begun)
        assert not any(each.finding(other) for each in RULES)


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_missing_are_no_findings_and_no_warnings():
    doctor = ddbp.Doctor()
    trainer = trained(ddbp.Instruments(every=2), doctor, optimizer=ddbp.SGD(0.1), epochs=5)
    chart = doctor.chart(trainer)
    nothing = {name: np.full_like(array, np.nan) for name, array in chart.recording.values.items()}
    missing = replace(chart, recording=replace(chart.recording, values=nothing))
    doctor.chart = lambda of: missing
    assert doctor._look(trainer) == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_thousands_of_layers_and_numbers_that_are_not_finite_are_no_error():
    doctor = ddbp.Doctor()
    trainer = trained(ddbp.Instruments(every=8), doctor, optimizer=ddbp.SGD(0.1), epochs=5)
    chart = doctor.chart(trainer)
    count, rows = 4000, chart.recorded
    names = [f"layers.{i}" for i in range(count)]
    stage = replace(chart.stages[0], sources=("",))
    stages = [
        replace(stage, name=name, names=(name,) * len(stage.layers), follows=True) for name in names
    ]
    losses = np.full(100, np.nan)
    for bad in (np.nan, np.inf, 0.0, 1e38):
        values = {
            name: np.full((rows, count, *array.shape[2:]), bad, np.float32)
            if chart.recording.quantities[name].of in ("layers", "parameters")
            else np.full_like(array, bad)
            for name, array in chart.recording.values.items()
        }
        recording = replace(chart.recording, values=values, layers=names, parameters=names)
        for of_losses in (losses, chart.losses):
            other = replace(
                chart,
                stages=stages,
                recording=recording,
                losses=of_losses,
                weights=dict.fromkeys(names, (100, 1.0)),
            )
            found = [each.finding(other) for each in RULES]
            numbers = [number for each in found if each for number in each.numbers.values()]
            assert np.isfinite(numbers).all()


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert command.run([str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"ddbp doctor: RUN must be a run folder; got {tmp_path}")
    assert not said.out


def test_a_strict_doctor_ends_the_run():
    with pytest.raises(ddbp.DoctorError, match="rate_low, step 60") as caught:
        trained(ddbp.Instruments(every=10), ddbp.Doctor(strict=True))
    assert caught.value.finding.rule == "rate_low"


def test_findings_are_noted_on_the_error_of_numbers_that_are_not_finite():
    with pytest.raises(NotFiniteError) as caught:
        trained(ddbp.Instruments(every=1), ddbp.Doctor(), optimizer=ddbp.SGD(1e38))
    assert any("doctor: rate_high" in note for note in caught.value.__notes__)


def test_a_doctor_needs_instruments_before_it():
    for callbacks in ([ddbp.Doctor()], [ddbp.Doctor(), ddbp.Instruments()]):
        with pytest.raises(ValueError, match="Doctor: it must come after Instruments"):
            trained(*callbacks)


def test_loops_of_the_users_own_are_watched_too():
    doctor = ddbp.Doctor()
    trainer = ddbp.Trainer(
        dense(Tanh),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(50.0),
        batch_size=32,
        callbacks=[ddbp.Instruments(every=6), doctor],
        quiet=True,
    )
    for batch in trainer.batches(ddbp.ArrayDataset(*TRAINING), epochs=2):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    assert [each.rule for each in doctor.findings] == ["rate_high"]


def test_one_step_and_no_step_at_all_are_no_error(tmp_path):
    doctor = ddbp.Doctor()
    trained(ddbp.Instruments(), doctor, epochs=1, batch_size=640, run_dir=tmp_path)
    assert doctor.findings == []
    assert command.run([str(tmp_path)]) == 0


def test_findings_keep_their_changes_and_old_lines_have_none(tmp_path):
    old = {"rule": "a", "step": 1, "evidence": "b", "cause": "c", "remedy": "d"}
    changes = {"learning_rate": 0.1, "shards": 2, "class_weight": "balanced", "clip_norm": None}
    (tmp_path / finding.FILE).write_text(json.dumps(old) + "\n")
    finding.append(tmp_path, Finding("a", 1, "b", "c", "d", changes=changes))
    assert [each.changes for each in finding.read(tmp_path)] == [{}, changes]


def test_a_schedule_that_makes_the_rate_tiny_is_to_be_left_out():
    schedule = ddbp.StepDecay(3e-3, every=3, factor=0.3)
    trainer = trained(
        ddbp.Instruments(every=10), doctor := ddbp.Doctor(), optimizer=ddbp.SGD(schedule)
    )
    found = doctor.findings[0]
    assert (found.rule, found.changes) == ("rate_low", {"schedule": None})
    assert found.remedy.startswith("Leave the schedule out")
    constant = trainer.optimizer.with_options(**found.changes)
    assert constant.schedule.rate(1000) == 3e-3


@pytest.mark.parametrize(
    ("schedule", "rate"),
    [(ddbp.WarmUp(1e-6, steps=500), 7e-4), (ddbp.Cosine(1e-6, steps=100), 2e-4)],
)
def test_a_change_of_the_rate_is_one_of_the_number_that_the_schedule_is_made_with(schedule, rate):
    trained(ddbp.Instruments(every=10), doctor := ddbp.Doctor(), optimizer=ddbp.Adam(schedule))
    assert [each.changes for each in doctor.findings] == [{"learning_rate": rate}]


@pytest.mark.parametrize("line", ["", "[]", "{", LISTED, '{"rule": 1}', '"text"', "\x00"])
def test_a_damaged_file_of_findings_is_named(line, tmp_path, capsys):
    (tmp_path / finding.FILE).write_text(Finding("a", 1, "b", "c", "d").line() + line + "\n")
    (tmp_path / "config.json").touch()
    assert command.run([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"line 2 of {tmp_path / finding.FILE} must be a finding" in said
    assert command.run([str(tmp_path / "none")]) == 1
    assert "RUN must be a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("checked", [True, False])
def test_a_flipped_bit_is_a_finding_and_an_error_where_memory_is_checked(
    checked, tmp_path, monkeypatch, capsys
):
    class Flip(ddbp.Callback):
        """Flips a bit of a moment."""

        def on_step_end(self, trainer, step, loss):
            if step == 11:
                trainer.optimizer.moments["mean"].view(np.uint32)[7] ^= np.uint32(8)

    monkeypatch.setenv("DDBP_CHECK_MEMORY", str(int(checked)))
    callbacks = [ddbp.Instruments(every=10), Flip(), ddbp.Doctor()]
    ends = pytest.raises(ddbp.MemoryCorruptionError) if checked else nullcontext()
    with ends as error:
        trained(*callbacks, run_dir=tmp_path, epochs=1, optimizer=ddbp.Adam(1e-3))
    (found,) = finding.read(tmp_path)
    assert (found.rule, found.step) == ("memory_corrupted", 11 if checked else 13)
    assert "the moment 'mean' of layers.0.weight[0:256]" in found.evidence
    assert capsys.readouterr().err.count("doctor: memory_corrupted") == 1
    if checked:
        assert any(str(found) in note for note in error.value.__notes__)


def test_labels_that_take_turns_are_met_as_often_as_they_come():
    labels = np.arange(4000) % 2
    data = ddbp.ArrayDataset(np.ones((4000, 1)), labels), ddbp.data.ArraySource(labels, labels)
    for each in data:
        facts = DataFacts.of(each)
        assert facts is not None
        assert facts.counts.sum() == 2000
        assert np.abs(facts.counts - 1000).max() < 100


@pytest.mark.parametrize(
    ("factor", "more"), [(0.1, 0.0), (10.0, 0.0), (1.0, 60.0), (-1.0, 0.0)], ids=str
)
def test_another_fit_on_other_data_is_judged_by_its_own_losses(factor, more):
    x = np.random.default_rng(0).standard_normal((640, 8)).astype(np.float32)
    y = 2 * (x @ np.random.default_rng(1).standard_normal((8, 1)))
    rng = np.random.default_rng(2)
    model = Sequential(Linear(8, 32, rng=rng), Tanh(), Linear(32, 1, rng=rng))
    doctor = ddbp.Doctor(probes=False)
    trainer = ddbp.Trainer(
        model,
        loss=MeanSquaredError(),
        optimizer=ddbp.Adam(0.01),
        batch_size=32,
        callbacks=[ddbp.Instruments(every=None), doctor],
        quiet=True,
    )
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=8)
    trainer.fit(ddbp.ArrayDataset(x, factor * y + more), epochs=8)
    assert doctor.findings == []


def test_another_fit_on_the_same_data_goes_on_with_its_losses():
    doctor = ddbp.Doctor()
    trainer = trained(ddbp.Instruments(every=10), doctor, epochs=1)
    trainer.fit(ddbp.ArrayDataset(*TRAINING), epochs=4)
    assert [each.rule for each in doctor.findings] == ["rate_low"]


def test_a_field_that_begins_with_one_number_has_no_units_that_are_alike():
    class Field(Composite):
        def __init__(self):
            self.field = Coefficients(np.full((8, 8), 0.5))

        def __call__(self, x):
            return (x[:, None] * self.field(x)).sum(axis=-1).mean(axis=1).reshape((len(x), 1))

    x = np.random.default_rng(0).standard_normal((640, 8)).astype(np.float32)
    doctor = ddbp.Doctor(probes=False)
    options = {"loss": MeanSquaredError(), "optimizer": ddbp.Adam(0.05), "batch_size": 32}
    callbacks = [ddbp.Instruments(every=None), doctor]
    trainer = ddbp.Trainer(Field(), callbacks=callbacks, quiet=True, **options)
    trainer.fit(ddbp.ArrayDataset(x, x[:, :1]), epochs=5)
    assert doctor.findings == []


def test_a_rate_does_not_swing_where_nobody_knows_what_can_be_learnt():
    x = np.random.default_rng(0).standard_normal((640, 8)).astype(np.float32)
    y = 30 * (x @ np.random.default_rng(1).standard_normal((8, 1)))
    rng = np.random.default_rng(2)
    model = Sequential(Linear(8, 32, rng=rng), Tanh(), Linear(32, 1, rng=rng))
    doctor = ddbp.Doctor(probes=False)
    options = {"loss": Huber(), "optimizer": ddbp.Adam(0.05), "batch_size": 32}
    callbacks = [ddbp.Instruments(every=None), doctor]
    trainer = ddbp.Trainer(model, callbacks=callbacks, quiet=True, **options)
    trainer.fit(ddbp.ArrayDataset(x, y), epochs=10)
    assert doctor.findings == []
