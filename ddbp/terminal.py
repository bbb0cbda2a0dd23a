"""What ddbp says: on standard error, if there is one, in letters that it can show."""

import io
import sys


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


def plain(text: object) -> str:
    """Return a text of anybody's making in one line that does nothing to a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


def is_live() -> bool:
    """Return whether standard error is a terminal that shows letters of all kinds."""
    stream = sys.stderr
    if stream is None or not stream.isatty():
        return False
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "") in _ALL_LETTERS


_ALL_LETTERS = ("utf8", "utf16", "utf32", "cp65001")
