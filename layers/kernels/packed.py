"""Packed arrays: moments of optimizers in 8 bits an element, with a scale for each line of them.

A packed array is (lines, 1 + elements of a line), int8, or uint8 where no element is negative: the
codes of a line, then the exponent of the largest of its elements. A line is `LINE_BYTES` of the
parameters, each of which begins at one: so no line has elements of two parameters, or of two ranks.
"""

from typing import Any

import numpy as np

from layers.types import Array

LINE_BYTES = 64
"""How many bytes of parameters are packed together, by a scale of their own. It decides bits, and
is the same on every processor.
"""
CODES = {"int8": 127, "uint8": 255}
"""The largest codes."""


def packed_shape(size: int, dtype: Any) -> tuple[int, int]:
    """Return the shape of the packed array of so many elements, of parameters of a type."""
    line = LINE_BYTES // np.dtype(dtype).itemsize
    return -(-size // line), line + 1


def line_of(array: Array) -> int:
    """Return how many elements a row of an array has: 1 of a plain one (n,)."""
    return 1 if array.ndim == 1 else array.shape[1] - 1


def elements(array: Array, start: int, stop: int) -> Array:
    """Return a view of elements [start, stop) of an array (n,), or of the lines that hold them of a
    packed one.
    """
    line = line_of(array)
    return array[start // line : -(-stop // line)]
