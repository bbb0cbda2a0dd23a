"""Where shards begin and end in the rows of arrays."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from layers.errors import message
from layers.types import Integers


class ShardBounds:
    """Bounds of the shards of a batch.

    Parameters
    ----------
    given
        (0, …, samples); one shard of however many rows an array has, unless given.

    Attributes
    ----------
    count
        How many shards, S.
    rows
        How many rows the batch has; 0 unless given.
    """

    def __init__(self, given: Sequence[int] | Integers | None) -> None:
        self.given = given
        self._of_samples = None if given is None else _checked(given)
        self.count = 1 if self._of_samples is None else len(self._of_samples) - 1
        self.rows = 0 if self._of_samples is None else int(self._of_samples[-1])
        self._known: dict[int, Integers] = {}

    @cached_property
    def single(self) -> Integers:
        """The bounds of groups of one shard each (S + 1,)."""
        return np.arange(self.count + 1, dtype=np.int64)

    def of(self, rows: int) -> Integers:
        """Return the bounds (S + 1,) in an array of so many rows, a multiple of the samples."""
        bounds = self._known.get(rows)
        if bounds is None:
            bounds = self._known[rows] = self._scaled(rows)
        return bounds

    def _scaled(self, rows: int) -> Integers:
        if self._of_samples is None:
            return np.array((0, rows), np.int64)
        samples = self.rows
        if rows != samples and (samples == 0 or rows % samples):
            fix = "The first axis of the data must be the batch."
            raise ValueError(
                message(
                    "Tape",
                    f"arrays must have a multiple of the {samples} rows of the shards",
                    rows,
                    fix,
                )
            )
        return self._of_samples if rows == samples else self._of_samples * (rows // samples)


def _checked(shards: Sequence[int] | Integers) -> Integers:
    try:
        # Not from numbers that are none, or that are cut off.
        bounds = np.asarray(shards).astype(np.int64, casting="same_kind")
    except Exception as error:
        must, fix = "shards must be integers", "Two shards of a batch of 8 are (0, 4, 8)."
        raise TypeError(message("Tape", must, error, fix)) from error
    values = bounds.tolist() if bounds.ndim == 1 else []
    if len(values) < 2 or values[0] != 0 or sorted(values) != values:
        fix = "Two shards of a batch of 8 are (0, 4, 8)."
        raise ValueError(
            message("Tape", "shards must be increasing row bounds that begin with 0", values, fix)
        )
    return bounds
