"""Cells of tables: what they are."""

import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
"""Cells with these texts, in small or capital letters, are missing."""

_EPOCH, _DAY = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=1)


_WHOLE = re.compile(r"-?(?:0|[1-9]\d*)\.0")


def plain_cell(cell: Any) -> Any:
    """Return a cell as Python's own value, None for what is missing."""
    if cell is None or cell.__class__ is str or cell.__class__ is int:
        return cell
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    axes = getattr(cell, "ndim", None)
    if axes:
        return cell.tolist()
    if axes == 0 and hasattr(cell, "item"):
        cell = cell.item()
    # NaN of any library, and pandas' NaT, differ from themselves; its NA says neither.
    try:
        return None if cell != cell else cell
    except TypeError:
        return None


def is_missing(cell: Any) -> bool:
    """Return whether there is nothing in a cell."""
    return cell is None or (cell.__class__ is str and cell.strip().lower() in MISSING)


def number_of(cell: Any) -> float | None:
    """Return the finite number that a cell is, None if it is none; booleans are none in whatever
    file they stand.
    """
    if isinstance(cell, bool):
        return None
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
    """Return the name of the category that a cell is, the same whichever file it comes from: 3,
    3.0, "3" and "3.0" are one, and so are True and "True".
    """
    if isinstance(cell, Decimal) and cell.is_finite():
        cell = int(cell) if cell == cell.to_integral_value() else f"{cell.normalize():f}"
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    text = str(cell).strip()
    if text[-2:] == ".0" and _WHOLE.fullmatch(text):
        text = str(int(text[:-2]))
    return text.lower() if text.lower() in ("true", "false") else text


def in_order(names: set[str]) -> tuple[str, ...]:
    """Return names in their order: that of numbers if they all are, of code points if not."""
    numbers = {name: number_of(name) for name in names}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(names, key=lambda name: (numbers[name] or 0.0, name)))
    return tuple(sorted(names))
