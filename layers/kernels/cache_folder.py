"""The folder that machine code is kept in, and its files: read only where they are whole, and where
nobody else can have written them, as what they hold is executed.

What cannot be kept or read costs time to compile it, and nothing else.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from io import FileIO
from pathlib import Path

from layers.errors import message

KEPT = 16
"""So many versions of a file's kernels are kept, those that were used last."""

_DIGEST_BYTES = hashlib.sha256().digest_size


def others_may_write(state: os.stat_result) -> str:
    """Return why others than this user and root may have written a file or folder, nothing if they
    cannot have.
    """
    if not hasattr(os, "geteuid"):
        return ""
    if stat.S_ISLNK(state.st_mode):
        return "which is a link"
    if state.st_uid not in (os.geteuid(), 0):
        return f"which belongs to user {state.st_uid}"
    return _open_to_others(state)


def _open_to_others(state: os.stat_result) -> str:
    if state.st_mode & stat.S_IWOTH or (
        state.st_mode & stat.S_IWGRP and not _is_own_group(state.st_gid)
    ):
        return f"which others may write to (mode {stat.S_IMODE(state.st_mode):o})"
    return ""


def _is_own_group(gid: int) -> bool:
    """Return whether a group is that of this user alone: where each user has one, folders are often
    made so that it can write to them.
    """
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    own = (user.pw_gid, user.pw_name) == (gid, group.gr_name)
    return own and set(group.gr_mem) <= {user.pw_name}


def _replaceable(state: os.stat_result) -> str:
    """Return why others may put theirs in the place of what lies in a folder, nothing if they
    cannot: in one that is sticky nobody can.
    """
    return "" if state.st_mode & stat.S_ISVTX else _open_to_others(state)


def find() -> Path | None:
    """Return the folder for machine code, the first that can be used: in NUMBA_CACHE_DIR, in the
    user's cache folder, and in the temporary folder; None if there is none.
    """
    chosen, home = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".cache")
    # Each with what is required of it.
    bases: list[tuple[Path, Callable[[os.stat_result], str]]] = []
    if chosen:
        bases.append((Path(chosen).expanduser().resolve(), _replaceable))
    # Where a user has no home, "~" stands for nothing.
    if os.path.isabs(home):
        bases.append((Path(home, "ddbp").resolve(), others_may_write))
    with suppress(OSError):
        user = os.getuid() if hasattr(os, "getuid") else "user"
        bases.append((Path(tempfile.gettempdir()).resolve() / f"ddbp-{user}", others_may_write))
    for base, distrust in bases:
        try:
            return _made(base, distrust)
        except OSError as error:
            if error.errno is None:
                _warn(str(error))
            elif distrust is _replaceable:
                must, fix = "NUMBA_CACHE_DIR must be a folder to write to", "Another is used."
                _warn(message("layers.kernels", must, f"{base}: {error.strerror}", fix))
    must = "there should be a folder to keep compiled kernels in"
    fix = "Each run compiles them anew; set NUMBA_CACHE_DIR to a folder of your own."
    got = ", ".join(f"{base} cannot be used" for base, _ in bases) or "no candidate"
    _warn(message("layers.kernels", must, got, fix))
    return None


def _made(base: Path, distrust: Callable[[os.stat_result], str]) -> Path:
    """Return the folder of kernels in a base, made for this user alone where it is missing.

    Raises
    ------
    OSError
        It cannot be made or written to, or (without an error number) others can.
    """
    base.parent.mkdir(parents=True, exist_ok=True)
    folder = base / "kernels"
    for path, reason in (
        (base.parent, _replaceable),
        (base, distrust),
        (folder, others_may_write),
    ):
        path.mkdir(0o700, exist_ok=True)
        if why := reason(path.lstat()):
            must = "the folder of compiled kernels must be out of reach for others"
            fix = "It is not used; chmod go-w, or set NUMBA_CACHE_DIR to a folder of your own."
            raise OSError(message("layers.kernels", must, f"{path}, {why}", fix))
    with tempfile.TemporaryFile(dir=folder):
        return folder


@cache
def memory_bytes() -> int:
    """Return the bytes of memory of this machine, more than any has if it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**60


def opened(path: str | os.PathLike[str], *, links: bool = False) -> FileIO:
    """Return a regular file, to be read; one that is a link only where `links` are followed. None
    waits for a writer, and no device is read.

    Raises
    ------
    OSError
        It cannot be read, or is no regular file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags if links else flags | os.O_NOFOLLOW)
    except ValueError as error:
        # Zeros in the name.
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
    except OSError as error:
        if error.errno != errno.ELOOP or links:
            raise
        # What the system says of it speaks of too many links.
        raise OSError(errno.ELOOP, "A link, which is not followed", os.fspath(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def read(path: Path) -> bytes | None:
    """Return what `write` has kept in a file; None where there is nothing, or not as written."""
    try:
        with opened(path) as file:
            reason = others_may_write(os.fstat(file.fileno()))
            content = b"" if reason else file.readall()
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = f"which cannot be read: {error.strerror}"
    else:
        kept = content[_DIGEST_BYTES:]
        if not reason and content[:_DIGEST_BYTES] == _digest(path, kept):
            _used(path.parent)
            return kept
        reason = reason or "which is cut off or altered"
    fix = "The kernel is compiled again."
    _warn(
        message(
            "layers.kernels",
            "a file of compiled kernels must be as written",
            f"{path}, {reason}",
            fix,
        )
    )
    return None


def write(path: Path, kept: bytes) -> None:
    """Keep bytes in a file, whole or not at all, in a folder of the name of a version."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(0o700, exist_ok=True)
            _remove_old_versions(path.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_digest(path, kept))
                file.write(kept)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _warn_that_nothing_is_kept(path.parents[1], error.strerror)


def _digest(path: Path, kept: bytes) -> bytes:
    """Return the digest of a file: of its name, too, lest one be taken for another."""
    return hashlib.sha256(f"{path.parent.name}/{path.name}\n".encode() + kept).digest()


@cache
def _used(folder: Path) -> None:
    """Note that a version is in use, once per process."""
    with suppress(OSError):
        os.utime(folder)


def _remove_old_versions(folder: Path) -> None:
    """Remove all but the last used versions of the file that a folder holds a version of."""
    name = folder.name.rpartition("-")[0]
    times = dict[Path, float]()
    for other in folder.parent.iterdir():
        if other.name.rpartition("-")[0] == name:
            with suppress(OSError):
                times[other] = other.stat().st_mtime
    for old in sorted(times, key=times.__getitem__, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


@cache
def _warn_that_nothing_is_kept(folder: Path, reason: str) -> None:
    fix = "Kernels are compiled anew in each run; free some space, or set NUMBA_CACHE_DIR."
    must = "compiled kernels should be kept"
    _warn(message("layers.kernels", must, f"{folder}: {reason}", fix))


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
