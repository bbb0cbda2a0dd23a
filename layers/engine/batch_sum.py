"""Sums over the samples of each shard, of which a value is the mean."""

import math
from typing import NamedTuple

import numpy as np

from layers.kernels import reduce
from layers.types import Array, Integers


class BatchSum(NamedTuple):
    """A sum over the samples of each local shard, of which a value is the mean.

    Attributes
    ----------
    sums
        (S, …), in float64; the value is their sum over the shards of all ranks, divided once.
    divisor
        What they are divided by, such as the sum of weights over the global batch; None for its
        samples.
    """

    sums: Array
    divisor: float | None

    def per_sample(self, samples: int) -> Array:
        """Return the sums in units of the mean over so many samples."""
        if self.divisor is None:
            return self.sums
        return self.sums * (samples / self.divisor) if self.divisor else np.zeros_like(self.sums)


def sum_rows(x: Array, axes: tuple[int, ...], bounds: Integers) -> Array:
    """Return the sums over `axes`, of which one is 0, of each shard's rows (S, …), in float64 and
    one after the other.
    """
    total = np.float64 if x.dtype.kind != "c" else np.complex128
    # A rank may have no rows.
    rows = np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))
    sums = np.empty((len(bounds) - 1, rows.shape[1]), total)
    reduce.column_sums(sums, rows, bounds, False)
    sums = sums.reshape(-1, *x.shape[1:])
    others = axes[1:]
    if not others:
        return sums
    moved = np.moveaxis(sums, others, range(len(others)))
    rest = moved.shape[len(others) :]
    terms = np.ascontiguousarray(moved).reshape(-1, int(np.prod(rest)))
    result = np.empty((1, terms.shape[1]), total)
    reduce.column_sums(result, terms, np.array((0, len(terms)), np.int64), False)
    return result.reshape(rest)
