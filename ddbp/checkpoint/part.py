"""The files of a checkpoint that hold arrays: safetensors, hashed while they are written."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layers.errors import message
from layers.kernels.cache_folder import opened
from layers.types import Array

_CHUNK = 1 << 22
"""Bytes that are read, hashed or written at a time."""
_PAGE = 4096
"""Bytes to whose multiples files are written that pass by the cache of the system."""
_HASHING = 2
"""Threads that hash what another one writes."""

Parts = Sequence[tuple[str, int, Array]]
"""Pieces of arrays: name of the array, start and elements (n,) of each."""

_CODES = {
    np.dtype(name): code
    for name, code in {
        "float64": "F64",
        "float32": "F32",
        "float16": "F16",
        "int64": "I64",
        "int32": "I32",
        "int16": "I16",
        "int8": "I8",
        "uint64": "U64",
        "uint32": "U32",
        "uint16": "U16",
        "uint8": "U8",
        "bool": "BOOL",
    }.items()
}


class Piece(NamedTuple):
    """Where a part of an array lies.

    Attributes
    ----------
    start, stop
        Which elements, of the array flattened.
    file
        The name of the file, in the folder of the checkpoint.
    offset
        Where in the file they begin, in bytes.
    sha256
        Of these bytes, in hexadecimal digits.
    """

    start: int
    stop: int
    file: str
    offset: int
    sha256: str


class Image:
    """A safetensors file in memory, as it will lie on the disk, with copies of pieces of arrays.

    Parameters
    ----------
    pieces
        What is copied; the file calls them NAME:START.

    Raises
    ------
    TypeError
        An array is of a type that the format does not know.
    """

    def __init__(self, pieces: Parts) -> None:
        header: dict[str, Any] = {}
        end = 0
        for name, start, elements in pieces:
            if elements.dtype not in _CODES:
                must = f"arrays must be of types that safetensors knows, such as {name}"
                fix = "Give states as real or integer arrays."
                raise TypeError(message("Checkpoints", must, elements.dtype, fix))
            begin, end = end, end + elements.nbytes
            header[f"{name}:{start}"] = {
                "dtype": _CODES[elements.dtype],
                "shape": [len(elements)],
                "data_offsets": [begin, end],
            }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        self._layout = _layout(pieces)
        self._size = len(head) + end
        memory = np.empty(self._size + 2 * _PAGE, np.uint8)
        aligned = memory[-memory.ctypes.data % _PAGE :][: self._size + -self._size % _PAGE]
        aligned[self._size :] = 0
        aligned[: len(head)] = np.frombuffer(head, np.uint8)
        self._whole = aligned
        self._raws: list[Array] = []
        offset = len(head)
        for _, _, elements in pieces:
            self._raws.append(aligned[offset : offset + elements.nbytes])
            offset += elements.nbytes
        self.take(pieces)

    def take(self, pieces: Parts) -> bool:
        """Return whether pieces are of the lengths and types of those before, having taken their
        place.
        """
        if _layout(pieces) != self._layout:
            return False
        for raw, (_, _, elements) in zip(self._raws, pieces, strict=True):
            raw[:] = np.ascontiguousarray(elements).view(np.uint8)
        return True

    def write(self, path: Path) -> list[tuple[str, Piece]]:
        """Write the file, which must be a new one, and have the disk keep it; return where the
        pieces lie.

        It is written past the cache of the system where the file system can: that costs no second
        copy, and the disk is at work while digests are made.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        with ThreadPoolExecutor(_HASHING) as pool:
            digests = pool.map(lambda raw: hashlib.sha256(raw).hexdigest(), self._raws)
            _write(path, self._whole.data, self._size)
            places = []
            offset = self._size - sum(map(len, self._raws))
            for (name, start, count, _), raw, digest in zip(
                self._layout, self._raws, digests, strict=True
            ):
                piece = Piece(start, start + count, path.name, offset, digest)
                places.append((name, piece))
                offset += len(raw)
        return places


def _layout(pieces: Parts) -> list[tuple[str, int, int, np.dtype[Any]]]:
    return [(name, start, len(elements), elements.dtype) for name, start, elements in pieces]


def _write(path: Path, whole: memoryview, size: int) -> None:
    """Write the first bytes of whole pages to a new file, and have the disk keep it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = os.open(path, flags, 0o666)
    try:
        _pass_by_cache(descriptor, True)
        done = 0
        while done < len(whole):
            try:
                done += os.write(descriptor, whole[done : done + _CHUNK])
            except OSError as error:
                if error.errno != errno.EINVAL or not _pass_by_cache(descriptor, False):
                    raise
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


def _pass_by_cache(descriptor: int, wanted: bool) -> bool:
    """Have what is written pass by the cache of the system, or not; return whether that is new."""
    direct = getattr(os, "O_DIRECT", 0)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if bool(flags & direct) == wanted:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags ^ direct)
    except OSError:
        return False
    return True


def read(path: Path, offset: int, count: int, dtype: np.dtype[Any]) -> Array:
    """Return elements (count,) that lie in a file from an offset on.

    Raises
    ------
    OSError
        The file cannot be read, or is a link.
    ValueError
        It ends before.
    """
    size = count * dtype.itemsize
    with opened(path) as file:
        held = os.fstat(file.fileno()).st_size
        if held < offset + size:
            must = f"{path} must hold {offset + size} bytes"
            raise ValueError(message("checkpoint", must, held, "The file was cut off."))
        raw = bytearray(size)
        file.seek(offset)
        _fill(file, memoryview(raw))
    return np.frombuffer(raw, dtype)


def _fill(file: FileIO, raw: memoryview) -> int:
    """Read bytes; return how many there were."""
    done = 0
    while done < len(raw) and (count := file.readinto(raw[done:])):
        done += count
    return done


def sha256(path: Path, offset: int, size: int) -> str:
    """Return the digest of bytes in a file, of those that are there if it ends before."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(size, _CHUNK)))
    with opened(path) as file:
        file.seek(offset)
        while size > 0 and (count := _fill(file, buffer[:size])):
            digest.update(buffer[:count])
            size -= count
    return digest.hexdigest()
