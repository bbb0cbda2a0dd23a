"""Folders for as long as a command runs. Where one was killed, the next one removes its folder."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layers.kernels.cache_folder import opened, others_may_write

_LOCK = "command"
"""The file that a command holds a lock on, which the system takes away when it ends."""


@contextmanager
def folder(purpose: str) -> Iterator[Path]:
    """Return a context with an empty folder of this user alone.

    Raises
    ------
    OSError
        None can be made.
    """
    prefix = f"ddbp-{purpose}-"
    _remove_left(prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        lock = _taken(Path(name))
        try:
            yield Path(name)
        finally:
            os.close(lock)


def _taken(path: Path) -> int:
    """Return an open file with a lock, which has its name in the folder only then."""
    unnamed = path / f".{_LOCK}"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    # A file system may have no locks: then nobody gets this one, either.
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX)
        unnamed.rename(path / _LOCK)
    return lock


def _remove_left(prefix: str) -> None:
    """Remove the folders of this user whose commands have ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            if others_may_write(path.lstat()):
                continue
            with opened(path / _LOCK) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
