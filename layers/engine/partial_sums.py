"""Partial sums: of neighbouring shards the gradients are added up by the fixed tree, and not
kept.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from layers.types import Array

from .fixed_tree import tree_sum
from .memory import room


class ShardMemory:
    """Memory for gradients of shards, used again from parameter to parameter.

    Parameters
    ----------
    dtype
        Of the gradients.
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


class PartialSums:
    """The partial sums that are kept of a parameter's shard gradients.

    Parameters
    ----------
    sums
        Where they go, (P, m) for m elements of the parameter.
    sizes
        Of how many shards each is the sum: powers of two, each a node of the tree.
    memory
        Where the gradients of the shards lie until they are added up.

    Attributes
    ----------
    sums
        As given.
    shards
        S, how many shards they are of.
    """

    def __init__(self, sums: Array, sizes: Sequence[int], memory: ShardMemory) -> None:
        self.sums, self._sizes, self._memory = sums, np.array(sizes, np.int64), memory
        self.shards = sum(sizes)
        bounds = accumulate(sizes, initial=0)
        self._groups = [
            (slice(*pair), np.ones(size, np.int64))
            for pair, size in zip(pairwise(bounds), sizes, strict=True)
        ]

    def room(self, shape: tuple[int, ...]) -> Array:
        """Return an uninitialised array for the gradients of the shards (S, \\*shape)."""
        return self._memory.take((self.shards, *shape))

    def add_up(self, gradients: Array) -> None:
        """Write the sums of the shards' gradients (S, \\*shape), whose memory is used again."""
        rows = gradients.reshape(self.shards, self.sums.shape[1])
        for total, (group, ones) in zip(self.sums, self._groups, strict=True):
            tree_sum(rows[group], ones, out=total)
        self._memory.give_back(gradients)

    def total(self) -> Array:
        """Return the sum over all shards (m,)."""
        return tree_sum(self.sums, self._sizes)
