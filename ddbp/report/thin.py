"""Large arrays made small enough for a page: fewer points, fewer digits, bytes as text."""

import base64
import math
from typing import Any

import numpy as np

from layers.types import Array, Integers

MOST_POINTS = 1200
"""Points of a curve: more than there are pixels for."""

MISSING = 65535
"""The code of a cell without a number."""
_ZERO = 65534
"""The code of a cell whose number has no logarithm."""
_CODES = 65533


def curve(
    x: Array, y: Array, low: Array | None = None, high: Array | None = None
) -> dict[str, Any]:
    """Return the points (n,) of a curve as lists of short numbers; of more than `MOST_POINTS` the
    means of neighbours, with the least and greatest of them as "low" and "high".
    """
    low, high = (y if each is None else each for each in (low, high))
    if len(x) > MOST_POINTS:
        edges = np.linspace(0, len(x), MOST_POINTS + 1).astype(np.int64)
        starts, counts = edges[:-1], np.diff(edges)
        with np.errstate(all="ignore"):
            x = x[edges[1:] - 1]
            y = np.add.reduceat(y, starts) / counts
            low, high = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    result = {"x": shortened(x), "y": shortened(y)}
    if not (np.array_equal(low, y, equal_nan=True) and np.array_equal(high, y, equal_nan=True)):
        result |= {"low": shortened(low), "high": shortened(high)}
    return result


def points(x: Array, y: Array) -> dict[str, Any]:
    """Return points (n,) of a cloud as lists of short numbers: each is what it is, and of more than
    `MOST_POINTS` some are left out.
    """
    places = chosen(len(x), MOST_POINTS)
    return {"x": shortened(x[places]), "y": shortened(y[places])}


def shortened(values: Array) -> list[float | int | None]:
    """Return numbers (n,) with five digits, None for what is not finite."""
    return [short(value) for value in np.asarray(values, np.float64).tolist()]


def short(value: float) -> float | int | None:
    """Return a number with five digits, integers whole, None for what is not finite."""
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.5g}")


def chosen(count: int, most: int) -> Integers:
    """Return which of so many things are shown where there is room for some: the first, the last
    and others at equal distances.
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def coded(values: Array, *, log: bool, bounds: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return numbers as 16-bit codes between bounds, the least and the greatest unless given, by
    their logarithms if they are shown by these: {"cells": base64, "low", "high", "log"}.
    """
    values = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        levels = np.log10(values) if log else values
    known = np.isfinite(levels)
    low, high = bounds or (0.0, 0.0)
    if bounds is None and known.any():
        low, high = levels[known].min(), levels[known].max()
    span = high - low if high > low else 1.0
    codes = np.full(values.shape, MISSING, "<u2")
    if log:
        codes[values == 0] = _ZERO
    codes[known] = np.round(np.clip((levels[known] - low) / span, 0, 1) * _CODES)
    return {"cells": packed(codes), "low": float(low), "high": float(high), "log": log}


def packed(array: Array) -> str:
    """Return the bytes of an array as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
