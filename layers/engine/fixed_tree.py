"""The one order in which numbers of shards are added: a fixed binary tree."""

from typing import Any

import numpy as np

from layers.kernels import reduce
from layers.types import Array, Integers

from .memory import contiguous


def tree_sum(
    parts: Array, sizes: Integers | None = None, *, out: Array | None = None, start: int = 0
) -> Array:
    """Return the sum over the first axis of parts (P, …) by the fixed tree, whoever computed them.

    Neighbours are added first, then neighbouring sums, and so on: so the bits do not depend on
    which nodes of the tree were summed beforehand, by whom, or where.

    Parameters
    ----------
    parts
        What is summed; zeros are returned if there is nothing.
    sizes
        Of how many shards each part is the sum (P,): powers of two, each a node of the tree. One
        shard each unless given.
    out, start
        Where the sum goes (m,), and the first of the columns of parts (P, n) that it is of; a new
        array and all of them unless given.
    """
    total = np.empty(parts.shape[1:], parts.dtype) if out is None else out
    if not len(parts):
        total[...] = 0
        return total
    if len(parts) == 1 and out is None:
        total[...] = parts[0]
        return total
    if sizes is None:
        sizes = np.ones(len(parts), np.int64)
    rows = contiguous(parts).reshape(len(parts), -1)
    reduce.tree_sum(total.reshape(-1), rows, sizes, start)
    return total


def number_sum(numbers: Array) -> Any:
    """Return what `tree_sum` does of numbers (S,), one at least, as a number, and sooner."""
    if len(numbers) == 1:
        return numbers.item()
    total = np.empty(1, numbers.dtype)
    reduce.number_sum(total, numbers)
    return total.item()
