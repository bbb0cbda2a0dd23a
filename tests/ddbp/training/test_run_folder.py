"""What a run leaves behind: its folder, and lines of progress."""

import json
import math
import re

import numpy as np
import pytest

import ddbp
from ddbp.commands import report, runs, watch
from ddbp.doctor import finding
from ddbp.doctor.finding import Finding
from ddbp.report.run import Run
from ddbp.training.replay import StepDigests
from ddbp.training.run_folder import RunFolder
from layers import SoftmaxCrossEntropy

from .small import DATA, X, make, network

FILES = {
    "architecture.json",
    "config.json",
    "metrics.jsonl",
    "model.safetensors",
    "report.html",
    "samples.npz",
    "status.json",
    "steps.jsonl",
}


def test_run_folder_holds_configuration_metrics_and_parameters(tmp_path):
    folder = tmp_path / "deep" / "run"
    trainer = make(run_dir=folder, seed=4, l2=0.5)
    history = trainer.fit(DATA, epochs=2)
    configuration = json.loads((folder / "config.json").read_text())
    assert configuration["seed"] == 4
    assert configuration["l2"] == 0.5
    assert configuration["epochs"] == 2
    assert configuration["ranks"] == 1
    assert "Linear(6, 16)" in configuration["model"]
    assert [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ] == history
    other = network()
    ddbp.load_parameters(other, folder / "model.safetensors")
    assert other(X.astype(np.float32)).tobytes() == trainer.predict(X).tobytes()
    assert {path.name for path in folder.iterdir()} == FILES


def strictly(text):
    """Return what a text of JSON is, which has no more than JSON has."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null_in_its_files_and_is_read_as_nan(tmp_path, capsys):
    class NotFinite(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            record.update(validation_loss=math.nan, validation_accuracy=math.inf, more=[-math.inf])

        def on_step_end(self, trainer, step, loss):
            digests = StepDigests()
            digests.on_attach(trainer)
            digests.on_step_end(trainer, step, math.inf)

    history = make(run_dir=tmp_path, callbacks=[NotFinite()]).fit(DATA, epochs=2)
    told = Finding("rule", 1, "evidence", "cause", "remedy", numbers={"x": math.nan, "y": 1.0})
    finding.append(tmp_path, told)
    names = {path.name for path in tmp_path.glob("*.json*")}
    assert names == {name for name in FILES if "json" in name} | {"digests.jsonl", finding.FILE}
    for name in names:
        text = (tmp_path / name).read_text()
        for each in text.splitlines() if name.endswith("l") else [text]:
            strictly(each)
    records = [strictly(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    nothing = {"validation_loss": None, "validation_accuracy": None, "more": [None]}
    assert records == [{**record, **nothing} for record in history]
    run = Run.read(tmp_path)
    assert math.isnan(run.last("validation_loss"))
    assert math.isnan(run.last("validation_accuracy"))
    (again,) = finding.read(tmp_path)
    assert math.isnan(again.numbers["x"])
    assert again.numbers["y"] == 1.0
    assert runs.run([str(tmp_path), "--json"]) == 0
    assert strictly(capsys.readouterr().out)["validation_loss"] is None
    for command in (runs.run, report.run, watch.run):
        assert command([str(tmp_path)]) == 0
    assert "<dt>validation accuracy</dt><dd>NaN</dd>" in (tmp_path / "report.html").read_text()
    assert ">nan</td>" in ddbp.History(records)._repr_html_()


def test_new_run_in_a_folder_shows_nothing_of_the_one_before(tmp_path):
    first = [ddbp.Instruments(every=2)]
    make(run_dir=tmp_path, callbacks=first).fit(DATA, epochs=2)
    for name in ("findings.jsonl", "nonfinite.jsonl"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "instruments" / "mine.py").touch()
    make(run_dir=tmp_path)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"config.json", "metrics.jsonl", "model.safetensors", "mine.py"}


def test_run_that_does_not_come_to_its_end_leaves_no_model_of_the_one_before(tmp_path):
    class Stop(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            raise InterruptedError

    names = {"model.safetensors", "model.ddbp", "trace.json"}
    trainer = make(run_dir=tmp_path, callbacks=[ddbp.Trace()])
    trainer.fit(DATA, epochs=1)
    (tmp_path / "model.ddbp").touch()
    # Its own are there until it is at the end of the next fit.
    with pytest.raises(InterruptedError):
        make(run_dir=tmp_path / "other", callbacks=[Stop()]).fit(DATA, epochs=1)
    assert names <= {path.name for path in tmp_path.iterdir()}
    other = make(run_dir=tmp_path, callbacks=[Stop()])
    # Parameters may be read from there to begin with.
    ddbp.load_parameters(other.model, tmp_path / "model.safetensors")
    with pytest.raises(InterruptedError):
        other.fit(DATA, epochs=1)
    assert not names & {path.name for path in tmp_path.iterdir()}


def test_fits_of_one_trainer_are_one_run(tmp_path):
    trainer = make(run_dir=tmp_path)
    trainer.fit(DATA, epochs=1)
    (tmp_path / "model.ddbp").touch()
    trainer.fit(DATA, epochs=1)
    assert (tmp_path / "model.ddbp").exists()


def test_run_that_goes_on_keeps_what_the_folder_holds(tmp_path):
    def callbacks():
        return [ddbp.Instruments(every=2), ddbp.Checkpoints()]

    make(run_dir=tmp_path, callbacks=callbacks()).fit(DATA, epochs=2)
    (tmp_path / "findings.jsonl").write_text("")
    there = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make(run_dir=tmp_path, callbacks=callbacks(), resume="auto")
    assert {path: path.read_bytes() for path in there} == there


def test_empty_path_is_no_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=r"^Trainer: run_dir must be a path; got ''\. Write"):
        make(run_dir="")
    assert list(tmp_path.iterdir()) == []


def test_options_are_read_from_the_configuration(tmp_path):
    trainer = make(run_dir=tmp_path, seed=4, l2=0.5, clip_norm=2.0, accumulate=3, wire="float16")
    trainer.fit(DATA, epochs=1)
    options = ddbp.TrainerOptions.read(tmp_path)
    assert options == trainer.options
    assert make(**options.as_dict()).options == options


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("3", "not iterable"),
        ("{}", "batch_size"),
        ('{"batch_size": 0}', "batch_size must be a positive integer; got 0"),
    ],
)
def test_folder_without_a_whole_configuration_is_refused_by_its_path(tmp_path, text, got):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    said = f"TrainerOptions.read: {path} must be the configuration of a run; got "
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        ddbp.TrainerOptions.read(tmp_path)
    assert got in str(caught.value)
    assert str(caught.value).endswith(" Pass the run_dir= of a trainer whose fit has begun.")


@pytest.mark.parametrize("shards", ["x", 0, 1.5])
def test_options_with_shards_that_are_no_positive_integer_are_refused(shards):
    said = f"Trainer: shards must be a positive integer; got {shards!r}. Leave it out for 8, or"
    with pytest.raises(ValueError, match=re.escape(said)):
        ddbp.TrainerOptions(batch_size=20, shards=shards)


def test_without_a_run_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make().fit(DATA, epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_a_line_per_epoch_where_there_is_no_terminal(capsys):
    ddbp.Trainer(network(), loss=SoftmaxCrossEntropy(), optimizer=ddbp.SGD(0.1), batch_size=20).fit(
        DATA, epochs=2
    )
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("epoch")]
    assert out == ""
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert all("loss" in line and "samples/s" in line for line in lines)


def test_quiet_trainer_prints_nothing(capsys):
    make().fit(DATA, epochs=2)
    assert [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("Compiling")
    ] == []


# Folders that cannot be written


class Disturb(ddbp.Callback):
    """Does something at the end of some epochs."""

    def __init__(self, **deeds):
        self._deeds = deeds

    def on_epoch_end(self, trainer, record):
        self._deeds.get(f"epoch{record['epoch']}", lambda: None)()


def lose(folder):
    """Put a file in the place of a folder."""
    folder.rename(folder.with_name("lost"))
    folder.touch()


def give_back(folder):
    folder.unlink()
    folder.with_name("lost").rename(folder)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Return the folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_run_goes_on_without_its_folder_and_keeps_its_parameters(tmp_path, temporary):
    folder = tmp_path / "run"
    trainer = make(run_dir=folder, callbacks=[Disturb(epoch1=lambda: lose(folder))])
    with pytest.warns(RuntimeWarning) as said:
        assert len(trainer.fit(DATA, epochs=3)) == 3
    lines, parameters, report = (str(warning.message) for warning in said)
    assert report.startswith(f"Trainer: {folder} should hold a report; got NotADirectoryError: ")
    assert lines.startswith(f"Trainer: {folder}/metrics.jsonl should hold a line for each epoch; ")
    assert f"ddbp: {folder}/model.safetensors must be a file to write to" in parameters
    (kept,) = temporary.glob("ddbp-run-*/model.safetensors")
    assert f"Meanwhile they are in {kept}: move them." in parameters
    other = network()
    ddbp.load_parameters(other, kept)
    assert other(X.astype(np.float32)).tobytes() == trainer.predict(X).tobytes()


def test_lines_of_epochs_are_written_as_soon_as_that_is_possible(tmp_path):
    folder = tmp_path / "run"
    deeds = Disturb(epoch2=lambda: lose(folder), epoch4=lambda: give_back(folder))
    trainer = make(run_dir=folder, callbacks=[deeds])
    with pytest.warns(RuntimeWarning, match="should hold a line for each epoch"):
        history = trainer.fit(DATA, epochs=5)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history


def test_disk_that_is_full_leaves_no_part_of_a_line(tmp_path):
    resource = pytest.importorskip("resource")
    folder = RunFolder(tmp_path / "run")
    folder.log({"epoch": 1})
    size = (folder.path / "metrics.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, limits[1]))
        with pytest.warns(RuntimeWarning, match="should hold a line for each epoch"):
            folder.log({"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder.path / "metrics.jsonl").read_text() == '{"epoch": 1}\n'
    folder.log({"epoch": 3})
    assert (folder.path / "metrics.jsonl").read_text().splitlines() == [
        f'{{"epoch": {epoch}}}' for epoch in (1, 2, 3)
    ]


def test_parameters_that_no_folder_takes_are_an_error_with_the_path(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    trainer = make(run_dir=folder, callbacks=[Disturb(epoch1=lambda: lose(folder))])
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/nowhere")
    said = f"ddbp: {folder}/model.safetensors must be a file to write to; got "
    with (
        pytest.warns(RuntimeWarning, match="should hold a line"),
        pytest.raises(OSError, match=re.escape(said)),
    ):
        trainer.fit(DATA, epochs=1)


def test_configuration_that_cannot_be_written_is_refused_before_training(tmp_path):
    folder = tmp_path / "run"
    trainer = make(run_dir=folder)
    lose(folder)
    said = f"Trainer: the run folder must be writable; got {folder}: Not a directory. Choose "
    with pytest.raises(OSError, match=re.escape(said)):
        trainer.fit(DATA, epochs=1)
    assert trainer.step_count == 0


def test_disk_without_room_is_refused_when_the_trainer_is_made(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="the run folder must be writable; got ") as refused:
            make(run_dir=tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path / "run") in str(refused.value)


def test_saved_parameters_are_whole_or_not_there(tmp_path):
    resource = pytest.importorskip("resource")
    path, limits = tmp_path / "model.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(OSError, match=re.escape(f"{path} must be a file to write to")):
            ddbp.save_parameters(network(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["run", "~/run"])
def test_run_folder_stays_where_it_is_when_the_process_changes_its_own(name, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    trainer = make(run_dir=name)
    monkeypatch.chdir(tmp_path / "elsewhere")
    trainer.fit(DATA, epochs=1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert not (tmp_path / "~").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []
