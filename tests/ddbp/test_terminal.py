"""What ddbp says where there is no standard error, or one that shows ASCII only."""

import io
import sys
from pathlib import Path

import pytest
from rich.table import Table

from ddbp import terminal

from .training.small import DATA, make

ADVICE = "λ is 0.1 …"


@pytest.mark.parametrize("errors", ["strict", "backslashreplace"])
def test_line_with_letters_that_a_terminal_does_not_have_is_said_all_the_same(monkeypatch, errors):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "ascii", errors))
    terminal.say(ADVICE)
    assert raw.getvalue() == rb"\u03bb is 0.1 \u2026" + b"\n"
    assert not terminal.is_live()


def test_training_shows_nothing_without_standard_error(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", None)
    make(quiet=False).fit(DATA, epochs=1)
    terminal.say(ADVICE)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("encoding", "live"), [("utf-8", True), ("UTF8", True), ("ascii", False)])
def test_live_line_needs_a_terminal_that_shows_it(monkeypatch, encoding, live):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    assert terminal.is_live() is live


def test_a_line_of_json_has_null_for_what_is_not_finite():
    facts = {"a": [1.5, float("nan"), (float("-inf"),)], "b": {"c": float("inf"), "d": "nan"}}
    assert terminal.json_line(facts) == '{"a": [1.5, null, [null]], "b": {"c": null, "d": "nan"}}'


def test_a_console_shows_brackets_and_colons_as_they_are(capsys):
    table = Table("[/head]", ":smile:")
    table.add_row("[/b]", "[red]x :smile:")
    terminal.console().print(table)
    terminal.console(errors=True).print("[/b] :smile:")
    out, err = capsys.readouterr()
    for each in ("[/head]", "[/b]", "[red]x :smile:"):
        assert each in out
    assert err == "[/b] :smile:\n"


def test_all_consoles_are_made_in_one_place():
    package = Path(terminal.__file__).parent
    found = [
        path.name
        for path in package.rglob("*.py")
        if "rich.console import Console" in path.read_text() or "rich.markup" in path.read_text()
    ]
    assert found == ["terminal.py"]
