"""What rank 0 shows where there is no terminal: lines, and not too many."""

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
    monkeypatch.setattr(progress.time, "monotonic", clock)
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
