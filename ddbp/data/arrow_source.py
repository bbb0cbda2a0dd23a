"""Samples in columns of Arrow and Parquet files that are larger than memory."""

import fcntl
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddbp import files, settings
from layers.errors import message, wording
from layers.types import Array, Integers

from .mapped import OpenFile, Pages, read_ranges
from .samples import Ragged
from .source import Rows, Source

_OWNER = "ArrowSource"
_AT_ONCE, _MOST_ROWS = 1 << 22, 1 << 16
"""So many bytes of a Parquet file are converted at a time, and at most so many rows."""


class ArrowSource(Source):
    """Samples in the columns of Arrow files (IPC, Feather, those of Hugging Face's `datasets`) or
    of Parquet files.

    Arrow files are mapped into memory, and of them just the rows of a batch are read. Rows of a
    Parquet file cannot be read one by one: the columns that are needed are converted to an Arrow
    file first, once on each host, some rows at a time; it is kept until the file changes.

    Parameters
    ----------
    path
        A file, or a list of such, one after the other.
    x, y, weights
        Names of columns: of one; of several, in a list, that are the features (N, F) of one array;
        or a tuple or dict of such for several arrays. A column of lists that differ in length is
        `Ragged`, one of lists of one length an array (N, L).
    cache
        The folder for what is converted, `~/.cache/ddbp/data` unless said.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    FileNotFoundError
        There is no such file.
    ValueError
        A file is damaged; there is no such column, or it is no column of numbers, or holds nulls.

    Examples
    --------
    >>> source = ddbp.data.ArrowSource("train.parquet", x=["age", "income"], y="class")
    """

    @wording(_OWNER)
    def __init__(
        self, path: Any, x: Any, y: Any = None, *, weights: Any = None, cache: Any = None
    ) -> None:
        paths = [Path(each) for each in (path if isinstance(path, list | tuple) else [path])]
        given = {"x": x, "y": y, "weights": weights}
        self._names = {name: each for name, each in given.items() if each is not None}
        columns = [*dict.fromkeys(_columns(self._names))]
        folder = settings.data_folder() if cache is None else Path(cache)
        maps: list[Any] = []
        batches: list[Any] = []
        # Of each record batch the file, and the number there of its first row.
        self._places: list[tuple[Path, int]] = []
        for place in paths:
            rows = 0
            for batch in _opened(place, columns, folder, maps):
                if batch.num_rows:
                    batches.append(batch)
                    self._places.append((place, rows))
                    rows += batch.num_rows
        if not batches:
            must, fix = "there must be one row or more", "Check the path or filter."
            raise ValueError(message(_OWNER, must, "none", fix))
        self._made_of = paths, folder
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        opened = [OpenFile(each.filename) for each in maps]
        self._columns = {}
        for name in columns:
            # Of each record batch an array or a Ragged, which lies in the file or in memory.
            parts = self._views(name, [batch.column(name) for batch in batches])
            places = [_place_of(part, maps) for part in parts]
            in_files = None not in places
            self._columns[name] = _InFiles(parts, places, opened) if in_files else _Parts(parts)
        self.lengths = dict(self._lengths_of(self._names))
        Pages(each._mmap for each in maps).let_go()

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={each!r}" for name, each in self._names.items())
        return f"ArrowSource({len(self)} rows, {parts})"

    def __reduce__(self) -> Any:
        # As ranks get it: they map the files themselves.
        (paths, folder), names = self._made_of, self._names
        make = partial(ArrowSource, weights=names.get("weights"), cache=folder)
        return make, (paths, names["x"], names.get("y"))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, numbers: Integers) -> Rows:
        places = self._places_of(numbers)
        return Rows(**{name: self._part(each, places) for name, each in self._names.items()})

    def targets(self, numbers: Integers) -> Any:
        names = self._names.get("y")
        return None if names is None else self._part(names, self._places_of(numbers))

    def where(self, name: str, number: int) -> str:
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        file, first = self._places[batch]
        return f"sample {number} (row {number - self._starts[batch] + first} of {file})"

    def _places_of(self, numbers: Integers) -> "_Places":
        batches = np.searchsorted(self._starts, numbers, side="right") - 1
        return _Places(numbers, batches, numbers - self._starts[batches])

    def _part(self, names: Any, places: "_Places") -> Any:
        """Return the samples of a column, of several as one array, or of tuples and dicts."""
        if isinstance(names, list):
            return np.stack([self._columns[name].take(places) for name in names], axis=1)
        if isinstance(names, tuple):
            return tuple(self._part(each, places) for each in names)
        if isinstance(names, Mapping):
            return {key: self._part(each, places) for key, each in names.items()}
        return self._columns[names].take(places)

    def _views(self, name: str, columns: list[Any]) -> list[Any]:
        """Return a column of record batches where it lies, or refuse one that holds other than
        numbers.
        """
        kind = _one_type(name, [column.type for column in columns])
        for batch, column in enumerate(columns):
            self._require_values(name, batch, column)
        if not _is_list(kind):
            return [_array(column) for column in columns]
        each = [column.value_lengths().to_numpy(zero_copy_only=False) for column in columns]
        lengths = np.concatenate(each)
        if not lengths.all():
            must, fix = f"lists of column {name!r} must not be empty", "Leave such rows out."
            got = self.where(name, int(np.argmin(lengths)))
            raise ValueError(message(_OWNER, must, got, fix))
        pairs = [(_array(column.flatten()), own) for column, own in zip(columns, each, strict=True)]
        if (lengths == lengths[0]).all():
            return [array.reshape(len(own), -1, *array.shape[1:]) for array, own in pairs]
        return [Ragged.unchecked(array, own.astype(np.int64), 0) for array, own in pairs]

    def _require_values(self, name: str, batch: int, column: Any) -> None:
        """Refuse nulls, and those in lists, by the first row that has one."""
        inner, ends = column, list[Any]()
        while not inner.null_count:
            if _is_list(inner.type):
                ends.append(np.cumsum(inner.value_lengths().to_numpy(zero_copy_only=False)))
            elif _pyarrow().types.is_fixed_size_list(inner.type):
                ends.append(inner.type.list_size * np.arange(1, len(inner) + 1))
            else:
                return
            inner = inner.flatten()
        row = int(np.argmax(inner.is_null().to_numpy(zero_copy_only=False)))
        for end in reversed(ends):
            row = int(np.searchsorted(end, row, side="right"))
        must, fix = f"column {name!r} must hold a value in every row", "Fill or drop such rows."
        got = f"a null in {self.where(name, int(self._starts[batch]) + row)}"
        raise ValueError(message(_OWNER, must, got, fix))

    def _lengths_of(self, names: Any, where: str = "") -> Iterator[tuple[str, Integers]]:
        """Yield the lengths of what is ragged by the names of parts."""
        if isinstance(names, tuple):
            for number, each in enumerate(names):
                yield from self._lengths_of(each, f"{where}[{number}]")
        elif isinstance(names, Mapping):
            for key, each in names.items():
                yield from self._lengths_of(each, f"{where}[{key!r}]" if where else key)
        elif isinstance(names, list):
            for each in names:
                one = self._columns[each]
                if one.lengths is not None or one.rest:
                    must, fix = f"{where} must be of numbers", "Name a column of lists by itself."
                    raise ValueError(message(_OWNER, must, f"the lists of {each!r}", fix))
        elif (lengths := self._columns[names].lengths) is not None:
            yield where, lengths


class _Places(NamedTuple):
    """Rows by their numbers in all, their record batches, and their numbers in these, (R,) each."""

    numbers: Integers
    batches: Integers
    within: Integers


class _Parts:
    """A column, as an array or a Ragged for each record batch.

    Attributes
    ----------
    rest
        The shape of a row, or of a step of a list.
    lengths
        Those of all lists (N,), where they differ.
    """

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts
        self.lengths: Integers | None = None
        if isinstance(parts[0], Ragged):
            self.lengths = np.concatenate([part.lengths for part in parts])
        values = [part.values if isinstance(part, Ragged) else part for part in parts]
        self.rest: tuple[int, ...] = values[0].shape[1:]

    def take(self, places: _Places) -> Any:
        """Return rows, batch by batch of those that hold them."""
        order = np.argsort(places.batches, kind="stable")
        back = np.argsort(order, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(places.batches[order])) + 1)
        found = [self._parts[places.batches[g[0]]][places.within[g]] for g in groups]
        values = np.concatenate([getattr(part, "values", part) for part in found])
        if self.lengths is None:
            return values[back]
        return Ragged.unchecked(values, self.lengths[places.numbers[order]], 0)[back]


class _InFiles(_Parts):
    """A column of which every record batch lies in a file, with where: the file's number and the
    byte.
    """

    def __init__(self, parts: list[Any], places: list[Any], opened: list[OpenFile]) -> None:
        super().__init__(parts)
        self._parts = []
        self._opened = opened
        self._owners, self._offsets = np.array(places, np.int64).T
        self._dtype = parts[0].dtype
        self._size = self._dtype.itemsize * math.prod(self.rest)
        if self.lengths is not None:
            # Of each list its first step in its record batch.
            self._firsts = np.concatenate([np.cumsum(p.lengths) - p.lengths for p in parts])

    def take(self, places: _Places) -> Any:
        """Return rows, which are read one by one, but neighbours at once."""
        first, counts = places.within, np.ones(len(places.within), np.int64)
        if self.lengths is not None:
            first, counts = self._firsts[places.numbers], self.lengths[places.numbers]
        found = np.empty((int(counts.sum()), *self.rest), self._dtype)
        at = self._offsets[places.batches] + first * self._size
        owners = self._owners[places.batches]
        read_ranges(found, self._opened, owners, at, counts * self._size)
        return found if self.lengths is None else Ragged.unchecked(found, counts, 0)


def _pyarrow() -> Any:
    """Return pyarrow with what is used of it."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        must, fix = "pyarrow must be installed", "Run pip install 'ddbp[arrow]'."
        raise ImportError(message(_OWNER, must, error, fix)) from error
    return pyarrow


def _is_list(kind: Any) -> bool:
    """Return whether a column of this type holds lists whose lengths may differ."""
    types = _pyarrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind))


def _one_type(name: str, kinds: list[Any]) -> Any:
    """Return the type of a column in all record batches, or refuse it."""
    different = [*dict.fromkeys(kinds)]
    if len(different) > 1:
        must, fix = f"column {name!r} must have one type in all files", "Convert them."
        got = " and ".join(map(str, different))
        raise ValueError(message(_OWNER, must, got, fix))
    (kind,) = different
    types = _pyarrow().types
    inner = kind.value_type if _is_list(kind) else kind
    while types.is_fixed_size_list(inner):
        inner = inner.value_type
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
        must, fix = f"column {name!r} must hold numbers, or lists of them", "Encode it as numbers."
        raise TypeError(message(_OWNER, must, kind, fix))
    return kind


def _array(column: Any) -> Array:
    """Return numbers where they lie, lists of one length as further axes."""
    shape = [len(column)]
    while _pyarrow().types.is_fixed_size_list(column.type):
        shape.append(column.type.list_size)
        column = column.flatten()
    # Bits become bytes.
    copies = _pyarrow().types.is_boolean(column.type)
    return np.asarray(column.to_numpy(zero_copy_only=not copies)).reshape(shape)


def _place_of(part: Any, maps: list[Any]) -> tuple[int, int] | None:
    """Return where an array, or the values of a Ragged, lies in files: the number of its map among
    some, and the byte; None for one that lies in none.
    """
    array = part.values if isinstance(part, Ragged) else part
    for number, mapped in enumerate(maps):
        place = array.ctypes.data - mapped.ctypes.data
        if place >= 0 and place + array.nbytes <= mapped.nbytes and array.flags.c_contiguous:
            return number, place
    return None


def _columns(names: Any) -> Iterator[str]:
    """Yield the names of the columns that are asked for."""
    if isinstance(names, str):
        yield names
    elif isinstance(names, list | tuple) and names:
        for each in names:
            yield from _columns(each)
    elif isinstance(names, Mapping) and names:
        for each in names.values():
            yield from _columns(each)
    else:
        fix = "Write x='image', or x=['age', 'income'] for the features of one array."
        raise TypeError(message(_OWNER, "columns must be named by texts", repr(names), fix))


def _opened(place: Path, columns: list[str], folder: Path, maps: list[Any]) -> Iterator[Any]:
    """Yield the record batches of a file with these columns; its map is added to `maps`."""
    arrow = _pyarrow()
    if not place.is_file():
        got = "a folder" if place.is_dir() else "no such file"
        must, fix = f"{place} must be a file", "Check the path; of a folder pass its files."
        raise FileNotFoundError(message(_OWNER, must, got, fix))
    try:
        with place.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        source = _converted(place, columns, folder) if parquet else place
        if not source.stat().st_size:
            raise OSError("no byte")
        mapped = np.memmap(source, np.uint8, "r")
        reader = arrow.BufferReader(arrow.py_buffer(mapped))
        if mapped[:6].tobytes() == b"ARROW1":
            table = arrow.ipc.open_file(reader)
            batches = [table.get_batch(n) for n in range(table.num_record_batches)]
        else:
            table = arrow.ipc.open_stream(reader)
            batches = [*table]
        _require_columns(place, columns, table.schema.names)
        maps.append(mapped)
        return iter([batch.select(columns) for batch in batches])
    except (OSError, arrow.ArrowException) as error:
        must, fix = f"{place} must be a whole Arrow or Parquet file", "Write or download it again."
        raise ValueError(message(_OWNER, must, _sentence(error), fix)) from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _require_columns(place: Path, columns: list[str], names: list[str]) -> None:
    for name in columns:
        if names.count(name) != 1:
            must = f"{place} must have {'one' if name in names else 'the'} column {name!r}"
            raise ValueError(message(_OWNER, must, f"columns {', '.join(names)}", "Check x and y."))


def _converted(place: Path, columns: list[str], folder: Path) -> Path:
    """Return an Arrow file of columns of a Parquet file, by one process of this host if there is
    none yet.
    """
    arrow = _pyarrow()
    state = place.stat()
    # Sizes and times of changes can be kept by what copies a file over another.
    marks = state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino
    facts = [str(place.resolve()), *marks, columns]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
    target = folder / f"{place.stem}-{key}.arrow"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{target.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file():
            return target
        table = arrow.parquet.ParquetFile(place, buffer_size=1 << 20, pre_buffer=False)
        _require_columns(place, columns, table.schema_arrow.names)
        schema = arrow.schema([table.schema_arrow.field(name) for name in columns])
        with files.whole(target) as new, arrow.ipc.new_file(new, schema) as writer:
            known = table.metadata
            size = sum(known.row_group(n).total_byte_size for n in range(known.num_row_groups))
            rows = min(_MOST_ROWS, max(1, _AT_ONCE * known.num_rows // max(1, size)))
            for batch in table.iter_batches(rows, columns=columns, use_threads=False):
                writer.write_batch(batch.select(columns))
    return target
