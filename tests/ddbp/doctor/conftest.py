"""What the tests of the doctor share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _as_a_script(monkeypatch):
    """Workers of pytest are started with code that is typed in, which nobody could run again."""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "train.py"])
