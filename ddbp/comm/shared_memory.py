"""Memory that the processes of one host share: an unlinked file in memory, mapped by each of them.

It goes when the last array that refers to it goes, in whatever order the processes end.
"""

import errno
import math
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from layers.errors import message
from layers.types import Array

from .base import CommunicationError

_FOLDER = Path("/dev/shm")
_SPARE = 16 * 2**20
"""What an error asks for on top: MPI libraries put buffers there, too, and take the memory of these
when they first use them.
"""
_OF_MPI = 1_100_000
"""Bytes that MPICH takes for each rank of a host as soon as it starts."""
_SHOWN = 5
"""So many files are named in an error."""


class NotSharedError(CommunicationError):
    """The ranks that MPI takes to be on one host do not see the same files."""


def folder() -> Path:
    """Return where files live in memory, or the folder of temporary files where there is no such
    place.
    """
    return _FOLDER if _FOLDER.is_dir() else Path(tempfile.gettempdir())


def _prefix(pid: int) -> str:
    """Return how the names of files begin that a process makes."""
    return f"ddbp-{pid}-"


def remove_files_of(pid: int) -> None:
    """Remove the files of a process that was killed before it could take their names away."""
    for path in folder().glob(f"{_prefix(pid)}*"):
        with suppress(OSError):
            path.unlink()


def take_names_of_mpi() -> None:
    """Take away the names of MPICH's files, which all ranks of the host have mapped: it removes
    them at the end, and leaves them where a run has none.
    """
    for name in mapped():
        if name.startswith("mpich_shm_"):
            with suppress(OSError):
                (_FOLDER / name).unlink()


def size_of(shape: tuple[int, ...], dtype: Any) -> int:
    """Return the bytes of an array, at least one."""
    return max(1, int(math.prod(shape)) * int(np.dtype(dtype).itemsize))


def create(size: int) -> Path:
    """Return the path of a new file of zeros; no memory is taken yet."""
    descriptor, path = tempfile.mkstemp(prefix=_prefix(os.getpid()), dir=folder())
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
    return Path(path)


def attach(descriptor: int, shape: tuple[int, ...], dtype: Any, part: int, parts: int) -> Array:
    """Return the array in an open file, having taken memory for one of so many equal parts of it.

    Each process takes the memory of its own part, near its own core. Had nobody taken it, writing
    to memory that is not there would end the process.

    Raises
    ------
    OSError
        There is not enough memory (ENOSPC).
    """
    size = size_of(shape, dtype)
    start, stop = size * part // parts, size * (part + 1) // parts
    if stop > start and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, stop - start)
    memory = mmap.mmap(descriptor, size)
    array: Array = np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)
    return array


class Sharers(Protocol):
    """Ranks of a host that are to share memory; all methods are collective but `refusal`."""

    def from_first(self, text: Array) -> None:
        """Overwrite text with that of the first of them."""

    def error_of_any(self, error: OSError | None) -> int:
        """Return the number of the first error, 0 if none of them has one."""

    def refusal(self, code: int) -> CommunicationError:
        """Return the error for memory that cannot be had, given the error number."""


def allocate(shape: tuple[int, ...], dtype: Any, mine: int, ranks: int, sharers: Sharers) -> Array:
    """Return zeroed memory that so many ranks share, of which this one is number `mine`;
    collective.
    """
    descriptor = -1
    try:
        descriptor, error = _open_together(size_of(shape, dtype), mine, sharers)
        code = sharers.error_of_any(error)
        if code:
            raise sharers.refusal(code)
        try:
            array = attach(descriptor, shape, dtype, mine, ranks)
        except OSError as refused:
            error = refused
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    code = sharers.error_of_any(error)
    if code:
        raise sharers.refusal(code)
    return array


def _open_together(size: int, mine: int, sharers: Sharers) -> tuple[int, OSError | None]:
    """Return a new file, which the first of the ranks has made, or -1 with the error."""
    path, created = np.zeros(256, np.uint8), ""
    descriptor, error = -1, None
    try:
        if mine == 0:
            try:
                created = str(create(size))
                raw = np.frombuffer(os.fsencode(created), np.uint8)
                path[: len(raw)] = raw
            except OSError as refused:
                error = refused
        sharers.from_first(path)
        try:
            descriptor = os.open(os.fsdecode(path.tobytes().rstrip(b"\0")), os.O_RDWR)
        except OSError as refused:
            error = error or refused
        # All have it open.
        sharers.error_of_any(None)
    finally:
        # Before memory is taken: a process that is killed then, for want of it, must not leave it
        # behind. Nor may a rank that goes on, and fails, end all of them before.
        if created:
            os.unlink(created)
    return descriptor, error


class MemoryPlan:
    """What the ranks of a host are about to share; made before any of them takes memory for it,
    when it sees what is free.

    Parameters
    ----------
    needs
        Bytes by purpose.
    held
        Bytes by purpose of what they share already: an error tells both together, as if none of it
        were taken.
    """

    def __init__(self, needs: Mapping[str, int], held: Mapping[str, int]) -> None:
        self._needs = {
            name: -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            for name, size in (*needs.items(), *held.items())
            if size
        }
        self._where = folder()
        state = os.statvfs(self._where)
        self._free = int(state.f_bavail * state.f_frsize) + sum(self._needs[name] for name in held)
        self._capacity = int(state.f_blocks * state.f_frsize)

    def refusal(self, code: int) -> CommunicationError:
        """Return the error for ranks of which one could not have its part of an array, given the
        error number.
        """
        total = sum(self._needs.values())
        parts = ", ".join(f"{name} {_mebibytes(size)}" for name, size in self._needs.items())
        must = (
            f"{self._where} must have room for {_mebibytes(total)} MiB that the ranks of this host"
            f" share ({parts})"
        )
        if code != errno.ENOSPC:
            return NotSharedError(
                message("ddbp", must, os.strerror(code), "Set DDBP_SHARED_MEMORY=0 for plain MPI.")
            )
        enough = self._free >= total
        got = (
            f"{_mebibytes(self._free, math.floor)} MiB"
            f" free{', of which others have taken some since' * enough}{leftovers()}"
        )
        size = math.ceil((self._capacity + total - (0 if enough else self._free) + _SPARE) / 2**20)
        give = f"Give it {size} MiB in all (docker run --shm-size={size}m)"
        fix = f"{give}, use fewer shards or ranks, or set DDBP_SHARED_MEMORY=0 (slower: plain MPI)."
        return CommunicationError(message("ddbp", must, got, fix))


def require_room_for_mpi(ranks: int) -> None:
    """Refuse to start MPI where there is too little memory for its own file, for so many ranks of
    this host: MPICH would end without a word.

    Raises
    ------
    CommunicationError
        There is too little of it.
    """
    state = os.statvfs(folder())
    free, needed = int(state.f_bavail * state.f_frsize), ranks * _OF_MPI
    if free < needed and free + _taken_by_siblings() < needed:
        must = f"{folder()} must have room for {_mebibytes(needed)} MiB that MPI takes there"
        got = f"{_mebibytes(free, math.floor)} MiB free{leftovers()}"
        fix = "Make room there, or give it more memory (docker run --shm-size=1g)."
        raise CommunicationError(message("ddbp", must, got, fix))


def _taken_by_siblings() -> int:
    """Return the bytes of the files that other ranks of this host have mapped already."""
    names = set[str]()
    for path in Path(f"/proc/{os.getppid()}/task").glob("*/children"):
        with suppress(OSError):
            names |= set().union(*map(mapped, path.read_text().split()))
    taken = 0
    for name in names:
        with suppress(OSError):
            taken += (_FOLDER / name).stat().st_blocks * 512
    return taken


def mapped(process: int | str = "self") -> set[str]:
    """Return the names of the files in memory that a process maps, as far as the system tells."""
    try:
        lines = Path(f"/proc/{process}/maps").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    start = f" {_FOLDER}/"
    return {
        line.partition(start)[2]
        for line in lines
        if start in line and not line.endswith(" (deleted)")
    }


def leftovers() -> str:
    """Return what an error says of the files that take the memory, but for those of this process:
    the largest, whose they are and how old, and which of them no process uses.
    """
    own, found = mapped(), dict[str, os.stat_result]()
    for path in folder().iterdir() if folder() == _FOLDER else ():
        try:
            state = path.lstat()
        except OSError:
            continue
        if path.name not in own and state.st_blocks:
            found[path.name] = state
    if not found:
        return ""
    used = set().union(*(mapped(path.name) for path in Path("/proc").glob("[0-9]*")))
    names = sorted(found, key=lambda name: found[name].st_blocks, reverse=True)
    shown = [f"{name} ({_of(found[name])})" for name in names[:_SHOWN]]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    unused = [name for name in names if name not in used and found[name].st_uid == os.geteuid()]
    size = _mebibytes(sum(state.st_blocks for state in found.values()) * 512)
    text = f"; {size} MiB are taken by {', '.join([*shown, *more])}"
    if unused:
        size = _mebibytes(sum(found[name].st_blocks for name in unused) * 512)
        paths = " ".join(str(folder() / name) for name in unused[:_SHOWN])
        rest = " …" * (len(unused) > _SHOWN)
        text += f"; no process uses {len(unused)} of these, of {size} MiB: rm {paths}{rest}"
    return text


def _of(state: os.stat_result) -> str:
    """Return the size, the owner and the age of a file, in words."""
    try:
        import pwd

        owner = pwd.getpwuid(state.st_uid).pw_name
    except (ImportError, KeyError):
        owner = f"user {state.st_uid}"
    hours, minutes = divmod(int(time.time() - state.st_mtime) // 60, 60)
    age = f"{hours} h" if hours else f"{minutes} min"
    return f"{_mebibytes(state.st_blocks * 512)} MiB, of {owner}, {age} old"


def _mebibytes(size: int, rounded: Callable[[float], int] = math.ceil) -> str:
    return f"{rounded(size / 2**20 * 10) / 10:,.1f}"
