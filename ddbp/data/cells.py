"""Cells of tables: what they are."""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
"""Cells with these texts, in small or capital letters, are missing."""

_EPOCH, _DAY = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=1)


def is_missing(cell: Any) -> bool:
    """Return whether there is nothing in a cell."""
    return cell is None or (cell.__class__ is str and cell.strip().lower() in MISSING)


def number_of(cell: Any) -> float | None:
    """Return the finite number that a cell is, None if it is none."""
    if isinstance(cell, bool):
        return float(cell)
    if isinstance(cell, str) and (not cell.isascii() or "_" in cell):
        return None
    if isinstance(cell, date):
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def days_of(cell: Any) -> float | None:
    """Return the days from the beginning of 1970 to a date or time in ISO 8601, None if it is none;
    one without a zone is of UTC.
    """
    try:
        if isinstance(cell, str):
            cell = datetime.fromisoformat(cell.strip())
        if not isinstance(cell, datetime):
            if not isinstance(cell, date):
                return None
            cell = datetime(cell.year, cell.month, cell.day)
        if cell.tzinfo is None:
            cell = cell.replace(tzinfo=UTC)
        return float((cell - _EPOCH) / _DAY)
    except (OverflowError, ValueError, TypeError):
        return None


def name_of(cell: Any) -> str:
    """Return the name of the category that a cell is: 3, 3.0 and "3" are one."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def in_order(names: set[str]) -> tuple[str, ...]:
    """Return names in their order: that of numbers if they all are, of code points if not."""
    numbers = {name: number_of(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name] or 0.0, name)))
    return tuple(sorted(names))
