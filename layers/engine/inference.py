"""The call of a layer outside any tape."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layers.types import Array

from .memory import matrix


class Inference:
    """The call of a layer outside any tape: nothing is kept, buffers are new arrays, training is
    off.
    """

    training = False

    def save(self, *arrays: Any) -> None:
        """Keep nothing."""

    def buffer(self, name: str, shape: Sequence[int], dtype: Any) -> Array:
        """Return a new array."""
        return np.empty(shape, dtype)

    def matrix_buffer(self, name: str, shape: Sequence[int], dtype: Any) -> tuple[Array, Array]:
        """Return a new array (…, D), and the same memory as rows (R, D)."""
        array = self.buffer(name, shape, dtype)
        return array, matrix(array)

    def scratch(self, dtype: Any, *shapes: int | tuple[int, ...]) -> list[Array]:
        """Return new arrays of so many elements, or shapes."""
        return [np.empty(shape, dtype) for shape in shapes]

    def report(self, sums: Array, divisor: float | None = None) -> None:
        """Keep nothing."""

    def bounds(self, rows: int) -> Array:
        """Return the row bounds of the one shard."""
        return np.array((0, rows), np.int64)

    def samples(self, rows: int) -> int:
        """Return the number of samples that a loss is divided by."""
        return rows

    def gather(self, numbers: Array) -> Array:
        """Return the numbers of the one shard."""
        return numbers


INFERENCE: Any = Inference()
