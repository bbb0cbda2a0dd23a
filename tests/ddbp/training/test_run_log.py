"""What a run writes while it goes on: its steps, and how it is."""

import json
import math
import os
import signal

import numpy as np
import pytest

import ddbp
from ddbp.commands import runs, watch
from ddbp.report import sections
from ddbp.report.run import Run
from ddbp.training.run_log import RunLog, is_noted
from layers import SoftmaxCrossEntropy

from .small import DATA, X, make


def steps(folder):
    """Return the lines of steps."""
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def status(folder):
    return json.loads((folder / "status.json").read_text())


class Losses(ddbp.Callback):
    """Keeps all losses, and does something in one step."""

    def __init__(self, at=None, deed=None):
        self.losses = []
        self._at = at
        self._deed = deed

    def on_step_end(self, trainer, step, loss):
        self.losses.append(loss)
        if step == self._at:
            self._deed(trainer)


def test_every_step_has_its_loss_and_rate(tmp_path):
    seen = Losses()
    optimizer = ddbp.SGD(ddbp.Cosine(0.1, steps=10))
    make(run_dir=tmp_path, optimizer=optimizer, callbacks=[seen]).fit(DATA, epochs=2)
    found = steps(tmp_path)
    assert [line["step"] for line in found] == [*range(1, 11)]
    for name in ("loss", "low", "high"):
        assert [line[name] for line in found] == seen.losses
    rates = [ddbp.Cosine(0.1, steps=10).rate(step) for step in range(10)]
    assert [line["learning_rate"] for line in found] == rates


def test_lines_are_halved_for_each_doubling_of_the_steps():
    noted = np.array([step for step in range(1, 1 << 14) if is_noted(step)])
    assert noted[:1024].tolist() == [*range(1, 1025)]
    for octave in range(10, 14):
        within = noted[(noted >= 1 << octave) & (noted < 2 << octave)]
        assert np.diff(within).tolist() == [1 << (octave - 9)] * 511


def test_line_of_several_steps_has_mean_and_extremes_of_their_losses(tmp_path, monkeypatch):
    monkeypatch.setattr("ddbp.training.run_log._PER_OCTAVE", 1)
    seen = Losses()
    make(run_dir=tmp_path, callbacks=[seen]).fit(DATA, epochs=4)
    found = {line["step"]: line for line in steps(tmp_path)}
    assert [*found] == [1, 2, 3, 4, 6, 8, 12, 16]
    four = seen.losses[8:12]
    assert found[12]["loss"] == pytest.approx(sum(four) / 4, rel=1e-12)
    assert (found[12]["low"], found[12]["high"]) == (min(four), max(four))


def test_losses_that_are_not_finite_are_null(tmp_path):
    log = RunLog(tmp_path)
    trainer = make()
    log.begin(trainer, 1, 3)
    for step, loss in enumerate((math.nan, math.inf, -math.inf), 1):
        log.note_step(trainer, step, loss)
    log.end(trainer)
    names = ("loss", "low", "high")
    assert [[line[name] for name in names] for line in steps(tmp_path)] == [[None] * 3] * 3
    (tmp_path / "metrics.jsonl").touch()
    assert np.isnan(Run.read(tmp_path).steps["loss"]).tolist() == [True] * 3


def test_run_that_is_over_is_finished_with_its_digest(tmp_path):
    trainer = make(run_dir=tmp_path)
    trainer.fit(DATA, epochs=2)
    found = status(tmp_path)
    assert (found["status"], found["step"], found["steps"]) == ("finished", 10, 10)
    assert found["parameters_sha256"] == trainer.parameters_sha256()
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_run_says_that_it_goes_on_and_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("ddbp.training.run_log._INTERVAL", 0.0)
    found = []

    def look(trainer):
        run = Run.read(tmp_path)
        found.append((run.status, run.facts["step"], run.facts["steps"], run.facts["process"]))

    make(run_dir=tmp_path, callbacks=[Losses(8, look)]).fit(DATA, epochs=3)
    assert found == [("running", 8, 15, os.getpid())]


def test_run_that_ends_with_an_error_says_which_and_has_a_report(tmp_path):
    def fail(trainer):
        raise OSError("the disk is <gone>")

    with pytest.raises(OSError, match="gone"):
        make(run_dir=tmp_path, callbacks=[Losses(3, fail)]).fit(DATA, epochs=2)
    found = status(tmp_path)
    assert (found["status"], found["error"]) == ("failed", "OSError: the disk is <gone>")
    page = (tmp_path / "report.html").read_text()
    assert "The run failed: OSError: the disk is &lt;gone&gt;" in page


def interrupt(trainer):
    raise KeyboardInterrupt


def end(trainer):
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("deed", "raised", "how", "last"),
    # All ranks know of a signal by the exchange of the next step.
    [(interrupt, KeyboardInterrupt, "interrupted", 7), (end, SystemExit, "saved", 8)],
)
def test_run_that_is_ended_from_outside_says_so_and_has_a_report(
    tmp_path, deed, raised, how, last, capsys
):
    callbacks = [Losses(7, deed), ddbp.Checkpoints()]
    with pytest.raises(raised):
        make(run_dir=tmp_path, callbacks=callbacks).fit(DATA, epochs=2)
    run = Run.read(tmp_path)
    assert (run.status, status(tmp_path)["step"]) == (how, last)
    assert [line["step"] for line in steps(tmp_path)] == [*range(1, last + 1)]
    assert f"<dd>{how}</dd>" in (tmp_path / "report.html").read_text()
    assert runs.run([str(tmp_path)]) == 0
    assert watch.run([str(tmp_path)]) == 1
    assert capsys.readouterr().out.count(how) == 2


def test_checkpoint_finds_the_lines_of_all_steps_before_it(tmp_path):
    class Killed(BaseException):
        pass

    found = []

    def look(trainer):
        found.extend(line["step"] for line in steps(tmp_path))
        raise Killed

    class Late(ddbp.Checkpoints):
        """Looks where a process may be killed: at the next step after a checkpoint."""

        def on_step_end(self, trainer, step, loss):
            super().on_step_end(trainer, step, loss)
            if step == 4:
                look(trainer)

    with pytest.raises(Killed):
        make(run_dir=tmp_path, callbacks=[Late(every_steps=3)]).fit(DATA, epochs=2)
    assert found == [1, 2, 3]


def test_run_that_goes_on_keeps_the_steps_before_and_no_others(tmp_path):
    callback = ddbp.Checkpoints(background=False)
    make(run_dir=tmp_path, callbacks=[callback]).fit(DATA, epochs=2)
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 11, "loss": 99.0}\n{"step"')
    again = make(run_dir=tmp_path, callbacks=[ddbp.Checkpoints(background=False)], resume="auto")
    again.fit(DATA, epochs=3)
    found = steps(tmp_path)
    assert [line["step"] for line in found] == [*range(1, 16)]
    assert found[10]["loss"] != 99.0
    assert status(tmp_path)["steps"] == 15


def test_folder_that_is_used_again_has_the_steps_of_the_new_run_only(tmp_path):
    make(run_dir=tmp_path).fit(DATA, epochs=3)
    make(run_dir=tmp_path).fit(DATA, epochs=1)
    assert [line["step"] for line in steps(tmp_path)] == [*range(1, 6)]


def test_second_fit_goes_on_with_the_steps_and_epochs_of_the_first(tmp_path, capsys):
    trainer = make(run_dir=tmp_path)
    trainer.fit(DATA, epochs=1)
    trainer.fit(DATA, epochs=1)
    assert [line["step"] for line in steps(tmp_path)] == [*range(1, 11)]
    assert status(tmp_path)["steps"] == 10
    assert runs.run([str(tmp_path)]) == 0
    assert " 2/2 " in capsys.readouterr().out
    tile = "<dt>epochs</dt><dd>2 of 2</dd>"
    assert tile in (tmp_path / "report.html").read_text()


def test_fractions_of_a_second_are_told(tmp_path):
    make(run_dir=tmp_path).fit(DATA, epochs=1)
    run = Run.read(tmp_path)
    whole = sum(record["seconds"] for record in run.records)
    assert whole - 0.002 <= run.seconds < whole + 60
    assert run.seconds % 1
    assert sections.duration(0.0124) == "12 ms"


def test_report_that_cannot_be_made_is_a_warning(tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyError("x")

    monkeypatch.setattr("ddbp.report.page.write", fail)
    said = f"Trainer: {tmp_path} should hold a report; got KeyError: 'x'. Try `ddbp report"
    with pytest.warns(RuntimeWarning, match=said):
        assert len(make(run_dir=tmp_path).fit(DATA, epochs=1)) == 1
    assert (tmp_path / "model.safetensors").exists()


def test_run_and_its_bits_are_the_same_without_a_folder(tmp_path):
    digests = []
    for folder in (None, tmp_path):
        trainer = make(run_dir=folder, loss=SoftmaxCrossEntropy())
        trainer.fit(DATA, epochs=2, validation=ddbp.ArrayDataset(X[:20], DATA.y[:20]))
        digests.append(trainer.parameters_sha256())
    assert digests[0] == digests[1]
