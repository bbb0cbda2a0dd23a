"""When the doctor looks, whom it tells, and what is left of what it has found."""

from dataclasses import replace

import numpy as np
import pytest

import ddbp
from ddbp.commands import doctor as command
from ddbp.doctor import finding
from ddbp.doctor.finding import Finding
from ddbp.doctor.rules import RULES
from ddbp.optim.clipping import NotFiniteError
from layers import SoftmaxCrossEntropy, Tanh

from .patients import TRAINING, dense


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
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("doctor: ")]
    assert said == [f"doctor: {doctor.findings[0]}"]
    assert "rate_low, step 60: an update is " in said[0]
    assert "Try this: Try a learning rate of 3e-05." in said[0]
    assert finding.read(tmp_path) == doctor.findings
    assert command.run([str(tmp_path)]) == 1
    assert capsys.readouterr().out.strip() == str(doctor.findings[0])


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


@pytest.mark.parametrize("line", ["", "[]", "{", '{"rule": 1}', '"text"', "\x00"])
def test_a_damaged_file_of_findings_is_named(line, tmp_path, capsys):
    (tmp_path / finding.FILE).write_text(Finding("a", 1, "b", "c", "d").line() + line + "\n")
    (tmp_path / "config.json").touch()
    assert command.run([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"line 2 of {tmp_path / finding.FILE} must be a finding" in said
    assert command.run([str(tmp_path / "none")]) == 1
    assert "RUN must be a run folder" in capsys.readouterr().err
