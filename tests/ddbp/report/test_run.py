"""What is read from a run folder, and what is said of one that lacks something."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddbp.comm.processes import start_of
from ddbp.commands.doctor import _beside
from ddbp.report.run import Run, found

from .folders import lines, record, run_folder


def test_run_is_read_from_its_folder(tmp_path):
    run = Run.read(run_folder(tmp_path / "first"))
    assert (run.name, run.status, run.seconds, run.digest) == (
        "first",
        "finished",
        100.0,
        "ab" * 32,
    )
    assert run.metrics == ["loss", "validation_loss", "validation_accuracy"]
    assert run.last("validation_accuracy") == 0.875
    assert run.steps["loss"].tolist() == [2 / n for n in range(1, 41)]
    assert run.problems == []


@pytest.mark.parametrize("exists", [True, False])
def test_folder_of_no_run_is_refused(tmp_path, exists):
    folder = tmp_path / "other"
    if exists:
        folder.mkdir()
    said = f"ddbp.report: {folder} must be the folder of a run; got "
    with pytest.raises(ValueError, match=re.escape(said)):
        Run.read(folder)


@pytest.mark.parametrize("name", ["config.json", "status.json", "metrics.jsonl", "steps.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"step": 1e999}', b"[" * 99999]
)
def test_file_that_is_damaged_leaves_the_rest(tmp_path, name, content):
    folder = run_folder(tmp_path / "run")
    (folder / name).write_bytes(content)
    run = Run.read(folder)
    others = {
        "config.json": run.configuration,
        "status.json": run.facts,
        "metrics.jsonl": run.records,
    }
    assert all(found for other, found in others.items() if other != name)


@pytest.mark.parametrize("name", ["config.json", "status.json", "metrics.jsonl"])
def test_what_is_missing_is_said(tmp_path, name):
    folder = run_folder(tmp_path / "run")
    (folder / name).unlink()
    (folder / "steps.jsonl").unlink()
    assert len(Run.read(folder).problems) == 1


def test_lines_that_are_cut_off_are_counted(tmp_path):
    folder = run_folder(tmp_path / "run")
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    run = Run.read(folder)
    assert run.problems == ["metrics.jsonl: 1 of 4 lines are damaged or cut off."]
    assert len(run.records) == 3


@pytest.mark.parametrize("name", ["config.json", "samples.npz", "steps.jsonl"])
def test_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    folder = run_folder(tmp_path / "run")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert any(problem.startswith(name) for problem in Run.read(folder).problems)


def test_steps_that_came_again_count_once_and_numbers_that_are_none_are_nan(tmp_path):
    folder = run_folder(tmp_path / "run")
    found = [{"step": 2, "loss": 5}, {"step": 1, "loss": "x"}, {"step": 2, "loss": 7}, {"loss": 3}]
    lines(folder / "steps.jsonl", [*found, {"step": math.nan, "loss": 1}])
    steps = Run.read(folder).steps
    np.testing.assert_array_equal(steps["step"], [1, 2])
    np.testing.assert_array_equal(steps["loss"], [math.nan, 7])


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "finished"),
        *(({"status": each}, each) for each in ("failed", "saved", "interrupted")),
        ({"status": "running", "process": os.getpid()}, "running"),
        ({"status": "running", "process": 2**22 + 1}, "cut short"),
        ({"status": "running", "process": os.getpid(), "born": start_of(os.getpid())}, "running"),
        ({"status": "running", "process": os.getpid(), "born": 1}, "cut short"),
        *(({"status": "running", "process": each}, "cut short") for each in ("x", 0, -1, True)),
        ({"status": "running", "host": "elsewhere"}, "running"),
        ({"status": 3}, "unknown"),
    ],
)
def test_status_tells_runs_that_go_on_from_those_that_were_cut_short(tmp_path, facts, status):
    host = {"host": socket.gethostname()}
    assert Run.read(run_folder(tmp_path / "run", **(host | facts))).status == status


def test_run_on_another_host_that_is_long_silent_was_cut_short(tmp_path):
    folder = run_folder(tmp_path / "run", status="running", host="elsewhere")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert Run.read(folder).status == "cut short"


def test_recording_that_is_damaged_is_said(tmp_path):
    folder = run_folder(tmp_path / "run")
    record(folder)
    assert Run.read(folder).recording is not None
    path = next((folder / "instruments").glob("*.npz"))
    path.write_bytes(path.read_bytes()[:100])
    run = Run.read(folder)
    assert run.recording is None
    assert "must be part of a recording" in run.problems[0]


def test_runs_are_found_in_folders_within_and_within_runs(tmp_path):
    first, second = run_folder(tmp_path / "a" / "first"), run_folder(tmp_path / "second")
    run_folder(first / "checkpoints" / "inner")
    fold = run_folder(first / "folds" / "1")
    assert found(tmp_path) == [first, fold, second]
    assert found(first) == [first, fold]
    assert found(tmp_path / "none") == []


def test_the_folder_above_is_called_by_its_name(tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "run")
    (folder / "instruments").mkdir(exist_ok=True)
    monkeypatch.chdir(folder / "instruments")
    run = Run.read("..")
    assert (run.path, run.name) == (folder, "run")
    assert _beside(Path("..")) == tmp_path / "run-fixed"


def test_hidden_folders_and_configurations_of_others_are_no_runs(tmp_path):
    run_folder(tmp_path / ".hidden" / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert found(tmp_path) == []
    assert found(tmp_path / "other") == [tmp_path / "other"]


def test_process_that_has_ended_and_was_not_waited_for_does_not_live(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    facts = {"status": "running", "host": socket.gethostname(), "process": process.pid}
    assert Run.read(run_folder(tmp_path / "run", **facts)).status == "cut short"
    process.wait()


def test_folder_of_before_that_wrote_no_status_is_finished_if_it_has_parameters(tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / "status.json").unlink()
    record = {"epoch": 1, "step": 3, "loss": 1.0, "seconds": 2.5}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    assert Run.read(folder).status == "unknown"
    (folder / "model.safetensors").touch()
    assert (Run.read(folder).status, Run.read(folder).seconds) == ("finished", 2.5)
