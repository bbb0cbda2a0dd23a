"""Paths as users give them."""

import os
from pathlib import Path
from typing import Any

from ddbp.files import expanded
from layers.errors import message


def path_of(owner: str, name: str, given: Any) -> Path:
    """Return a path, which may be relative or begin with ~, as an absolute one."""
    if not isinstance(given, str | Path) or given == "" or "\0" in os.fspath(given):
        must, fix = f"{name} must be a path", f'Write {name}="runs/first".'
        raise TypeError(message(owner, must, repr(given), fix))
    return expanded(given).absolute()
