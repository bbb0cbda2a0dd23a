"""What rank 0 shows where there is no terminal: lines, and not too many."""

import io
import os
import sys
from types import SimpleNamespace

import pytest

from ddbp import terminal
from ddbp.training import progress

from .small import DATA, make


@pytest.fixture
def said(monkeypatch):
    """Return the lines that are said by a clock on which each step takes 25 seconds."""
    lines, now = [], [0.0]

    def clock():
        now[0] += 25
        return now[0]

    monkeypatch.setattr(terminal, "say", lines.append)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock))
    return lines


def kinds(lines):
    return [
        line.partition(", loss")[0] if ": step" in line else line.partition(":")[0]
        for line in lines
        if line.startswith("epoch")
    ]


def test_without_a_terminal_a_long_epoch_has_a_line_a_minute(said):
    make(quiet=False).fit(DATA, epochs=2)
    epochs = [line for line in kinds(said) if ":" not in line]
    assert epochs == ["epoch 1", "epoch 2"]
    steps = [line for line in kinds(said) if ":" in line]
    assert steps
    assert steps[0] == "epoch 1: step 3"
    assert len(steps) <= 10 * 25 / 60 + 1
    assert all("\r" not in line and "\x1b" not in line for line in said)


def test_short_epochs_have_no_line_of_their_steps(said, monkeypatch):
    monkeypatch.setattr(progress, "_INTERVAL", 10000.0)
    make(quiet=False).fit(DATA, epochs=2)
    assert kinds(said) == ["epoch 1", "epoch 2"]


def test_a_quiet_trainer_says_nothing(said):
    make(quiet=True).fit(DATA, epochs=1)
    assert kinds(said) == []


class Shown:
    """Keeps what it is to show."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


def test_what_a_process_tells_is_shown_by_the_one_that_has_started_it(monkeypatch):
    shown, (reads, writes) = Shown(), os.pipe()
    monkeypatch.setenv("DDBP_PROGRESS", str(writes))
    monkeypatch.setattr(progress, "_LIVE_INTERVAL", 0.0)
    make(quiet=False).fit(DATA, epochs=2, validation=DATA)
    os.close(writes)
    monkeypatch.setattr(progress, "display", lambda: shown)
    hearing = progress.Hearing()
    with open(reads) as file:
        for line in file:
            hearing.hear(line)
    names = [name for name, *_ in shown.calls]
    assert names == ["begin", *["step"] * 5, "epoch", *["step"] * 5, "epoch", "end"]
    assert shown.calls[0] == ("begin", 10, 0)
    assert [call[-1] for call in shown.calls if call[0] == "step"] == [*range(1, 11)]
    assert {"epoch", "loss", "validation_accuracy"} <= shown.calls[6][1].keys()


def test_fit_that_breaks_off_is_shown_to_be_over(monkeypatch):
    shown = Shown()
    monkeypatch.setattr(progress, "display", lambda: shown)
    hearing = progress.Hearing()
    hearing.hear('["begin", 10, 0]')
    hearing.end()
    hearing.end()
    assert [name for name, *_ in shown.calls] == ["begin", "end"]


def test_in_a_notebook_one_line_is_written_over(monkeypatch):
    class OutStream(io.StringIO):
        pass

    OutStream.__module__ = "ipykernel.iostream"
    monkeypatch.setattr(sys, "stderr", OutStream())
    monkeypatch.setattr(progress, "_LIVE_INTERVAL", 0.0)
    make(quiet=False).fit(DATA, epochs=2)
    written = sys.stderr.getvalue().split("\n")
    first, second, rest = (line for line in written if "Compiling kernels" not in line)
    assert first.rpartition("\r")[2].startswith("epoch 1: loss ")
    assert second.count("\repoch 2: step") == 5
    assert "step 10 of 10" in second
    assert rest.strip("\r ") == ""
