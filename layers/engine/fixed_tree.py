"""Sums over shards, in one fixed binary tree."""

import numpy as np

from layers.kernels import reduce
from layers.types import Array, Integers


def tree_total(parts: Array, sizes: Integers) -> Array:
    """Return the sum of gradients (P, …), each that of so many neighbouring shards, by the fixed
    tree.
    """
    total: Array = np.empty_like(parts[0])
    reduce.tree_sum(total.reshape(-1), parts.reshape(len(parts), total.size), sizes, 0)
    return total
