"""Columns of tables: what is inferred of them, and what their cells become."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layers.checks import one_of
from layers.errors import message
from layers.types import Array

from .cells import days_of, in_order, is_missing, name_of, number_of
from .preprocess import State
from .skipped import BadSamples, shown
from .statistics import UNIT, Statistics, statistics
from .table import Table

OWNER = "TableEncoder"
FEW = 20
"""So many different integers of a target at most are taken for classes."""
_MOST_CATEGORIES = 1000
_COMMA = re.compile(r"[-+]?\d+,\d+")
READERS: dict[str, Callable[[Any], float | None]] = {"number": number_of, "date": days_of}


@dataclass(frozen=True)
class Column:
    """A column of inputs."""

    name: str
    role: str
    statistics: Statistics = UNIT
    """Of numbers and dates, in days."""
    gaps: bool = False
    """Whether cells were missing in the training data."""
    categories: tuple[str, ...] = ()


_GAP = ""
"""The category of cells that are missing."""


def category_of(cell: Any) -> str:
    """Return the category of a cell."""
    return _GAP if is_missing(cell) else name_of(cell)


def scaled(column: Column, values: Sequence[float | None]) -> list[Array]:
    """Return the inputs (N,) that cells of numbers or dates become, standardised, and whether each
    is missing where some were in training.
    """
    mean, deviation = column.statistics
    numbers = [0.0 if value is None else (value - mean) / deviation for value in values]
    result = [np.array(numbers, np.float64).astype(np.float32)]
    if column.gaps:
        result.append(np.array([value is None for value in values], np.float32))
    return result


def inferred(table: Table, name: str, role: str | None, bad: BadSamples) -> Column:
    """Return a column with its role, inferred unless it is given, or refuse one of mixed types."""
    cells = table.columns[name]
    require_single(table, name)
    if role is not None:
        return Column(name, role)
    if all(map(is_missing, cells)):
        must, fix = f"column {shown(name)} must have cells", f'Write roles={{"{name}": "ignore"}}.'
        raise ValueError(message(OWNER, must, f"none in {table.origin}", fix))
    role, stranger = _kind_of(table, name)
    if stranger is not None and not bad.skip:
        must = f"column {shown(name)} must be of one type"
        got = f"{table.place(stranger)}: {shown(repr(cells[stranger]))} among {role}s"
        fix = f'Mend it, write roles={{"{shown(name)}": "category"}}, or skip_bad=True.'
        raise ValueError(message(OWNER, must, got, fix))
    if role == "category":
        require_points(table, name)
        kinds = {category_of(cell) for cell in cells}
        if len(kinds) > _MOST_CATEGORIES or (len(kinds) > FEW and 2 * len(kinds) > len(cells)):
            must = f"column {shown(name)} must have categories that occur again"
            got = f"{len(kinds)} different ones in {len(cells)} rows"
            fix = f'Write roles={{"{shown(name)}": "ignore"}}, or "category" if it is one.'
            raise ValueError(message(OWNER, must, got, fix))
    return Column(name, role)


def require_single(table: Table, name: str) -> None:
    """Refuse a column whose cells hold several values each."""
    for row, cell in enumerate(table.columns[name]):
        if isinstance(cell, list | tuple | dict | set):
            must = f"column {shown(name)} must have one value in every cell"
            got = f"{table.place(row)}: {shown(repr(cell))}"
            fix = f'Write roles={{"{shown(name)}": "ignore"}}, or a column for each.'
            raise ValueError(message(OWNER, must, got, fix))


def require_points(table: Table, name: str) -> None:
    """Refuse a column of texts that are numbers with commas for points."""
    there = [row for row, cell in enumerate(table.columns[name]) if not is_missing(cell)]
    cells = [str(table.columns[name][row]).strip() for row in there]
    with_commas = [row for row, cell in zip(there, cells, strict=True) if _COMMA.fullmatch(cell)]
    numbers = sum(number_of(cell) is not None for cell in cells)
    if with_commas and 2 * (len(with_commas) + numbers) > len(there):
        row = with_commas[0]
        must = f"numbers of column {shown(name)} must have a decimal point"
        got = f"{table.place(row)}: {shown(repr(table.columns[name][row]))}, with a comma"
        fix = f'Write 1.5 for 1,5; or roles={{"{shown(name)}": "category"}} if it is no number.'
        raise ValueError(message(OWNER, must, got, fix))


def _kind_of(table: Table, name: str) -> tuple[str, int | None]:
    """Return whether a column is one of numbers, dates or categories, as most of its cells are, and
    the first row that is none of them; texts that are in the majority may look like anything.
    """
    if None not in table.parsed(name, number_of):
        return "number", None
    there = [row for row, cell in enumerate(table.columns[name]) if not is_missing(cell)]
    for kind, reader in READERS.items():
        values = table.parsed(name, reader)
        others = [row for row in there if values[row] is None]
        if 2 * len(others) < len(there):
            return kind, others[0] if others else None
    return "category", None


def fitted(column: Column, table: Table, rows: Sequence[int]) -> Column:
    """Return a column with the statistics or categories of some rows."""
    if column.role == "category":
        cells = [table.columns[column.name][row] for row in rows]
        return replace(column, categories=in_order({category_of(cell) for cell in cells}))
    parsed = table.parsed(column.name, READERS[column.role])
    there = [value for row in rows if (value := parsed[row]) is not None]
    found = statistics(there) if there else UNIT
    if not math.isfinite(found.mean):
        must, fix = f"column {shown(column.name)} must have a mean", "Scale it."
        raise ValueError(message(OWNER, must, found.mean, fix))
    return replace(column, statistics=found, gaps=len(there) < len(rows))


def column_state(column: Column) -> dict[str, Any]:
    mean, deviation = column.statistics
    return {
        "name": column.name,
        "role": column.role,
        "mean": mean,
        "deviation": deviation,
        "gaps": column.gaps,
        "categories": [*column.categories],
    }


def column_of(state: State) -> Column:
    role = one_of(OWNER, "role", state.text("role"), ("number", "date", "category"))
    scale = Statistics(state.number("mean"), state.number("deviation"))
    categories = tuple(state.texts("categories"))
    return Column(state.text("name"), role, scale, state.flag("gaps"), categories)
