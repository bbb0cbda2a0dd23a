"""Partial sums: of neighbouring shards the gradients are added up by the fixed tree, and not
kept.
"""

import operator
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from layers.errors import message
from layers.kernels import reduce
from layers.types import Array, Integers

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
        self._ones: Integers = np.ones(1, np.int64)

    def ones(self, count: int) -> Integers:
        """Return so many ones, the sizes of shards that are added up."""
        if count > self._ones.size:
            self._ones = np.ones(count, np.int64)
        return self._ones[:count]

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

    @property
    def held(self) -> Array | None:
        return self.sums if self.apart is None else self.apart

    @property
    def stays(self) -> bool:
        return self.apart is None

    def added_up(self) -> Array:
        """Return the partial sums (P, \\*shape), which whoever asks must write: all that is
        contributed.
        """
        self._forget()
        self.stale = False
        return self.sums.reshape(len(self.sums), *self.shape)

    def complete(self, run: Callable[..., Any] = operator.call) -> bool:
        contributed = not self.stale
        if not contributed:
            self.sums[...] = 0
        elif self.apart is not None:
            if len(self.apart) != self._shards:
                self._refuse(len(self.apart), self._shards)
            rows = self.apart.reshape(self._shards, self.sums.shape[1])
            for total, group, size in zip(self.sums, self._groups, self._sizes, strict=True):
                run(reduce.tree_sum, total, rows[group], self._memory.ones(size), 0)
        self._forget()
        self.stale = False
        return contributed

    def _forget(self) -> None:
        """Let go of the gradients of the shards."""
        if self.apart is not None:
            self._memory.give_back(self.apart)
            self.apart = None

    def _memory_of(self, shards: int) -> Array:
        if self.apart is not None:
            if not self.stale:
                self._refuse(shards, len(self.apart))
            self._forget()
        elif not self.stale:
            must = "a gradient whose shards have been added up must not be added to"
            raise ValueError(
                message("Tape", must, "another backward pass", "Zero the gradients first.")
            )
        return self._memory.take((shards, *self.shape))
