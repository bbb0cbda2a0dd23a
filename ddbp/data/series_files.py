"""Files of time series: those of aeon and sktime, tables with a row for each time step, and folders
of CSV.
"""

import math
import os
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layers.checks import boolean
from layers.errors import message
from layers.types import Array

from .cells import in_order, is_missing, name_of, number_of
from .columns import READERS
from .paths import existing_file, existing_folder
from .series import Series
from .skipped import BadSamples, Skipped, listed, shown
from .statistics import SCALE, SMALL, is_too_large
from .table import Table, read_table, records

_KEEP = "Leave time out to keep the order."


def read_ts(path: str | os.PathLike[str], *, skip_bad: bool = False) -> Series:
    """Return the time series of a file of aeon or sktime, whose name ends with .ts.

    Parameters
    ----------
    path
        The file: lines that begin with @ say what follows, then each line is a series, its channels
        apart by colons, its values by commas, and its label last.
    skip_bad
        Whether series that are damaged, or have missing values, are left out, and listed in
        `skipped`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no such file, has time stamps, or a series is damaged, and its line named.
    """
    owner = "read_ts"
    file = existing_file(owner, "path", path)
    bad = BadSamples(owner, boolean(owner, "skip_bad", skip_bad))
    facts: dict[str, str] = {}
    found = _Collected(bad, "Write 1,2,3:4,5,6:label, with a channel between two colons.")
    with file.open(encoding="utf-8", errors="replace") as stream:
        begun = False
        for number, line in enumerate(stream, start=1):
            line = line.strip()
            if not line or line[0] in "#%":
                continue
            if not begun:
                name, _, rest = line.partition(" ")
                if name[0] != "@":
                    must = "the lines of a .ts file must begin with @ up to @data"
                    got, fix = f"{file}, line {number}: {shown(line)}", "Use read_series_table."
                    raise ValueError(message(owner, must, got, fix))
                facts[name[1:].lower()] = rest.strip()
                begun = name.lower() == "@data"
                if begun:
                    labelled = _header(file, facts)
                continue
            found.add(f"{file}, line {number}", *_case(line, labelled))
    if not begun:
        must, fix = "a .ts file must have a line @data", "Fetch it again."
        raise ValueError(message(owner, must, f"{file} without one", fix))
    known = facts.get("classlabel", "").split()[1:] if labelled == "classlabel" else None
    return found.series(known, numbers=labelled == "targetlabel", where=str(file))


def _header(file: Path, facts: dict[str, str]) -> str | None:
    """Return what the last part of a line is: "classlabel", "targetlabel" or None for values."""
    if facts.get("timestamps", "false").lower() == "true":
        must, fix = "a .ts file must have no time stamps", "Resample it at equal steps."
        raise ValueError(message("read_ts", must, f"{file}, which has them", fix))
    for name in ("classlabel", "targetlabel"):
        words = facts.get(name, "false").split()
        if words and words[0].lower() == "true":
            return name
    return None


def _case(line: str, labelled: str | None) -> tuple[list[list[str]], str | None]:
    """Return the channels and the label of a line."""
    parts = line.split(":")
    label = parts.pop().strip() if labelled else None
    return [part.split(",") for part in parts], label


class _Collected:
    """Series as they are read."""

    def __init__(self, bad: BadSamples, fix: str) -> None:
        self._bad, self._fix = bad, fix
        self.sequences: list[Array] = []
        self.labels: list[Any] = []
        self.places: list[str] = []
        self.names: tuple[str, ...] = ()

    def add(
        self,
        place: str,
        channels: Sequence[Sequence[Any]],
        label: Any,
        names: Sequence[str] = (),
    ) -> None:
        """Add a series by the cells of its channels, which are found by their names where all have
        some, or say what is wrong with it.
        """
        if names and self.names:
            if sorted(names) != sorted(self.names):
                must, fix = "series must have the same channels", "Name them alike."
                got = f"{listed(names)}, where others have {listed(self.names)}"
                self._bad.found(must, place, got, fix)
                return
            channels = [channels[names.index(name)] for name in self.names]
        values = [[number_of(cell) for cell in cells] for cells in channels]
        reason = _fault(channels, values, self.sequences)
        if reason is not None:
            must = "series must be numbers, of as many steps in every channel"
            self._bad.found(must, place, reason, self._fix)
            return
        self.names = self.names or tuple(names)
        self.sequences.append(np.array(values, np.float64).T)
        self.labels.append(label)
        self.places.append(place)

    def series(self, known: Sequence[str] | None, *, numbers: bool, where: str) -> Series:
        """Return what has been read: with labels among those that are known, or any if that is
        empty; with numbers; or without labels, if `known` is None.
        """
        good = [row for row in range(len(self.labels)) if self._is_label(row, known, numbers)]
        self._bad.require_some(len(good), f"a series in {where}")
        labels: Any = None
        classes: tuple[str, ...] = ()
        if numbers:
            labels = tuple(number_of(self.labels[row]) for row in good)
        elif known is not None:
            labels = tuple(name_of(self.labels[row]) for row in good)
            classes = tuple(known) or in_order({*labels})
            if len(classes) == 1:
                must, fix = "there must be two labels or more", "Add series of another one."
                got = f"{shown(classes[0])} alone in {where}"
                raise ValueError(message(self._bad.owner, must, got, fix))
        return Series(
            tuple(self.sequences[row] for row in good),
            labels,
            classes,
            tuple(self.places[row] for row in good),
            tuple(self._bad.skipped),
            self.names,
        )

    def _is_label(self, row: int, known: Sequence[str] | None, numbers: bool) -> bool:
        """Return whether a series has the label that it must have, or say that it has none."""
        label, place = self.labels[row], self.places[row]
        if numbers:
            value, must = number_of(label), "the target of a series must be a number of float32"
            right = value is not None and not is_too_large(value)
        elif known is None:
            return True
        elif known:
            right = name_of(label) in known
            must = f"the label of a series must be among {listed(known)}"
        else:
            right, must = not is_missing(label), "every series must have a label"
        if not right:
            self._bad.found(must, place, repr(label), "Mend it.")
        return right


def _fault(
    cells: Sequence[Sequence[Any]],
    values: Sequence[Sequence[float | None]],
    others: Sequence[Array],
) -> str | None:
    """Return what is wrong with a series, None if nothing is."""
    lengths = {len(channel) for channel in values}
    if len(lengths) != 1 or not min(lengths):
        return f"channels of {listed(sorted(lengths)) or 'no'} steps"
    if others and len(values) != others[0].shape[1]:
        return f"{len(values)} channels, where others have {others[0].shape[1]}"
    for channel, numbers in enumerate(values):
        if None in numbers:
            step = numbers.index(None)
            cell = cells[channel][step]
            what = "a missing value" if is_missing(cell) else repr(cell)
            return f"{what} at step {step} of channel {channel}"
        for step, number in enumerate(numbers):
            if number is not None and is_too_large(number):
                return f"{number} at step {step} of channel {channel}, more than float32 holds"
    return None


def read_column(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    time: str | None = None,
    skip_bad: bool = False,
) -> tuple[Array, str, tuple[Skipped, ...]]:
    """Return a column of a CSV or Parquet file (T,), the last one unless it is named, its name, and
    what of it cannot be read.

    Parameters
    ----------
    path
        The file, with a row for each time step.
    name
        The column.
    time
        The column of numbers or dates to put the rows in order by; as they come unless given.
    skip_bad
        Whether steps that cannot be read are NaN, and listed. They keep their place, so that none
        is taken for the one after the last good one.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        There is no such column, or one of its cells is no number, and is named.
    """
    owner, table = "read_column", read_table(path, skip_bad=skip_bad)
    table = table.including([each for each in (name, time) if isinstance(each, str)])
    bad = BadSamples(owner, boolean(owner, "skip_bad", skip_bad))
    if name is None:
        name = ([each for each in table.columns if each != time] or [*table.columns])[-1]
    for what, each in (("column", name), ("time", time)):
        if each not in table.columns and each is not None:
            must = f"{what} must be one of {table.origin}"
            fix = f"It has {listed([*table.columns], 20)}."
            raise ValueError(message(owner, must, shown(each), fix))
    must, fix = f"column {shown(name)} must be numbers", "Fill it in: every step needs a value."
    values = []
    for row, cell in enumerate(table.columns[name]):
        value = number_of(cell)
        if value is None:
            bad.found(must, table.place(row), repr(cell), fix)
        elif is_too_large(value):
            value = None
            bad.found(f"column {shown(name)} {SMALL}", table.place(row), repr(cell), SCALE)
        values.append(math.nan if value is None else value)
    times: Array = np.zeros(len(values))
    if time is not None:
        found = _times(table, time)
        for row, moment in enumerate(found):
            if moment is None and not math.isnan(values[row]):
                bad.found(_time_must(time), table.place(row), repr(table.columns[time][row]), _KEEP)
                values[row] = math.nan
        times = np.array([math.nan if moment is None else moment for moment in found])
    # Lines that are no rows are steps as well.
    lost = [int(each.place.rpartition(" ")[2]) for each in table.skipped]
    places = [bisect(table.lines or (), line) for line in lost]
    steps, times = (np.insert(each, places, math.nan) for each in (np.array(values), times))
    # What has no time comes after the row before it.
    known = np.maximum.accumulate(np.where(np.isnan(times), -1, np.arange(len(times))))
    order = np.argsort(np.where(known < 0, -math.inf, times[known]), kind="stable")
    return steps[order], name, (*table.skipped, *bad.skipped)


def _times(table: Table, time: str) -> Sequence[float | None]:
    """Return what the cells of a column are as numbers or as dates, whichever most of them are."""
    return min(
        (table.parsed(time, READERS[kind]) for kind in ("number", "date")),
        key=lambda values: values.count(None),
    )


def _time_must(time: str) -> str:
    return f"column {shown(time)} must be numbers, or dates as 2026-01-31"


def read_series_table(
    path: str | os.PathLike[str],
    *,
    series: str,
    label: str | None = None,
    time: str | None = None,
    values: Any = None,
    skip_bad: bool = False,
) -> Series:
    """Return the time series of a table with a row for each time step.

    Parameters
    ----------
    path
        A CSV or Parquet file.
    series
        The column that says which series a row belongs to.
    label
        The column of labels, the same in all rows of a series; numbers that are not whole are
        targets to predict.
    time
        The column of numbers or dates to put the rows of a series in order by; as they come unless
        given.
    values
        The columns of channels; all others unless given.
    skip_bad
        Whether series that are damaged are left out, and listed in `skipped`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A column is not there, or a series is damaged, and named.
    """
    owner = "read_series_table"
    table = read_table(path, skip_bad=skip_bad)
    bad = BadSamples(owner, boolean(owner, "skip_bad", skip_bad))
    bad.skipped += table.skipped
    taken = [series, *(name for name in (label, time) if name is not None)]
    given = [*taken, *(values if isinstance(values, list | tuple) else [])]
    table = table.including(name for name in given if isinstance(name, str))
    channels = [name for name in table.columns if name not in taken] if values is None else values
    named = isinstance(channels, list | tuple) and [*taken, *channels]
    if not named or not all(isinstance(name, str) for name in named):
        must = "series, label and time must be names of columns, values a list of some"
        got, fix = shown(repr((series, label, time, values))), 'Write values=["x", "y"].'
        raise TypeError(message(owner, must, got, fix))
    absent = [name for name in (*taken, *channels) if name not in table.columns]
    if absent or not channels:
        must = f"{table.origin} must have the columns {listed([*taken, *channels])}"
        got = f"no {listed(absent)}" if absent else "no column of values"
        raise ValueError(message(owner, must, got, f"It has {listed([*table.columns], 20)}."))
    rows: dict[str, list[int]] = {}
    for row, cell in enumerate(table.columns[series]):
        if is_missing(cell):
            must = f"column {shown(series)} must say which series a row is of"
            bad.found(must, table.place(row), "it is missing", "Fill it in.")
            continue
        rows.setdefault(name_of(cell), []).append(row)
    found = _Collected(bad, "Mend its rows.")
    times = () if time is None else _times(table, time)
    for name, mine in rows.items():
        place = f"{table.origin}, series {name}, from {table.place(mine[0]).rpartition(', ')[2]}"
        if time is not None:
            wrong = next((row for row in mine if times[row] is None), None)
            if wrong is not None:
                got = f"{table.place(wrong).rpartition(', ')[2]}: {table.columns[time][wrong]!r}"
                bad.found(_time_must(time), place, got, _KEEP)
                continue
            mine = sorted(mine, key=lambda row: (times[row] or 0.0, row))
        labels = {name_of(table.columns[label][row]) for row in mine} if label else {""}
        if len(labels) > 1:
            must = "a series must have one label"
            bad.found(must, place, listed(sorted(labels)), "Give its rows the same.")
            continue
        cells = [[table.columns[each][row] for row in mine] for each in channels]
        found.add(place, cells, labels.pop(), channels)
    numbers = label is not None and _are_numbers(found.labels)
    known = None if label is None else ()
    return found.series(known, numbers=numbers, where=table.origin)


def _are_numbers(labels: Sequence[Any]) -> bool:
    """Return whether labels are numbers to predict, not all of them whole."""
    numbers = [number_of(label) for label in labels]
    return None not in numbers and not all(math.floor(n) == n for n in numbers if n is not None)


def read_series_folder(path: str | os.PathLike[str], *, skip_bad: bool = False) -> Series:
    """Return the time series of a folder with a sub-folder for each class, each file of which is a
    series: CSV with a line for each time step and a column for each channel, with names in its
    first line or not.

    Parameters
    ----------
    path
        The folder.
    skip_bad
        Whether files that cannot be read are left out, and listed in `skipped`.

    Raises
    ------
    NotADirectoryError
        There is no such folder.
    ValueError
        There are fewer than two sub-folders, or one without files, or a file is damaged, and named.
    """
    owner = "read_series_folder"
    folder = existing_folder(owner, "path", path)
    bad = BadSamples(owner, boolean(owner, "skip_bad", skip_bad))
    folders = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    if len(folders) < 2:
        must = "a folder of series must have a sub-folder for each of two classes or more"
        got = f"{folder}, which has {len(folders)}"
        raise ValueError(message(owner, must, got, "Move files to walking/, and to running/."))
    found = _Collected(bad, "Mend or remove the file.")
    for each in folders:
        files = sorted(file for file in each.rglob("*.csv") if file.is_file())
        if not files:
            must, fix = "every sub-folder must have .csv files", "Remove it, or put files there."
            raise ValueError(message(owner, must, f"{each}, which has none", fix))
        for file in files:
            lines = _lines(file, bad)
            if lines is not None:
                names, channels = lines
                found.add(str(file), channels, each.name, names)
    return found.series([each.name for each in folders], numbers=False, where=str(folder))


def _lines(file: Path, bad: BadSamples) -> tuple[list[str], list[list[str]]] | None:
    """Return the names of the channels of a file, if it has any that are different, and the
    channels; None where it is left out.
    """
    before = len(bad.skipped)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        rows = [cells for _, cells in records(stream, ",", str(file), bad)]
    if len(bad.skipped) > before:
        return None
    names: list[str] = []
    if rows and all(number_of(cell) is None for cell in rows[0]):
        names = [cell.strip() for cell in rows[0]]
        rows = rows[1:]
        if len({*names}) < len(names) or any(map(is_missing, names)):
            names = []
    if len({len(row) for row in rows}) > 1:
        must = "every line of a series must have as many cells"
        bad.found(
            must, str(file), f"{listed(sorted({len(row) for row in rows}))} cells", "Mend it."
        )
        return None
    channels = [[*column] for column in zip(*rows, strict=True)]
    return (names if len(names) == len(channels) else []), channels
