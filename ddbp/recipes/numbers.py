"""What recipes for numbers share: errors of standardised targets, told in the units of the data."""

import math
from collections.abc import Mapping
from functools import partial

from ddbp.training.metrics import (
    Metric,
    Values,
    mean_absolute_error,
    mean_squared_error,
    per_sample,
)
from layers.types import Array


def _moment(power: int, prediction: Array, target: Array, weights: Array | None = None) -> Values:
    """Return a power of the target."""
    return per_sample("evaluate", target**power, weights)


STANDARDISED: Mapping[str, Metric] = {
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
    "mean": partial(_moment, 1),
    "square": partial(_moment, 2),
}
"""What is measured of standardised targets."""


def in_units(deviation: float, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return errors in the units of a target of this standard deviation, in place of those of
    standardised ones.
    """
    others = {name: each for name, each in metrics.items() if name not in STANDARDISED}
    variance = metrics["square"] - metrics["mean"] * metrics["mean"]
    return {
        **others,
        "mean_absolute_error": deviation * metrics["mae"],
        "root_mean_square_error": deviation * math.sqrt(metrics["mse"]),
        "r2": 1 - metrics["mse"] / variance if variance > 0 else math.nan,
    }
