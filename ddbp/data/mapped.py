"""Arrays in files, mapped into memory: what is read of them is what is asked for."""

import json
import math
import mmap
import os
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ddbp.files import reason
from layers.errors import message, wording
from layers.types import Array, Integers

_OWNER = "open_arrays"
_SAFETENSORS = {
    **{"BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16},
    **{"U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64},
    **{"F16": np.float16, "F32": np.float32, "F64": np.float64},
}
"""The types of https://github.com/huggingface/safetensors that NumPy has, too."""
_LONGEST_HEADER = 100_000_000
_SMALL = 1 << 24
"""An array of fewer bytes may be in memory as a whole."""
_MAPPED = 1 << 26
"""So many bytes of a file may be in this process's memory before they are let go."""
_AROUND = 1 << 16
"""So many bytes the system maps where one is read."""


@wording(_OWNER)
def open_arrays(path: Any) -> Any:
    """Return the array of a `.npy` file, or a dictionary of those of an `.npz` or `.safetensors`
    file by name, without reading them: each is a `numpy.memmap`.

    Parameters
    ----------
    path
        The file, whose ending says what it is.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is of another kind or damaged, or an array is compressed, or its type has no
        counterpart in NumPy (bfloat16), or it holds Python objects.
    """
    place = Path(path)
    kinds = {".npy": _of_npy, ".npz": _of_npz, ".safetensors": _of_safetensors}
    if place.suffix not in kinds:
        must = f"{place} must be a file of arrays"
        fix = f"These are read: {', '.join(kinds)}; for tables there is ArrowSource."
        raise ValueError(message(_OWNER, must, repr(place.suffix), fix))
    if not place.is_file():
        must = f"{place} must be a file"
        got = "a folder" if place.is_dir() else "no such file"
        raise FileNotFoundError(message(_OWNER, must, got, "Check the path."))
    try:
        return kinds[place.suffix](place)
    except (OSError, EOFError, LookupError, OverflowError, TypeError, zipfile.BadZipFile) as error:
        raise _damaged(place, reason(error)) from error
    except ValueError as error:
        if str(error).startswith(_OWNER):
            raise
        raise _damaged(place, error) from error


def _damaged(place: Path, got: Any) -> ValueError:
    must, fix = f"{place} must be a whole {place.suffix} file", "Write or download it again."
    return ValueError(message(_OWNER, must, str(got).rstrip("."), fix))


def _map(place: Path, dtype: Any, offset: int, shape: tuple[int, ...], order: Any = "C") -> Array:
    """Return an array in a file, which the file must hold as a whole."""
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        must, fix = f"{place} must hold numbers", "Save arrays of numbers; text must be encoded."
        raise ValueError(message(_OWNER, must, "Python objects", fix))
    size = math.prod(shape) * dtype.itemsize
    if offset + size > place.stat().st_size:
        raise ValueError(f"{place.stat().st_size} bytes where {offset + size} are needed")
    if not size:
        return np.empty(shape, dtype)
    return np.memmap(place, dtype, "r", offset, shape, order)


def _npy(place: Path, file: BinaryIO) -> Array:
    """Return the array whose `.npy` image begins here in a file."""
    version = np.lib.format.read_magic(file)
    if version > (2, 0):
        must, fix = f"{place} must hold plain arrays", "Save one array for each field."
        raise ValueError(message(_OWNER, must, f"format {version}", fix))
    read = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return _map(place, dtype, file.tell(), shape, "F" if fortran else "C")


def _of_npy(place: Path) -> Array:
    with place.open("rb") as file:
        return _npy(place, file)


def _of_npz(place: Path) -> dict[str, Array]:
    found = {}
    with zipfile.ZipFile(place) as members, place.open("rb") as file:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                must = f"arrays in {place} must be stored as they are"
                fix = "Write it by np.savez; or np.load it, and pass ArrayDataset what it holds."
                got = f"{member.filename} compressed, as np.savez_compressed does"
                raise ValueError(message(_OWNER, must, got, fix))
            # The local header repeats the name, and may have an extra field of another length.
            file.seek(member.header_offset)
            header = file.read(30)
            file.seek(int.from_bytes(header[26:28], "little"), 1)
            file.seek(int.from_bytes(header[28:30], "little"), 1)
            found[member.filename.removesuffix(".npy")] = _npy(place, file)
    return found


def _of_safetensors(place: Path) -> dict[str, Array]:
    with place.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _SAFETENSORS:
            must, fix = f"{name} in {place} must have a type of NumPy", "Save it as float32."
            raise ValueError(message(_OWNER, must, entry["dtype"], fix))
        dtype, shape = np.dtype(_SAFETENSORS[entry["dtype"]]), tuple(map(int, entry["shape"]))
        start, stop = entry["data_offsets"]
        if min((start, *shape)) < 0 or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} of shape {shape} in bytes {start} to {stop}")
        found[name] = _map(place, dtype, 8 + length + start, shape)
    return found


def is_still_there(mapped: "np.memmap[Any, Any]") -> bool:
    """Return whether a file that is mapped has the name by which it was opened: another may be in
    its place, or none.
    """
    address, path = mapped.__array_interface__["data"][0], os.path.realpath(str(mapped.filename))
    with suppress(OSError), open("/proc/self/maps", "rb") as lines:
        for line in lines:
            span, *_, name = line.rstrip(b"\n").split(maxsplit=5)
            first, last = (int(end, 16) for end in span.split(b"-"))
            if first <= address < last:
                # The kernel writes some characters otherwise.
                return b"\\" in name or name == os.fsencode(path)
    return True


class OpenFile:
    """A file that is open for reading for as long as this object is there."""

    def __init__(self, path: Any) -> None:
        self.name = str(path)
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.number)


class FileRows:
    """Rows of an array in a file, read by their numbers into memory of one's own.

    Nothing is mapped: where one byte of a map is touched, the system may map megabytes around it,
    and counts them to the process.

    Parameters
    ----------
    file
        The file, open.
    offset
        Where in it the first row begins.
    shape, dtype
        Of the array, whose rows lie one after the other.
    """

    def __init__(self, file: OpenFile, offset: int, shape: tuple[int, ...], dtype: Any) -> None:
        self._file = file
        self._offset = offset
        self._rest = shape[1:]
        self._dtype = np.dtype(dtype)
        self._size = math.prod(self._rest) * self._dtype.itemsize

    @classmethod
    def of(cls, array: Any) -> "FileRows | None":
        """Return the rows of an array that is a view of a map that is read only; None for one that
        is small, or lies otherwise.
        """
        root: Any = array
        while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
            root = root.base
        if not isinstance(root, np.memmap) or root.mode != "r" or root.filename is None:
            return None
        if not array.flags.c_contiguous or array.nbytes < _SMALL or not is_still_there(root):
            return None
        place = root.offset + array.ctypes.data - root.ctypes.data
        return cls(OpenFile(root.filename), place, array.shape, array.dtype)

    def take(self, numbers: Integers) -> Array:
        """Return rows (R, …)."""
        return self.ranges(numbers, np.ones(len(numbers), np.int64))

    def ranges(self, starts: Integers, counts: Integers) -> Array:
        """Return the rows of ranges, one after the other (Σ counts, …)."""
        found = np.empty((int(counts.sum()), *self._rest), self._dtype)
        owners = np.zeros(len(starts), np.int64)
        at = self._offset + starts * self._size
        read_ranges(found, [self._file], owners, at, counts * self._size)
        return found


def read_ranges(
    found: Array, opened: Sequence[OpenFile], owners: Integers, at: Integers, sizes: Integers
) -> None:
    """Read ranges of bytes, one after the other, into an array, neighbours by one call.

    Parameters
    ----------
    found
        As large as all ranges, row-major.
    opened, owners
        Some files, and the number among them of each range's (R,).
    at, sizes
        Where in its file each range begins, and how many bytes it has (R,).
    """
    apart = (at[1:] != at[:-1] + sizes[:-1]) | (owners[1:] != owners[:-1])
    firsts = np.concatenate(([0], np.flatnonzero(apart) + 1))
    ends = np.cumsum(np.add.reduceat(sizes, firsts)).tolist()
    bytes_of: Any = found.reshape(-1).view(np.uint8)
    whole, place = memoryview(bytes_of), 0
    for owner, begin, end in zip(owners[firsts].tolist(), at[firsts].tolist(), ends, strict=True):
        file = opened[owner]
        while place < end:
            got = os.preadv(file.number, [whole[place:end]], begin)
            if not got:
                must, fix = f"{file.name} must stay as it was", "Write it anew elsewhere."
                raise ValueError(message(_OWNER, must, f"its end at byte {begin}", fix))
            place, begin = place + got, begin + got


def file_of(array: Any) -> str | None:
    """Return the name of the file that an array is mapped from, None for another one."""
    mapped = _memmap(array)
    return None if mapped is None else str(mapped.filename)


def _memmap(array: Any) -> Any:
    """Return the map of a file that an array is a view of, if it is one of one."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and getattr(array, "_mmap", None) is not None:
            return array
        array = array.base
    return None


class Pages:
    """Lets go of what is read of files that are mapped, before it fills the memory of the process:
    the system keeps it for as long as nothing else needs the room.

    Parameters
    ----------
    maps
        The maps, of which none is written to.
    """

    def __init__(self, maps: Any) -> None:
        can = hasattr(mmap, "MADV_DONTNEED")
        self._maps = list({id(each): each for each in maps}.values()) if can else []
        self._mapped = 0

    @classmethod
    def of(cls, arrays: Iterator[Any]) -> "Pages":
        """Return those of arrays, of which some may be maps of files that are read only."""
        maps = (_memmap(array) for array in arrays)
        return cls(each._mmap for each in maps if each is not None and each.mode == "r")

    def read(self, rows: int, size: int) -> None:
        """Note that so many rows were read, which have so many bytes in all."""
        self._mapped += size + rows * _AROUND
        if self._mapped > _MAPPED:
            self.let_go()

    def let_go(self) -> None:
        """Have nothing of the files in this process's memory."""
        self._mapped = 0
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)
