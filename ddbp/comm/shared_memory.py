"""Memory that the processes of one host share: an unlinked file in memory, mapped by each of them.

It goes when the last array that refers to it goes, in whatever order the processes end.
"""

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Array

from .base import CommunicationError

_FOLDER = Path("/dev/shm")
_SPARE = 16 * 2**20
"""What an error asks for on top: MPI libraries put buffers there, too, and take the memory of these
when they first use them.
"""


class NotSharedError(CommunicationError):
    """The ranks that MPI takes to be on one host do not see the same files."""


def folder() -> Path:
    """Return where files live in memory, or the folder of temporary files where there is no such
    place.
    """
    return _FOLDER if _FOLDER.is_dir() else Path(tempfile.gettempdir())


def size_of(shape: tuple[int, ...], dtype: Any) -> int:
    """Return the bytes of an array, at least one."""
    return max(1, int(math.prod(shape)) * int(np.dtype(dtype).itemsize))


def create(size: int) -> Path:
    """Return the path of a new file of zeros; no memory is taken yet."""
    descriptor, path = tempfile.mkstemp(prefix="ddbp-", dir=folder())
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
    return Path(path)


def attach(descriptor: int, shape: tuple[int, ...], dtype: Any, part: int, parts: int) -> Array:
    """Return the array in an open file, having taken memory for one of so many equal parts of it;
    the file is closed.

    Each process takes the memory of its own part, near its own core. Had nobody taken it, writing
    to memory that is not there would end the process.

    Raises
    ------
    OSError
        There is not enough memory (ENOSPC).
    """
    size = size_of(shape, dtype)
    try:
        start, stop = size * part // parts, size * (part + 1) // parts
        if stop > start and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, start, stop - start)
        memory = mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
    array: Array = np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)
    return array


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
            f" free{', of which others have taken some since' * enough}"
        )
        size = math.ceil((self._capacity + total - (0 if enough else self._free) + _SPARE) / 2**20)
        give = f"Give it {size} MiB in all (docker run --shm-size={size}m)"
        fix = f"{give}, use fewer shards or ranks, or set DDBP_SHARED_MEMORY=0 (slower: plain MPI)."
        return CommunicationError(message("ddbp", must, got, fix))


def _mebibytes(size: int, rounded: Callable[[float], int] = math.ceil) -> str:
    return f"{rounded(size / 2**20 * 10) / 10:,.1f}"
