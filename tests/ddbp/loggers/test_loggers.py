"""Loggers: what they send and when, how a resumed run finds its own, and what the tools themselves
read of it, where they are installed.
"""

import json
import sqlite3
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import ddbp

from ...conftest import run_process
from ..training.small import DATA, make

ROOT = Path(__file__).parents[3]
STEPS = 5
"""Of an epoch."""


class Diary(ddbp.Logger):
    """Writes down what it is told to do."""

    def __init__(self, *, every_steps=2):
        super().__init__(every_steps=every_steps)
        self.lines = []

    def begin(self, trainer, run, resumed):
        self.lines.append(("begin", run, resumed))

    def send(self, values, step):
        self.lines.append((step, dict(values)))

    def end(self, failed):
        self.lines.append(("end", failed))


def test_losses_rates_and_records_are_sent_at_their_steps(tmp_path):
    diary = Diary()
    history = make(callbacks=[diary], run_dir=tmp_path).fit(DATA, epochs=2, validation=DATA)
    begin, *sent, end = diary.lines
    assert begin[0] == "begin"
    assert begin[1].startswith(f"{tmp_path.name}-")
    assert end == ("end", False)
    assert [step for step, _ in sent] == [2, 4, 5, 6, 8, 10, 10]
    assert [*sent[0][1]] == ["step/loss", "step/learning_rate"]
    assert sent[0][1]["step/learning_rate"] == 0.1
    for (_, values), record in zip((sent[2], sent[6]), history, strict=True):
        expected = {f"epoch/{k}": v for k, v in record.items() if k not in ("epoch", "step")}
        assert values == expected
        assert "epoch/validation_accuracy" in values


def test_the_rate_is_that_of_the_step(tmp_path):
    diary = Diary(every_steps=1)
    optimizer = ddbp.SGD(ddbp.Exponential(0.1, factor=0.5))
    trainer = make(callbacks=[diary], optimizer=optimizer)
    trainer.fit(DATA, epochs=1)
    rates = [v["step/learning_rate"] for _, v in diary.lines[1:-1] if "step/learning_rate" in v]
    assert rates == [optimizer.schedule.rate(step) for step in range(STEPS)]


def test_a_loop_of_a_scripts_own_is_logged():
    diary = Diary()
    trainer = make(callbacks=[diary])
    for batch in trainer.batches(DATA):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    assert [line[0] for line in diary.lines] == ["begin", 2, 4]


def test_an_error_in_a_step_ends_the_run_as_failed():
    class Error(ddbp.Callback):
        def on_step_begin(self, trainer, step):
            if step == 3:
                raise RuntimeError("enough")

    diary = Diary()
    with pytest.raises(RuntimeError, match="enough"):
        make(callbacks=[diary, Error()]).fit(DATA, epochs=1)
    assert diary.lines[-1] == ("end", True)


def run_with(folder, epochs, resume=None):
    diary = Diary()
    trainer = make(callbacks=[diary, ddbp.Checkpoints()], run_dir=folder, resume=resume)
    trainer.fit(DATA, epochs=epochs)
    return diary.lines[0]


def test_a_tool_of_ones_own_that_does_not_begin_as_a_logger_is_refused():
    class Mute(ddbp.Logger):
        def __init__(self):
            pass

    said = r"^Mute: its __init__ must call that of Logger; .* Begin it with super"
    with pytest.raises(TypeError, match=said):
        make(callbacks=[Mute()])


def test_a_run_that_is_resumed_goes_on_under_its_name_and_another_one_does_not(tmp_path):
    first = run_with(tmp_path / "run", 1)
    assert run_with(tmp_path / "run", 2, "auto") == ("begin", first[1], True)
    other = run_with(tmp_path / "other", 1)
    assert other[2] is False
    assert other[1] != first[1]


def test_a_rank_that_leads_later_goes_on_with_the_run(tmp_path):
    # As on the rank that has the lowest number now: it was there before the first checkpoint.
    diary = Diary()
    trainer = make(callbacks=[diary], run_dir=tmp_path)
    first = run_with(tmp_path, 1)
    diary.on_regroup(trainer, newcomers=False)
    trainer.train_step(DATA.x[:20], DATA.y[:20])
    trainer.train_step(DATA.x[:20], DATA.y[:20])
    assert diary.lines[0] == ("begin", first[1], True)


@pytest.mark.parametrize("text", ["", "[1]", '{"Diary"', "\0"])
def test_a_damaged_file_of_names_is_a_new_run(tmp_path, text):
    run_with(tmp_path, 1)
    (tmp_path / "tracking.json").write_text(text)
    assert run_with(tmp_path, 2, "auto")[2] is False
    assert [*json.loads((tmp_path / "tracking.json").read_text())] == ["Diary"]


def test_without_the_package_the_error_says_how_to_install_it():
    class Absent(Diary):
        package, extra = "no_such_package", "absent"

    words = (
        r"^Absent: the package no_such_package must be there; got none\. Install it: pip install"
        r' "ddbp\[absent\]"\.$'
    )
    with pytest.raises(ImportError, match=words):
        make(callbacks=[Absent()])


def test_every_extra_is_one_of_the_project():
    text = (ROOT / "pyproject.toml").read_text()
    for kind in (ddbp.TensorBoard, ddbp.WeightsAndBiases, ddbp.MLflow, ddbp.Trackio):
        assert f'\n{kind.extra} = ["{kind.package}' in text


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda: ddbp.TensorBoard(every_steps=0), "TensorBoard: every_steps must be a positive"),
        (lambda: ddbp.WeightsAndBiases(mode="x"), "WeightsAndBiases: mode must be"),
        (lambda: ddbp.WeightsAndBiases(""), "WeightsAndBiases: project must be a text"),
        (lambda: ddbp.MLflow(3), "MLflow: uri must be a text"),
        (lambda: ddbp.Trackio(None), "Trackio: project must be a text"),
    ],
)
def test_options_that_cannot_be_are_refused(make_it, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        make_it()


# ---- the tools themselves


def required(*packages):
    """Skip a test where a tool is not installed."""
    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        pytest.skip(f"not installed: pip install --target FOLDER {' '.join(absent)}")


def logged(kind, folder, **environment):
    """Train two epochs and, resumed, a third one; return the losses of the epochs."""
    said = []
    for arguments in (["2"], ["3", "resume"]):
        command = [sys.executable, "-m", "tests.ddbp.loggers.logged", kind, folder, *arguments]
        done = run_process(command, timeout=300, cwd=ROOT, **environment)
        assert done.status == 0, done.err
        line = next(line for line in done.out.splitlines() if line.startswith("losses "))
        said.append(json.loads(line.removeprefix("losses ")))
    assert said[1][:2] == said[0]
    return said[1]


ENDS = [STEPS, 2 * STEPS, 3 * STEPS]


def test_tensorboard_reads_the_event_files(tmp_path):
    required("tensorboardX", "tensorboard")
    losses = logged("tensorboard", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = import_module("tensorboard.backend.event_processing.event_accumulator")
        found = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    read = found.Scalars("epoch/loss")
    assert [event.step for event in read] == ENDS
    assert [event.value for event in read] == pytest.approx(losses, rel=1e-6)
    assert [event.step for event in found.Scalars("step/loss")] == [*range(2, 16, 2)]
    assert "configuration/text_summary" in found.Tags()["tensors"]


def test_weights_and_biases_keeps_both_parts_of_an_offline_run(tmp_path):
    required("wandb")
    logged("wandb", tmp_path, WANDB_SILENT="true")
    (name,) = json.loads((tmp_path / "tracking.json").read_text()).values()
    files = [*tmp_path.glob("wandb/offline-run-*/*.wandb")]
    assert {path.name for path in files} == {f"run-{name}.wandb"}
    assert len(files) == 2
    for path in files:
        assert b"epoch/validation_loss" in path.read_bytes()


def test_mlflow_reads_its_store(tmp_path):
    required("mlflow")
    losses = logged("mlflow", tmp_path)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        client = import_module("mlflow").MlflowClient((tmp_path / "mlruns").as_uri())
        experiment = client.get_experiment_by_name("tests")
        (run,) = client.search_runs([experiment.experiment_id])
        read = client.get_metric_history(run.info.run_id, "epoch/loss")
    assert run.info.status == "FINISHED"
    assert [(metric.step, metric.value) for metric in read] == [*zip(ENDS, losses, strict=True)]
    assert run.data.params["batch_size"] == "20"


def test_trackio_has_the_run_in_its_database(tmp_path):
    required("trackio")
    losses = logged("trackio", tmp_path / "run", TRACKIO_DIR=str(tmp_path))
    with sqlite3.connect(tmp_path / "tests.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    assert len({run for run, _, _ in rows}) == 1
    read = {
        step: values["epoch/loss"]
        for _, step, text in rows
        if "epoch/loss" in (values := json.loads(text))
    }
    assert read == dict(zip(ENDS, losses, strict=True))
