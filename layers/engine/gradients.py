"""Where the gradients of a parameter are: one for each shard, which accumulate."""

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.errors import message
from layers.types import Array

from .fixed_tree import tree_sum

if TYPE_CHECKING:
    from .flat_parameters import FlatParameters


class Gradients:
    """The gradients of a parameter's shards. They are kept apart; `PartialSums` are not.

    `owner` is the `FlatParameters` that they belong to, if any.

    Parameters
    ----------
    shape, dtype
        Those of the parameter.
    apart
        Memory for the gradients of the shards (S, \\*shape); the first contribution allocates it
        unless given.

    Attributes
    ----------
    apart
        The gradients of the shards (S, \\*shape), or None if there is no memory for them now.
    stale
        True while they count as zero: set by zeroing, cleared by the first contribution. So
        zeroing costs nothing, and the first contribution may overwrite.
    """

    __slots__ = ("apart", "dtype", "owner", "shape", "stale")

    def __init__(self, shape: tuple[int, ...], dtype: Any, apart: Array | None = None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.apart = apart
        self.stale = True
        self.owner: FlatParameters | None = None

    def buffer(self, shards: int) -> tuple[Array, bool]:
        """Return the gradients (S, \\*shape) of so many shards and whether to add to them; if not,
        they must be overwritten.

        Raises
        ------
        ValueError
            The memory is that of another number of shards, or they have been added up.
        """
        apart = self.apart
        if apart is None or len(apart) != shards:
            apart = self.apart = self._memory_of(shards)
        stale = self.stale
        self.stale = False
        return apart, not stale

    @property
    def held(self) -> Array | None:
        """What there is in memory, a row for each shard, or for each sum of neighbouring ones."""
        return self.apart

    @property
    def stays(self) -> bool:
        """Whether what is held lies there in other steps, too."""
        return True

    def total(self) -> Array:
        """Return the sum over the shards by the fixed tree; zeros before any contribution."""
        if self.stale or self.apart is None:
            return np.zeros(self.shape, self.dtype)
        if len(self.apart) == 1:
            result: Array = self.apart[0]
            return result
        return tree_sum(self.apart)

    def complete(self, run: Callable[..., Any] = operator.call) -> bool:
        """Make them final, zeros without contributions; return whether there were any. Kernels are
        called by `run`.
        """
        if not self.stale:
            return True
        if self.apart is not None:
            self.apart[...] = 0
        self.stale = False
        return False

    def _memory_of(self, shards: int) -> Array:
        if self.apart is not None:
            self._refuse(shards, len(self.apart))
        return np.zeros((shards, *self.shape), self.dtype)

    def _refuse(self, shards: int, held: int) -> None:
        fix = f"Lay the parameters out with FlatParameters(model, shards={shards})."
        raise ValueError(
            message("Tape", f"the parameters must hold {shards} shard gradients", held, fix)
        )
