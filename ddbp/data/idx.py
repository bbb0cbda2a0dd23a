"""IDX files, the format of MNIST, as they are or compressed by gzip."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from layers.errors import message
from layers.types import Array

from .paths import existing_file

_OWNER = "read_idx"
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Types of values by the third byte: "The IDX file format", http://yann.lecun.com/exdb/mnist."""
_PART = 1 << 24
_FIX = "Fetch the file again; MNIST's are named like train-images-idx3-ubyte.gz."


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Return the array of an IDX file, with the type that the file has.

    Parameters
    ----------
    path
        The file, which may be compressed by gzip, whatever its name.

    Raises
    ------
    ValueError
        It is no IDX file, or has fewer or more bytes than its sizes say.
    FileNotFoundError
        There is no such file.
    """
    file = existing_file(_OWNER, "path", path)
    with opened(file) as stream:
        try:
            return _read(stream, file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            must = "a compressed file must be whole"
            raise _refused(must, f"{file}: {error}") from error


def opened(file: Path) -> IO[bytes] | gzip.GzipFile:
    """Open a file to be read, decompressed if gzip has compressed it."""
    stream = file.open("rb")
    try:
        head = stream.read(2)
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    if head != b"\x1f\x8b":
        return stream
    stream.close()
    return gzip.open(file, "rb")


def _read(stream: IO[bytes] | gzip.GzipFile, file: Path) -> Array:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not magic[3]:
        must = "an IDX file must begin with 0, 0, the type of its values and its number of axes"
        raise _refused(must, f"{file}, which begins with {magic.hex(' ') or 'nothing'}")
    axes = magic[3]
    head = stream.read(4 * axes)
    if len(head) < 4 * axes:
        must = f"an IDX file of {axes} axes must have {4 * axes} bytes of sizes"
        raise _refused(must, f"{file}, which has {len(head)}")
    shape = struct.unpack(f">{axes}I", head)
    dtype = np.dtype(_TYPES[magic[2]])
    expected = math.prod(shape) * dtype.itemsize
    content = limited(stream, expected + 1)
    if len(content) != expected:
        got = "more" if len(content) > expected else f"{len(content):,}"
        must = f"an IDX file of sizes {shape} must have {expected:,} bytes of values"
        raise _refused(must, f"{file}, which has {got}")
    values: Any = np.frombuffer(content, dtype).reshape(shape)
    return np.asarray(values.astype(dtype.newbyteorder("=")))


def limited(stream: IO[bytes] | gzip.GzipFile, most: int) -> bytes:
    """Return what is left of a stream, but no more than so many bytes; memory is taken for what
    there is, not for what a file claims.
    """
    parts = []
    while most > 0 and (part := stream.read(min(most, _PART))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _refused(must: str, got: str) -> ValueError:
    return ValueError(message(_OWNER, must, got, _FIX))
