"""Rounded sums: every node of the tree over shards is rounded, to 16 bits or to 8."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from layers.checks import one_of
from layers.kernels import half
from layers.kernels import rounded_sums as kernels
from layers.types import Array, Integers

_WORDS: dict[str, Any] = {"float16": np.int16, "bfloat16": np.uint16, "int8": np.int8}


@dataclass(frozen=True)
class Rounded:
    """Round the gradient of each shard, and each sum of the tree over shards.

    Any rank can send the sums that it has in as few bits, and none depends on who made them.
    "float16" and "bfloat16" round to nearest. "int8" rounds to multiples of a power of two for each
    256 elements, the smallest by which the largest of them is 127 or less: up or down at random, by
    the step, the place and the node of the tree, so that the mean of a sum is what it would be
    without (block quantisation with stochastic rounding, as in Alistarh et al., "QSGD", 2017, and
    Dettmers, "8-bit approximations for parallelism in deep learning", 2016).

    Parameters
    ----------
    name
        "float16", "bfloat16" or "int8".
    """

    name: str

    def __post_init__(self) -> None:
        one_of("Rounded", "name", self.name, _WORDS)

    def __str__(self) -> str:
        return self.name


class RoundedSums:
    """Sums over shards whose nodes are rounded, and how they are sent.

    Parameters
    ----------
    rounded
        What they are rounded to.

    Attributes
    ----------
    step
        The step, which random rounding depends on.
    """

    def __init__(self, rounded: Rounded) -> None:
        self.step = 0
        self._words = np.zeros(1, _WORDS[rounded.name])
        self._of_8_bits = rounded.name == "int8"
        self._sum = kernels.sum_in_8_bits if self._of_8_bits else kernels.sum_in_halves

    def __call__(
        self,
        parts: Array,
        sizes: Integers,
        *,
        out: Array,
        start: int = 0,
        shard: int = 0,
        place: int = 0,
    ) -> None:
        """Write the sum of parts[:, start : start + m] (P, n) by the fixed tree: part 0 begins at a
        shard, column 0 has a place in the flat array.
        """
        self._sum(out, parts, sizes, start, self._words, shard, place, self.step)

    def practise(self) -> None:
        """Compile what a step runs, on zeros."""
        sums = np.zeros((1, 1), np.float32)
        self(sums, np.ones(1, np.int64), out=sums[0])
        sent = self.buffer(sums.shape, sums.dtype)
        self.encode(sent, sums)
        self.decode(sums, sent)

    # As a `Wire`: sums are rounded, and lose nothing.

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """See `Wire`."""
        if not self._of_8_bits:
            return np.empty(shape, self._words.dtype)
        rows, columns = (1, *shape)[-2:]
        return np.empty((rows, columns + -(-columns // kernels.BLOCK_8)), np.uint8)

    def encode(self, sent: Array, sums: Array) -> None:
        """See `Wire`."""
        if not self._of_8_bits:
            half.narrow(sent.reshape(-1), sums.reshape(-1))
            return
        for coded, row in zip(sent, sums.reshape(len(sent), -1), strict=True):
            kernels.pack_8_bits(coded[: row.size].view(np.int8), coded[row.size :], row)

    def decode(self, sums: Array, sent: Array) -> None:
        """See `Wire`."""
        if not self._of_8_bits:
            half.widen(sums.reshape(-1), sent.reshape(-1))
            return
        for coded, row in zip(sent, sums.reshape(len(sent), -1), strict=True):
            kernels.unpack_8_bits(row, coded[: row.size].view(np.int8), coded[row.size :])
