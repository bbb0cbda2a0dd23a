"""Partial sums: of neighbouring shards the gradients are added up by the fixed tree, and not
kept.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Array

from .fixed_tree import tree_sum
from .gradients import Gradients
from .memory import room


class ShardMemory:
    """Memory for gradients of shards, used again from parameter to parameter.

    Parameters
    ----------
    dtype
        The type of the gradients.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._free: list[Array] = []

    def take(self, shape: tuple[int, ...]) -> Array:
        """Return an uninitialised array, in the smallest free memory that has room for it."""
        size = int(np.prod(shape)) * self.dtype.itemsize
        fitting = [memory for memory in self._free if memory.size >= size]
        memory = min(fitting or self._free, key=len, default=None)
        if memory is not None:
            # By identity: arrays compare element by element.
            self._free = [free for free in self._free if free is not memory]
        if not fitting:
            # The smallest one was too small, and is given up.
            memory = room(size)
        assert memory is not None
        result: Array = memory[:size].view(self.dtype).reshape(shape)
        return result

    def give_back(self, array: Array) -> None:
        """Take back an array that nobody uses any more."""
        memory: Any = array.base
        self._free.append(memory)


class PartialSums(Gradients):
    """The gradients of a parameter's shards, of which only partial sums stay once they are final.

    Parameters
    ----------
    shape, dtype
        Those of the parameter.
    sums
        Where the partial sums go, (P, m) for m elements of the parameter.
    sizes
        Of how many shards each is the sum: powers of two, each a node of the tree.
    memory
        Where the gradients of the shards lie until they are added up.

    Attributes
    ----------
    sums
        As given.
    """

    __slots__ = ("_groups", "_memory", "_shards", "_sizes", "sums")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        sums: Array,
        sizes: Sequence[int],
        memory: ShardMemory,
    ) -> None:
        super().__init__(shape, dtype)
        self.sums = sums
        self._sizes = np.array(sizes, np.int64)
        self._memory = memory
        self._shards = sum(sizes)
        self._groups = [slice(*pair) for pair in pairwise(accumulate(sizes, initial=0))]

    def total(self) -> Array:
        if self.stale or self.apart is not None:
            return super().total()
        return tree_sum(self.sums, self._sizes).reshape(self.shape)

    def complete(self) -> bool:
        contributed = not self.stale
        if not contributed:
            self.sums[...] = 0
        elif self.apart is not None:
            rows = self.apart.reshape(self._shards, self.sums.shape[1])
            for total, group in zip(self.sums, self._groups, strict=True):
                tree_sum(rows[group], out=total)
            self._memory.give_back(self.apart)
        self.apart = None
        self.stale = False
        return contributed

    def _memory_of(self, shards: int) -> Array:
        if shards != self._shards:
            self._refuse(shards, self._shards)
        if not self.stale:
            must = "a gradient whose shards have been added up must not be added to"
            raise ValueError(
                message("Tape", must, "another backward pass", "Zero the gradients first.")
            )
        return self._memory.take((shards, *self.shape))
