"""Memory that the processes of one host share: an unlinked file in memory, mapped by each of them.

It goes when the last array that refers to it goes, in whatever order the processes end.
"""

import errno
import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Array

from .communicator import CommunicationError

_FOLDER = Path("/dev/shm")


class NotSharedError(CommunicationError):
    """The ranks that MPI takes to be on one host do not see the same files."""


def folder() -> Path:
    """Return where files live in memory, or the folder of temporary files where there is no such place."""
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
    """Return the array in an open file, having taken memory for one of so many equal parts of it; the file is closed.

    Each process takes the memory of its own part, near its own core. Had nobody taken it, writing to memory that is not there
    would end the process.

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


def refusal(size: int, code: int) -> CommunicationError:
    """Return the error for an array of so many bytes that a rank could not have, given the error number."""
    where = folder()
    must = f"{where} must have room for {_megabytes(size)} that the ranks of this host share"
    if code != errno.ENOSPC:
        return NotSharedError(message("ddbp", must, os.strerror(code), "Set DDBP_SHARED_MEMORY=0 for plain MPI."))
    fix = "Give it more (docker run --shm-size=2g), use fewer shards or ranks, or set DDBP_SHARED_MEMORY=0 (slower: plain MPI)."
    return CommunicationError(message("ddbp", must, f"{_megabytes(_free(where))} free", fix))


def _free(where: Path) -> int:
    state = os.statvfs(where)
    return int(state.f_bavail * state.f_frsize)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
