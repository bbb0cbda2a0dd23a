"""What commands make of folders that no run has left whole: each shows what is there or says in a
line what must be, soon, and leaves the folder as it is.
"""

import errno
import json
import os
import shutil
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ddbp.commands import doctor, replay, report, runs, watch
from ddbp.training import run_folder as of_trainer

from ..report.folders import find, lines, record, run_folder

SECONDS = 120
MARKUP = "<script>alert(1)</script>[red]\x1b[2J\x07"
COMMANDS = {
    "report": (report.run, ()),
    "runs": (runs.run, ()),
    "runs --json": (runs.run, ("--json",)),
    "watch": (watch.run, ()),
    "watch --once": (watch.run, ("--once",)),
    "doctor": (doctor.run, ()),
    "replay": (replay.run, ("--step", "3")),
}


def whole(path):
    folder = run_folder(path)
    record(folder)
    find(folder, cause="Units never fire.", remedy="Lower the rate.", numbers={"share": 0.75})
    return folder


def empty(path):
    path.mkdir()


def missing(path):
    pass


def a_file(path):
    path.write_text("{}")


def begun(path):
    """What lies there before the first epoch has ended."""
    path.mkdir()
    of_trainer.RunFolder(path).write_configuration({"epochs": 3})


def cut_short(path):
    """Its process is gone, and the last line of each file is torn."""
    facts = {"status": "running", "host": socket.gethostname(), "process": 2**22 + 1}
    folder = run_folder(path, **facts)
    record(folder)
    find(folder)
    for name in ("metrics.jsonl", "steps.jsonl", "findings.jsonl"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-7])
    chunk = next((folder / "instruments").glob("0*.npz"))
    chunk.write_bytes(chunk.read_bytes()[:-100])


def number_of_another_process(path):
    """The machine has begun anew, and what has the number of the run's process is another one."""
    facts = {"status": "running", "host": socket.gethostname(), "process": os.getpid(), "born": 1}
    run_folder(path, **facts)


def hostile_process(path):
    """0 and -1 are all processes to `kill`."""
    run_folder(path, status="running", host=socket.gethostname(), process=0)


def of_another_version(path):
    folder = whole(path)
    text = (folder / "instruments" / "layers.json").read_text()
    (folder / "instruments" / "layers.json").write_text(text.replace('"format": 1', '"format": 99'))
    np.savez(folder / "samples.npz", of=np.zeros(3))
    (folder / "config.json").write_text(json.dumps({"version": 99, "process": {"python": "x"}}))
    lines(folder / "findings.jsonl", [{"kind": "other"}])
    (folder / "status.json").write_text('{"state": {"phase": [1]}}')


def not_finite(path):
    folder = run_folder(path)
    record(folder, value=np.nan)
    losses = [{"step": n, "loss": np.nan, "low": -np.inf, "high": np.inf} for n in range(1, 41)]
    lines(folder / "steps.jsonl", losses)
    lines(folder / "metrics.jsonl", [{"epoch": np.nan, "step": np.inf, "loss": np.nan}])
    find(folder, numbers={"loss": np.nan})


def one_step(path):
    folder = run_folder(path, epochs=1, steps=1)
    record(folder, rows=1)


def thousands_of_layers(path):
    record(run_folder(path), names=[f"layers.{n}" for n in range(3000)], rows=2)


def markup(path):
    folder = run_folder(path, status="failed", error=MARKUP)
    record(folder, names=[MARKUP, "b", "c"])
    find(folder, rule=MARKUP, layer=MARKUP, cause=MARKUP, remedy=MARKUP)
    (folder / "config.json").write_text(json.dumps({MARKUP: MARKUP, "epochs": MARKUP}))
    lines(folder / "metrics.jsonl", [{"epoch": 1, "step": 1, "loss": 1, f"validation_{MARKUP}": 2}])


def garbage(path):
    folder = whole(path)
    for file in folder.rglob("*.*"):
        file.write_bytes(b"\xff{[" * 1000)


def pipes(path):
    """Whoever opens one waits for a writer, unless they ask what it is."""
    folder = whole(path)
    for file in [*folder.rglob("*.*"), folder / "samples.npz", folder / "digests.jsonl"]:
        file.unlink(missing_ok=True)
        os.mkfifo(file)


def folders(path):
    folder = whole(path)
    for file in [*folder.rglob("*.*")]:
        file.unlink()
        file.mkdir()


def endless(path):
    folder = whole(path)
    for file in [*folder.rglob("*.*"), folder / "samples.npz", folder / "digests.jsonl"]:
        file.unlink(missing_ok=True)
        file.symlink_to("/dev/zero")


def huge(path):
    folder = whole(path)
    for file in folder.rglob("*.*"):
        with file.open("r+b") as opened:
            opened.truncate(1 << 40)


FOLDERS = (
    *(whole, empty, missing, a_file, begun, cut_short, number_of_another_process, hostile_process),
    *(of_another_version, not_finite, one_step, thousands_of_layers, markup, garbage, pipes),
    *(folders, endless, huge),
)


def taken_too_long(*_):
    raise TimeoutError(f"more than {SECONDS} s")


def contents(folder):
    """Return names, sizes and times of all that is in a folder."""
    if not folder.is_dir():
        return None
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.name != "report.html" and not path.is_dir()
    }


@pytest.fixture
def called(capfd):
    """Return the function that calls a command within a time; what it says is one line of text in
    letters that do nothing to a terminal.
    """
    before = signal.signal(signal.SIGALRM, taken_too_long)

    def call(name, folder):
        command, options = COMMANDS[name]
        signal.alarm(SECONDS)
        try:
            status = command([str(folder), *options])
        finally:
            signal.alarm(0)
        out, err = capfd.readouterr()
        assert all(line.isprintable() for line in (out + err).splitlines()), (out, err)
        assert "Traceback" not in err
        assert "Errno" not in err
        return status, out, err

    yield call
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("made", FOLDERS, ids=lambda made: made.__name__)
def test_a_folder_is_shown_as_far_as_it_goes_or_refused_in_a_line(tmp_path, called, made, name):
    folder = tmp_path / "run"
    made(folder)
    before = contents(folder)
    status, out, err = called(name, folder)
    assert contents(folder) == before
    assert status in (0, 1, 2)
    assert out or err
    refused = made in (empty, missing, a_file) or name == "replay"
    if refused:
        assert status in (1, 2)
        assert not out
        assert "; got " in err
        assert err.count("\n") == 1
    elif name == "report":
        assert status == 0
        page = (folder / "report.html").read_text()
        assert "<script>alert" not in page
        assert len(page) < 1.5e6
    elif name == "watch" and made in (cut_short, number_of_another_process, hostile_process):
        assert status == 1
        assert out.startswith("cut short")


def test_a_report_that_cannot_be_written_says_where_it_can_go(tmp_path, called, monkeypatch):
    def refused(path, content):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    folder = whole(tmp_path / "run")
    monkeypatch.setattr(Path, "write_bytes", refused)
    status, out, err = called("report", folder)
    assert (status, out) == (1, "")
    assert "got " + str(folder / "report.html") in err
    assert "Permission denied. Name another with -o FILE." in err
    assert not (folder / "report.html").exists()


def test_a_folder_that_is_removed_meanwhile_ends_the_watch(tmp_path, called, monkeypatch):
    folder = run_folder(
        tmp_path / "run", status="running", host=socket.gethostname(), process=os.getpid()
    )
    gone = SimpleNamespace(sleep=lambda _: shutil.rmtree(folder))
    monkeypatch.setattr(watch, "time", gone)
    status, out, err = called("watch", folder)
    assert (status, out.count("\n")) == (1, 1)
    assert "must be the folder of a run" in err
