"""`ddbp report`, `ddbp runs` and `ddbp watch`."""

import io
import json
import os
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ddbp.commands import report, runs, watch
from ddbp.report.run import instant
from ddbp.training.paths import path_of

from ..report.folders import find, lines, run_folder


def test_report_is_written_to_the_folder_of_the_run(tmp_path, capsys):
    folder = run_folder(tmp_path / "run")
    assert report.run([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}/report.html\n"
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_several_runs_are_compared_each_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        run_folder(tmp_path / name)
    assert report.run(["a", "b", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/comparison.html\n"
    assert "<h1>2 runs</h1>" in (tmp_path / "comparison.html").read_text()


def test_problems_of_a_folder_are_told(tmp_path, capsys):
    folder = run_folder(tmp_path / "run")
    (folder / "status.json").unlink()
    assert report.run([str(folder), "-o", str(tmp_path / "page.html")]) == 0
    assert "run: status.json is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["."], "must be the folder of a run"),
        (["none"], "must be the folder of a run"),
        (["run", "-o", "none/page.html"], "the page must be writable"),
        (["run", "-o", "run"], "the page must be writable"),
        (["run", "-o", "run/config.json"], "must not take the place of another file; got"),
        ([*map(str, range(17))], "there must be at most 16 runs; got 17"),
    ],
)
def test_report_of_no_run_or_to_no_place_is_a_sentence(
    tmp_path, capsys, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "run")
    assert report.run(arguments) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_report_of_a_folder_that_cannot_be_written_says_where_it_can_go(tmp_path, capsys):
    folder = run_folder(tmp_path / "run")
    folder.chmod(0o500)
    assert report.run([str(folder)]) == 1
    assert "Name another with -o FILE." in capsys.readouterr().err


def test_runs_are_listed_newest_first(tmp_path, capsys):
    run_folder(tmp_path / "old")
    run_folder(tmp_path / "in" / "new", started="2026-01-01T10:01:00+00:00", status="failed")
    assert runs.run([str(tmp_path)]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split() == ["run", "status", "epoch", "loss", "metric", "time", "digest"]
    assert [re.split(r"\s{2,}", row.strip()) for row in rows] == [
        ["in/new", "failed", "4/4", "0.25", "accuracy 0.875", "40 s", "abababababab"],
        ["old", "finished", "4/4", "0.25", "accuracy 0.875", "1 min 40 s", "abababababab"],
    ]


@pytest.mark.parametrize("command", [runs, watch, report])
def test_a_folder_may_begin_with_the_sign_of_a_home(tmp_path, capsys, monkeypatch, command):
    folder = run_folder(tmp_path / "~nobody-is-called-so")
    monkeypatch.chdir(tmp_path)
    for given in (folder.name, f"./{folder.name}", "." if command is runs else str(folder)):
        assert command.run([given]) == 0
    assert capsys.readouterr().err == ""
    assert path_of("Trainer", "run_dir", f"./{folder.name}") == folder


def test_runs_are_lines_of_json_if_asked_for(tmp_path, capsys):
    lines(run_folder(tmp_path / "run") / "metrics.jsonl", [{"epoch": 1, "loss": float("nan")}])
    assert runs.run([str(tmp_path), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "run": "run",
        "status": "finished",
        "epoch": 1,
        "loss": None,
        "seconds": 100.0,
        "parameters_sha256": "ab" * 32,
    }


@pytest.mark.parametrize(("name", "got"), [("", "none"), ("missing", "no folder")])
def test_folder_without_runs_is_said(tmp_path, capsys, name, got):
    assert runs.run([str(tmp_path / name)]) == 1
    assert f"must hold the folder of a run; got {got}. Name" in capsys.readouterr().err


@pytest.mark.parametrize("command", [runs, watch, report])
def test_commands_do_nothing_to_a_terminal_that_a_name_asks_for(tmp_path, capsys, command):
    folder = run_folder(tmp_path / "\x1b[31m[bold]run", error="\x1b]0;title\a")
    (folder / "config.json").unlink()
    find(folder, rule="\x1b[2J")
    command.run([str(folder)])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\a" not in out + err


def test_watch_tells_how_a_run_has_ended(tmp_path, capsys):
    folder = run_folder(tmp_path / "run", step=40)
    find(folder)
    assert watch.run([str(folder)]) == 0
    said = "finished, step 40 of 40, loss 0.05, validation loss 0.5, validation accuracy 0.875"
    said += ", finding: dying units\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    "facts", [{"status": "failed", "error": "OSError: x"}, {"status": "running"}]
)
def test_watch_of_a_run_that_failed_or_was_cut_short_ends_with_one(tmp_path, capsys, facts):
    facts |= {"host": socket.gethostname(), "process": 2**22 + 1}
    assert watch.run([str(run_folder(tmp_path / "run", **facts))]) == 1
    out = capsys.readouterr().out
    assert out.startswith("failed" if "error" in facts else "cut short")
    assert out.endswith(f"{facts.get('error', '0.875')}\n")


def test_watch_follows_a_run_until_it_ends(tmp_path, capsys, monkeypatch):
    facts = {"host": socket.gethostname(), "process": os.getpid()}
    folder = run_folder(tmp_path / "run", status="running", **facts)
    slept = []

    def sleep(seconds):
        """Have the run go on between two looks, and end between two later ones."""
        slept.append(seconds)
        if len(slept) == 2:
            lines(folder / "steps.jsonl", [{"step": 39, "loss": 7.0}])
        elif len(slept) == 4:
            (folder / "status.json").write_text('{"status": "finished", "step": 40, "steps": 40}')

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=sleep))
    assert watch.run([str(folder), "--interval", "0.05"]) == 0
    assert slept == [0.05] * 4
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("running, step 40 of 40")
    assert second.startswith("running, step 39 of 40, loss 7")
    assert last.startswith("finished, step 40 of 40, loss 7")


def test_watch_looks_once_if_told_so(tmp_path, capsys):
    facts = {"host": socket.gethostname(), "process": os.getpid()}
    folder = run_folder(tmp_path / "run", status="running", **facts)
    assert watch.run([str(folder), "--once"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_time_left_is_from_the_speed_of_the_last_steps(tmp_path):
    folder = run_folder(tmp_path / "run", steps=400, step=200)
    times = [{"step": n, "loss": 1.0, "time": 100.0 + 0.5 * n} for n in range(1, 201)]
    lines(folder / "steps.jsonl", times)
    assert watch.progress(watch.Run.read(folder)) == (200, 400, "1 min 40 s")


def test_time_left_does_not_count_the_time_in_which_a_run_was_stopped(tmp_path):
    folder = run_folder(tmp_path / "run", status="running", steps=400, step=200)
    started = instant(json.loads((folder / "status.json").read_text())["started"])
    times = [started - 1e6 + step if step < 195 else started + step for step in range(1, 201)]
    noted = [{"step": n, "loss": 1.0, "time": time} for n, time in enumerate(times, 1)]
    lines(folder / "steps.jsonl", noted)
    assert watch.progress(watch.Run.read(folder)) == (200, 400, "3 min 20 s")


@pytest.mark.parametrize("interval", ["0", "nan", "x", "-1", "1e9"])
def test_interval_that_is_none_is_refused(tmp_path, capsys, interval):
    with pytest.raises(SystemExit) as ended:
        watch.run([str(tmp_path), "--interval", interval])
    assert ended.value.code == 2
    assert "must be in (0, 3600]" in capsys.readouterr().err


def test_sparkline_is_as_wide_as_it_should_be():
    assert watch.sparkline(np.arange(8.0)) == "▁▂▃▄▅▆▇█"
    assert len(watch.sparkline(np.arange(1000.0))) == 60
    assert watch.sparkline(np.array([1.0, np.nan, 1.0])) == "▁ ▁"
    assert watch.sparkline(np.array([np.nan])) == watch.sparkline(np.zeros(0)) == ""


def test_screen_of_a_terminal_shows_the_run(tmp_path):
    from rich.console import Console

    folder = run_folder(tmp_path / "[bold]run", step=40)
    find(folder)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(watch._screen(watch.Run.read(folder)))
    text = console.export_text()
    for part in ("[bold]run: finished", "step 40 of 40", "█", "0.875", "dying units: They never"):
        assert part in text


def test_commands_are_those_of_ddbp(tmp_path):
    run_folder(tmp_path / "run")
    for command in (["report", "run"], ["runs", "."], ["watch", "run"]):
        done = subprocess.run(
            [sys.executable, "-m", "ddbp", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "run" in done.stdout or "finished" in done.stdout
