"""Files that appear whole; files of run folders, which may be damaged, or of anybody's making."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layers.errors import message
from layers.kernels.cache_folder import opened

MOST_BYTES = 2**28
"""A file of text that is larger is not read."""


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Return a context with a path to write to; what it holds has the name `path` at the end, and
    where writing fails, nothing is left of it and `path` is as it was.

    A device or a pipe (`/dev/null`, `/dev/stdout`) is written to itself: a file that took its name
    would take its place. With `durable`, the file is on the disk before it has its name. It may be
    read and written by whom a new file may, whatever writes it.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(stat.S_IMODE(mode))
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path whose beginning ~ is a home, if there is such a user: a folder may be called
    so.
    """
    return Path(os.path.expanduser(path))


def place(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of what is named: ~ is a home, and .. the folder above."""
    given = expanded(path)
    return given.resolve() if ".." in given.parts else given.absolute()


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file, with marks in place of what is none.

    Raises
    ------
    OSError
        It cannot be read, is no regular file, or is too large.
    """
    with opened(path, links=True) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, "Too large", os.fspath(path))
        content = file.read(MOST_BYTES)
    return content.decode("utf-8", errors="replace")


def unwritable(owner: str, path: Path, error: BaseException) -> OSError:
    """Return the error of a file that cannot be written, with what would mend it."""
    fix = "Free some space, or write elsewhere."
    if not path.parent.is_dir():
        fix = f"Make the folder {path.parent} first, or write elsewhere."
    elif path.is_dir() or not os.access(path.parent, os.W_OK):
        fix = "Name a file, in a folder that you may write to."
    return OSError(message(owner, f"{path} must be a file to write to", reason(error), fix))


def reason(error: BaseException) -> str:
    """Return what is wrong with a file in words, without the numbers of the system."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
