"""Means and deviations that are the same bits on every processor: sums are exact, rounded once."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class Statistics(NamedTuple):
    """A mean and a standard deviation, 1 where all values are the same."""

    mean: float
    deviation: float


UNIT = Statistics(0.0, 1.0)
"""Those of numbers that stay as they are."""


SMALL = "must be no more than float32 holds"
"""What is asked of numbers that become inputs."""
SCALE = "Mend it, or scale the column."
_MOST = 3.4028234e38


def is_too_large(value: float, scale: Statistics = UNIT) -> bool:
    """Return whether a number, or what it is once standardised, is more than float32 holds."""
    return abs(value) > _MOST or abs((value - scale.mean) / scale.deviation) > _MOST


def statistics(values: Sequence[float]) -> Statistics:
    """Return the statistics of one value or more."""
    mean = math.fsum(values) / len(values)
    if not math.isfinite(mean):
        mean = math.fsum(value / len(values) for value in values)
    square = math.fsum((value - mean) * (value - mean) for value in values) / len(values)
    return Statistics(mean, _deviation(square, mean))


def of_sums(count: int, total: int, squares: int, scale: int = 1) -> Statistics:
    """Return the statistics of integers divided by `scale`, of their number, sum and sum of
    squares.
    """
    mean = Fraction(total, count)
    square = float((Fraction(squares, count) - mean * mean) / (scale * scale))
    return Statistics(float(mean / scale), _deviation(square, float(mean / scale)))


def _deviation(square: float, mean: float) -> float:
    """Return the square root of a variance, 1 of one that is none but rounding."""
    deviation = math.sqrt(square)
    return deviation if math.isfinite(deviation) and deviation > 1e-12 * abs(mean) else 1.0
