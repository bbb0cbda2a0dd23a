"""Which pixels lie under each window of an image: the tables that the kernels of pooling go by."""

from typing import NamedTuple

import numpy as np

from .kernels.pool import APART, OVERLAPPING, TILING
from .types import Integers


class Windows(NamedTuple):
    """The windows of an image: each row of windows with each column of them.

    Attributes
    ----------
    rows, columns
        (Ho, 3) and (Wo, 3): the first pixel, how many there are, and what a mean divides by.
    cover
        How the windows cover the image: `TILING`, `APART` or `OVERLAPPING`.
    """

    rows: Integers
    columns: Integers
    cover: int


def windows(height: int, width: int, rows: Integers, columns: Integers) -> Windows:
    """Return the windows of an image of a size, given their tables."""
    return Windows(rows, columns, max(_cover(rows, height), _cover(columns, width)))


def sliding(
    length: int, size: int, stride: int, padding: int, ceil: bool, count_padding: bool
) -> Integers:
    """Return the table of windows that slide along an axis; empty if none fits.

    With `ceil`, one more may begin inside the axis (or the padding before it) and end beyond the
    padding after it, where nothing is counted.
    """
    free = length + 2 * padding - size
    count = -(-free // stride) + 1 if ceil else free // stride + 1
    if ceil and (count - 1) * stride >= length + padding:
        count -= 1
    starts = np.arange(max(count, 0) if free >= 0 or ceil else 0) * stride - padding
    stops = np.minimum(starts + size, length)
    inside = np.maximum(starts, 0)
    counted = np.minimum(starts + size, length + padding) - starts
    sizes = stops - inside
    return np.stack([inside, sizes, counted if count_padding else sizes], axis=1)


def adaptive(length: int, count: int) -> Integers:
    """Return the table of so many windows that share an axis as evenly as can be: number i has the
    pixels from ⌊i length / count⌋ to ⌈(i + 1) length / count⌉.
    """
    numbers = np.arange(count)
    starts = numbers * length // count
    sizes = -(-(numbers + 1) * length // count) - starts
    return np.stack([starts, sizes, sizes], axis=1)


def _cover(table: Integers, length: int) -> int:
    starts, stops = table[:, 0], table[:, 0] + table[:, 1]
    if (starts[1:] < stops[:-1]).any():
        return OVERLAPPING
    ends = ([0, *stops.tolist()], [*starts.tolist(), length])
    return TILING if ends[0] == ends[1] else APART
