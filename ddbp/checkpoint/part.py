"""The files of a checkpoint that hold arrays: safetensors, hashed while they are written."""

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
from layers.types import Array

_CHUNK = 1 << 22
"""Bytes that are read and hashed at a time."""
_HASHING = 2
"""Threads that hash what another one writes."""

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


def write(path: Path, pieces: Sequence[tuple[str, int, Array]]) -> list[tuple[str, Piece]]:
    """Write pieces, as name of the array, start and elements (n,), to a new safetensors file, and
    have the disk keep it; return where they lie. The file calls them NAME:START.

    Raises
    ------
    TypeError
        An array is of a type that the format does not know.
    OSError
        The file cannot be written.
    """
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
    places = []
    with path.open("xb") as file, ThreadPoolExecutor(_HASHING) as pool:
        file.write(len(text).to_bytes(8, "little") + text)
        raws = [memoryview(_bytes(elements)) for _, _, elements in pieces]
        digests = pool.map(_digest, raws)
        for raw in raws:
            file.write(raw)
        file.flush()
        os.fsync(file.fileno())
        offset = 8 + len(text)
        for (name, start, elements), digest in zip(pieces, digests, strict=True):
            places.append((name, Piece(start, start + len(elements), path.name, offset, digest)))
            offset += elements.nbytes
    return places


def _bytes(elements: Array) -> Any:
    return np.ascontiguousarray(elements).view(np.uint8).data


def _digest(raw: memoryview) -> str:
    return hashlib.sha256(raw).hexdigest()


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
    with _opened(path) as file:
        held = os.fstat(file.fileno()).st_size
        if held < offset + size:
            must = f"{path} must hold {offset + size} bytes"
            raise ValueError(message("checkpoint", must, held, "The file was cut off."))
        raw = bytearray(size)
        file.seek(offset)
        _fill(file, memoryview(raw))
    return np.frombuffer(raw, dtype)


def _opened(path: Path) -> FileIO:
    """Return a file that is no link, to be read."""
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0)


def _fill(file: FileIO, raw: memoryview) -> int:
    """Read bytes; return how many there were."""
    done = 0
    while done < len(raw) and (count := file.readinto(raw[done:])):
        done += count
    return done


def sha256(path: Path, offset: int, size: int) -> str:
    """Return the digest of bytes in a file, of those that are there if it ends before."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(size, _CHUNK)))
    with _opened(path) as file:
        file.seek(offset)
        while size > 0 and (count := _fill(file, buffer[:size])):
            digest.update(buffer[:count])
            size -= count
    return digest.hexdigest()
