"""Files and folders of data as users give them."""

import os
from pathlib import Path
from typing import Any

from ddbp.files import expanded
from layers.errors import message


def existing_file(owner: str, name: str, given: Any) -> Path:
    """Return the path of a file that is there."""
    return _existing(owner, name, given, "file", Path.is_file)


def existing_folder(owner: str, name: str, given: Any) -> Path:
    """Return the path of a folder that is there."""
    return _existing(owner, name, given, "folder", Path.is_dir)


def given_path(owner: str, name: str, given: Any, kind: str = "file") -> Path:
    """Return a path, which may begin with ~, as it is given: messages name it so."""
    if not isinstance(given, str | Path) or str(given) == "" or "\0" in os.fspath(given):
        must = f"{name} must be the path of a {kind}"
        raise TypeError(message(owner, must, repr(given)[:80], f'Write {name}="data/{kind}".'))
    return expanded(given)


def _existing(owner: str, name: str, given: Any, kind: str, is_kind: Any) -> Path:
    path = given_path(owner, name, given, kind)
    try:
        there = is_kind(path)
    except OSError:
        # The name is too long, or not of this system.
        there = False
    if not there:
        got = f"{path}, " + ("which is none" if os.path.lexists(path) else "which is not there")
        fix = f"The folder of this process is {Path.cwd()}."
        kind_of = NotADirectoryError if kind == "folder" else FileNotFoundError
        raise kind_of(message(owner, f"{name} must be a {kind} that is there", got, fix))
    return path
