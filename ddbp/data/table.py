"""Tables: columns of a CSV or Parquet file, or of another library's table, with the place of each
row.
"""

import copy
import csv
import io
import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layers.checks import boolean
from layers.errors import message, noting

from .cells import plain_cell
from .encodings import mend_of, undecoded
from .idx import opened
from .paths import existing_file
from .skipped import BadSamples, Skipped, listed, shown

_OWNER = "read_table"
_DELIMITERS = ",\t;|"
_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls a column of an index that has no name."""
_ROWS = "every row must have as many cells as the first line has names"


class Table:
    """Columns of equal length by their names, as Python's values, and where each row stands.

    Parameters
    ----------
    columns
        Lists of cells: texts, numbers, booleans, dates, None where a cell is missing.

    Attributes
    ----------
    skipped
        Rows of its file that have been left out.

    Raises
    ------
    ValueError
        There are no columns or no rows, or columns differ in length.
    """

    skipped: Sequence[Skipped] = ()
    origin = "the table"
    """What it has been read from, for messages."""
    lines: Sequence[int] | None = None
    """The line of each row in that, if it is a text."""
    rows: Sequence[int] | None = None
    """The row of each row in that, if these are some of its rows."""
    index: Mapping[str, list[Any]] = {}
    """Columns that pandas has written as the index of its rows, which are no data unless named."""

    def __init__(self, columns: Any) -> None:
        owner = "Table"
        if not isinstance(columns, Mapping) or not all(isinstance(name, str) for name in columns):
            must, fix = "columns must be lists by names", 'Write {"age": [31, 47]}.'
            raise TypeError(message(owner, must, shown(repr(columns)), fix))
        for name, cells in columns.items():
            if isinstance(cells, str | bytes) or not isinstance(cells, Iterable):
                must, fix = f"column {shown(name)} must be a list", 'Write {"age": [31, 47]}.'
                raise TypeError(message(owner, must, shown(repr(cells)), fix))
        self.columns = {name: _plain(cells) for name, cells in columns.items()}
        lengths = {name: len(cells) for name, cells in self.columns.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            must, fix = "there must be columns of one length, of one row or more", "Check the file."
            raise ValueError(message(owner, must, shown(lengths), fix))
        self._parsed: dict[tuple[str, Any], list[float | None]] = {}

    @classmethod
    def of(cls, given: Any) -> "Table":
        """Return a table of one of pandas, polars or pyarrow, of columns by their names, or of a
        file.
        """
        if isinstance(given, Table):
            return given
        if isinstance(given, str | Path):
            return read_table(given)
        kind = f"{type(given).__module__.partition('.')[0]}.{type(given).__name__}"
        if kind == "pandas.DataFrame":
            named = zip(_different(given.columns), given.columns, strict=True)
            return cls({name: given[column].tolist() for name, column in named})
        if kind == "polars.DataFrame":
            return _apart({name: given[name].to_list() for name in given.columns})
        if kind == "pyarrow.Table":
            _different(given.column_names)
            return _apart(given.to_pydict(), _index_of(given.schema.pandas_metadata))
        if isinstance(given, Mapping):
            return cls(given)
        must = "a table must be a DataFrame, a pyarrow.Table, columns by name, or a path"
        raise TypeError(message("Table", must, shown(repr(given)), "Use ddbp.data.read_table."))

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __repr__(self) -> str:
        return f"Table({len(self)} rows of {listed([*self.columns])})"

    def parsed(self, name: str, reader: Callable[[Any], float | None]) -> Sequence[float | None]:
        """Return what a function makes of each cell of a column, asked once for each."""
        if (name, reader) not in self._parsed:
            self._parsed[name, reader] = [*map(reader, self.columns[name])]
        return self._parsed[name, reader]

    def including(self, names: Iterable[str]) -> "Table":
        """Return the table with those columns of its index that are among some names."""
        wanted = {name: self.index[name] for name in names if name and name in self.index}
        if not wanted:
            return self
        table = copy.copy(self)
        table.columns = {**wanted, **self.columns}
        table.index = {name: each for name, each in self.index.items() if name not in wanted}
        return table

    def place(self, row: int) -> str:
        """Return where a row stands, in words."""
        where = f"row {row if self.rows is None else self.rows[row]}"
        if self.lines is not None:
            where = f"line {self.lines[row]}"
        return f"{self.origin}, {where}"

    def subset(self, numbers: Iterable[int]) -> "Table":
        """Return some rows, each of which keeps its place."""
        rows = [int(number) for number in numbers]
        part = Table({name: [cells[row] for row in rows] for name, cells in self.columns.items()})
        part.index = {name: [cells[row] for row in rows] for name, cells in self.index.items()}
        part.origin = self.origin
        part.rows = rows if self.rows is None else [self.rows[row] for row in rows]
        part.lines = None if self.lines is None else [self.lines[row] for row in rows]
        return part


def _different(names: Iterable[Any]) -> list[str]:
    """Return the names of columns as texts, or refuse those that are the same: of two columns one
    would be lost.
    """
    texts = [str(name) for name in names]
    if twice := [text for text, count in Counter(texts).items() if count > 1]:
        must, fix = "the names of columns must be all different", "Name every column."
        raise ValueError(message("Table", must, f"{listed(twice)} twice", fix))
    return texts


def _plain(cells: Iterable[Any]) -> list[Any]:
    """Return the cells of a column as Python's own values, None for what is missing."""
    return [plain_cell(cell) for cell in cells]


def _apart(columns: Mapping[str, Any], index: Collection[str] = ()) -> Table:
    """Return a table of columns without those of the index of pandas, by their names."""
    table = Table(columns)
    found = [name for name in table.columns if name in index or _INDEX.fullmatch(name)]
    if len(found) < len(table.columns):
        table.index = {name: table.columns.pop(name) for name in found}
    return table


def _index_of(metadata: Mapping[str, Any] | None) -> list[str]:
    """Return the columns of the index that pandas has written, by what it says of a table."""
    found = (metadata or {}).get("index_columns", ())
    return [name for name in found if isinstance(name, str)]


def read_table(
    path: str | os.PathLike[str], *, delimiter: str | None = None, skip_bad: bool = False
) -> Table:
    """Return the columns of a CSV or Parquet file.

    A CSV file has names in its first line, whatever `skip_bad`; it may be compressed by gzip. A
    first column without a name is the index that pandas writes, and left out. The file is read by
    Python's own reader, whose numbers are the nearest ones, whatever is installed. Parquet is read
    by pyarrow, polars or pandas, whichever is there; columns of the index of pandas are in `index`.

    Parameters
    ----------
    path
        The file; Parquet is known by its first bytes.
    delimiter
        What stands between the cells of a line; the one of , ; | and tabulator that the first line
        has most of, unless given.
    skip_bad
        Whether lines that are no rows are left out, and listed in the `skipped` of the table.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A line has too few or too many cells, or is no UTF-8, and is named; or names are missing or
        not all different.
    ModuleNotFoundError
        There is nothing that reads Parquet.
    """
    file = existing_file(_OWNER, "path", path)
    bad = BadSamples(_OWNER, boolean(_OWNER, "skip_bad", skip_bad))
    with file.open("rb") as stream:
        parquet = stream.read(4) == b"PAR1"
    if parquet:
        table = noting(file, _apart, *_parquet(file))
        table.origin = str(file)
        return table
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1):
        must = "delimiter must be one character"
        raise ValueError(message(_OWNER, must, repr(delimiter)[:80], 'Write delimiter=";".'))
    with opened(file) as content:
        text = io.TextIOWrapper(content, "utf-8-sig", errors="surrogateescape", newline="")
        try:
            return _csv(text, str(file), delimiter, bad)
        except (EOFError, OSError) as error:
            must, fix = "a compressed file must be whole", "Fetch it again."
            raise ValueError(message(_OWNER, must, f"{file}: {error}", fix)) from error


class _Lines:
    """The lines of a text; those of a record can be read once more, but for its first."""

    def __init__(self, text: Iterable[str]) -> None:
        self._text = iter(text)
        self._again: deque[str] = deque()
        self._record: list[str] = []
        self._number = 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._text)
        self._record.append(line)
        return line

    def begin(self) -> int:
        """Return the number of the line in which the next record begins."""
        self._number += len(self._record)
        self._record.clear()
        return self._number

    def back(self) -> None:
        """Have the next record begin in the second line of the last one."""
        self._again.extendleft(reversed(self._record[1:]))
        del self._record[1:]


def _line_ends(cell: str) -> int:
    """Return how many lines end in a cell."""
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n")


def records(
    text: Iterable[str],
    delimiter: str,
    origin: str,
    bad: BadSamples,
    later: BadSamples | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each record of CSV with its cells; empty lines are
    none. What is wrong is told `bad`, of all records after the first `later`, if given. A quote
    that opens and is not closed as it must be costs the line in which it stands, and no other.
    """
    lines = _Lines(text)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.begin()
        if line > 1:
            bad = later or bad
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = "Put quotes around cells that hold quotes or line ends."
            bad.found("lines must be CSV", f"{origin}, line {line}", error, fix)
            lines.back()
            continue
        if not cells:
            continue
        if any(map(undecoded, cells)):
            fix = mend_of("".join(cells))
            bad.found("lines must be UTF-8", f"{origin}, line {line}", repr(cells), fix)
            continue
        yield line, cells


def _require_text(first: str, rest: io.TextIOBase, origin: str) -> None:
    """Refuse the first line of a file that is no text in UTF-8, or is empty."""
    if undecoded(first) or "\0" in first:
        must = "a table must be a CSV file in UTF-8, or a Parquet file"
        got = f"{origin}, which begins with {shown(repr(first[:40]))}"
        raise ValueError(message(_OWNER, must, got, mend_of(first + rest.read(200))))
    if not first.strip():
        must, fix = "a CSV file must have names in its first line", "Write them there."
        raise ValueError(message(_OWNER, must, f"{origin}, which begins with none", fix))


def _csv(text: io.TextIOBase, origin: str, delimiter: str | None, bad: BadSamples) -> Table:
    first = text.readline()
    _require_text(first, text, origin)
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=first.count)

    def lines() -> Iterator[str]:
        yield first
        yield from text

    # Names that cannot be read are never left out: a row of data would become the names.
    heading = BadSamples(_OWNER, skip=True)
    rows = records(lines(), delimiter, origin, heading, bad)
    names = [name.strip() for name in next(rows, (1, [""]))[1]]
    if heading.skipped:
        must, fix = "the names in the first line must be CSV in UTF-8", "Mend the first line."
        got = f"{heading.skipped[0].place}: {heading.skipped[0].reason}"
        raise ValueError(message(_OWNER, must, got, fix))
    twice = sorted({name for name in names if names.count(name) > 1 or not name})
    if twice == [""] and names.index("") == 0 and len(names) > 1 and names.count("") == 1:
        twice = []
    if twice:
        must = "the names in the first line must be all different, and none empty"
        got = f"{origin}, with {listed([repr(name) for name in twice])}"
        raise ValueError(message(_OWNER, must, got, "Name every column."))
    cells: list[list[str]] = [[] for _ in names]
    numbers: list[int] = []
    places: list[int] = []
    for line, row in rows:
        if len(row) != len(names):
            reason = f"{len(row)} cells, where there are {len(names)} names"
            if more := sum(map(_line_ends, row)):
                reason += f", up to line {line + more}"
            bad.found(_ROWS, f"{origin}, line {line}", reason, "Put quotes around commas in cells.")
            continue
        numbers.append(line)
        places.append(len(places) + len(bad.skipped))
        for column, cell in zip(cells, row, strict=True):
            column.append(cell)
    bad.require_some(len(numbers), f"a row below the names in {origin}")
    table = _apart(dict(zip(names, cells, strict=True)), [""])
    table.origin, table.lines, table.skipped = origin, numbers, tuple(bad.skipped)
    table.rows = places if bad.skipped else None
    return table


def _parquet(file: Path) -> tuple[dict[str, Sequence[Any]], list[str]]:
    """Return the columns of a Parquet file, read by whichever library is there, and the names of
    those of its index.
    """
    for read in (_by_pyarrow, _by_polars, _by_pandas):
        try:
            return read(file)
        except ImportError:
            continue
        except Exception as error:
            must, fix = "a Parquet file must be readable", "Write it anew."
            got = f"{file}: {shown(error)}"
            raise ValueError(message(_OWNER, must, got, fix)) from error
    must, fix = "pyarrow, polars or pandas must be installed", "Run: pip install 'ddbp[arrow]'."
    raise ModuleNotFoundError(message(_OWNER, f"{must} for {file}", "none", fix))


def _by_pyarrow(file: Path) -> tuple[dict[str, Sequence[Any]], list[str]]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        _different(opened.schema_arrow.names)
        return opened.read().to_pydict(), _index_of(opened.schema_arrow.pandas_metadata)


def _by_polars(file: Path) -> tuple[dict[str, Sequence[Any]], list[str]]:
    import polars

    frame = polars.read_parquet(file)
    metadata = json.loads(polars.read_parquet_metadata(file).get("pandas", "{}"))
    return {name: frame[name].to_list() for name in frame.columns}, _index_of(metadata)


def _by_pandas(file: Path) -> tuple[dict[str, Sequence[Any]], list[str]]:
    import pandas

    frame = pandas.read_parquet(file)
    named = zip(_different(frame.columns), frame.columns, strict=True)
    columns = {name: frame[column].tolist() for name, column in named}
    index: dict[str, Sequence[Any]] = {}
    if not isinstance(frame.index, pandas.RangeIndex):
        for level, name in enumerate(frame.index.names):
            key = f"__index_level_{level}__" if name is None else str(name)
            index[key] = frame.index.get_level_values(level).tolist()
    return {**columns, **index}, [*index]
