"""Boolean expressions as trees."""

from typing import Any

import numpy as np

from ddbp import ArrayDataset
from layers import TreeBatch

FALSE, TRUE, NOT, AND, OR, XOR = range(TOKENS := 6)
TABLES = {AND: lambda a, b: a & b, OR: lambda a, b: a | b, XOR: lambda a, b: a ^ b}


def expression(rng: np.random.Generator, depth: int) -> tuple[Any, int]:
    """Return a random expression of exactly this depth, as nested tuples, and its value."""
    if depth == 0:
        value = int(rng.integers(2))
        return (TRUE if value else FALSE), value
    operator = int(rng.choice([NOT, AND, OR, XOR], p=[0.1, 0.3, 0.3, 0.3]))
    tree, value = expression(rng, depth - 1)
    if operator == NOT:
        return (NOT, tree), 1 - value
    other, second = expression(rng, int(rng.integers(depth)))
    pair = (tree, other) if rng.integers(2) else (other, tree)
    return (operator, *pair), TABLES[operator](value, second)


def expressions(rng: np.random.Generator, count: int, depths: tuple[int, int]) -> ArrayDataset:
    """Return so many expressions, half of them true, of depths drawn evenly from first to last.

    A sample is a row of an array, its nodes' tokens and their parents, (N, 2, M), with its value.
    """
    trees, values = [], []
    for number in range(count):
        depth, wanted = int(rng.integers(depths[0], depths[1] + 1)), number % 2
        tree, value = expression(rng, depth)
        while value != wanted:
            tree, value = expression(rng, depth)
        trees.append(tree)
        values.append(value)
    batch, tokens = TreeBatch.from_nested(trees)
    return ArrayDataset(np.stack((tokens, batch.parents), axis=1), np.array(values))
