"""Files of text: a whole one, or lines with labels."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from layers.checks import boolean
from layers.errors import message

from .cells import in_order
from .encodings import mend_of, undecoded
from .idx import opened
from .paths import existing_file
from .skipped import BadSamples, Skipped, shown

_HEAD = 100
"""Bytes that tell an encoding."""


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file.

    Parameters
    ----------
    path
        A file of UTF-8, which gzip may have compressed.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no UTF-8; the byte is named.
    """
    owner = "read_text"
    file = existing_file(owner, "path", path)
    with opened(file) as stream:
        try:
            return stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise not_utf8(owner, file, error) from error
        except (EOFError, OSError) as error:
            must, fix = "a compressed file must be whole", "Fetch it again."
            raise ValueError(message(owner, must, f"{file}: {error}", fix)) from error


def not_utf8(owner: str, file: Path, error: UnicodeDecodeError) -> ValueError:
    """Return the error for a text in another encoding."""
    got = f"{file}, whose byte {error.start} is {error.object[error.start]:#x}"
    fix = mend_of(error.object[:_HEAD].decode("utf-8", "surrogateescape"))
    return ValueError(message(owner, "a text must be UTF-8", got, fix))


class LabelledLines(NamedTuple):
    """Texts with labels.

    Attributes
    ----------
    texts
        One for each line.
    labels
        The name of the class of each.
    classes
        The names of classes, in their order.
    skipped
        Lines that have been left out, with the reason.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def read_lines(
    path: str | os.PathLike[str], *, separator: str = "\t", skip_bad: bool = False
) -> LabelledLines:
    """Return the texts of a file that has a label, a separator and a text in each line.

    Parameters
    ----------
    path
        A file of UTF-8, which gzip may have compressed; empty lines are none.
    separator
        What stands between label and text, the first time that it comes.
    skip_bad
        Whether lines without label or text are left out, and listed in `skipped`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A line has no label or no text, or is no UTF-8, and is named; or there is one class alone.
    """
    owner = "read_lines"
    file = existing_file(owner, "path", path)
    bad = BadSamples(owner, boolean(owner, "skip_bad", skip_bad))
    if not isinstance(separator, str) or not separator or "\n" in separator:
        must, fix = "separator must be a text", "Leave it out for the tabulator."
        raise ValueError(message(owner, must, repr(separator)[:80], fix))
    texts, labels = [], []
    must, fix = "every line must be a label, a separator and a text", f"Write label{separator}text."
    for number, text in decoded_lines(file, bad):
        if not text.strip():
            continue
        label, found, rest = text.partition(separator)
        if not (found and label.strip() and rest.strip()):
            bad.found(must, f"{file}, line {number}", repr(text), fix)
            continue
        labels.append(label.strip())
        texts.append(rest.strip())
    bad.require_some(len(texts), f"a line in {file}")
    classes = in_order({*labels})
    if len(classes) == 1:
        got, fix = f"{shown(classes[0])} alone in {file}", "Add lines of another one."
        raise ValueError(message(owner, "there must be two labels or more", got, fix))
    return LabelledLines(tuple(texts), tuple(labels), classes, tuple(bad.skipped))


def decoded_lines(file: Path, bad: BadSamples) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file, which gzip may have compressed, with their numbers from 1, but for
    those that are no UTF-8; they may end as on any system.
    """
    with opened(file) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape")
        try:
            for number, line in enumerate(text, start=1):
                if undecoded(line):
                    place, fix = f"{file}, line {number}", mend_of(line)
                    bad.found("lines must be UTF-8", place, ascii(line.strip()), fix)
                    continue
                yield number, line.rstrip("\n")
        except (EOFError, OSError) as error:
            must, fix = "a compressed file must be whole", "Fetch it again."
            raise ValueError(message(bad.owner, must, f"{file}: {error}", fix)) from error
