"""What ddbp says: on standard error, if there is one, in letters that it can show; and JSON for
programs.
"""

import io
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any


def by_lines() -> None:
    """Have what is printed go out line by line, each in one piece, so that lines of several
    processes do not mix.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)


def say(text: str) -> None:
    """Write a line, or several, to standard error; a process without one says nothing."""
    write(f"{text}\n")


def write(text: str) -> None:
    """Write a text to standard error at once."""
    stream = sys.stderr
    if stream is None:
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode())
    stream.flush()


def json_line(facts: Any) -> str:
    """Return facts as a line of JSON, which has null for numbers that are not finite."""
    return json_text(facts)


def json_text(
    facts: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    """Return facts as JSON, as `json.dumps` does, but with null for numbers that are not finite:
    JSON has none of these, and few programs read what Python writes for them.
    """
    return json.dumps(_told(facts), indent=indent, default=default, allow_nan=False)


def _told(facts: Any) -> Any:
    if isinstance(facts, Mapping):
        return {name: _told(each) for name, each in facts.items()}
    if isinstance(facts, list | tuple):
        return [_told(each) for each in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def plain(text: object) -> str:
    """Return a text of anybody's making in one line that does nothing to a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


def console(*, errors: bool = False, **options: Any) -> Any:
    """Return a console of rich, on standard output or that of errors, for texts of anybody's
    making: brackets and colons in them are letters, not styles and pictures. Styles are those of
    `rich.text.Text`.
    """
    from rich.console import Console

    return Console(stderr=errors, markup=False, emoji=False, highlight=False, **options)


def is_live() -> bool:
    """Return whether standard error is a terminal that shows letters of all kinds."""
    stream = sys.stderr
    if stream is None or not stream.isatty():
        return False
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "") in _ALL_LETTERS


_ALL_LETTERS = ("utf8", "utf16", "utf32", "cp65001")
