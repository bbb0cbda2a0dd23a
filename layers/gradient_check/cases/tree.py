"""The cases of cells over trees: a batch of trees of all kinds, some of them smaller than the array
that holds them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.init import normal
from layers.tree.cells import TreeLSTM, TreeRNN

from .case import BATCH, Apply, Case, Generator, dense

# A node alone, a chain, full trees, children before and after their parent, gaps.
BINARY = np.array(
    [
        (-1, 0, 0, 2, 2, -2),
        (-1, -2, -2, -2, -2, -2),
        (1, -1, 3, 1, -2, 3),
        (-1, 0, 1, 2, 3, 4),
        (-2, 4, 4, 5, 5, -1),
        (-1, 0, 0, 1, 1, 2),
        (-2, 2, -1, -2, 2, 1),
    ]
)
# Nodes of up to five children.
WIDE = np.array(
    [
        (-1, 0, 0, 0, 0, 0),
        *BINARY[1:4],
        (5, 5, 5, 0, 5, -1),
        (-2, -1, 1, 1, -2, 1),
        (-1, 0, 1, 1, 1, 0),
    ]
)
FULL = np.array([(-1, 0, 0)] * BATCH)


def nodes(features: int, parents: Any) -> Callable[[Generator], tuple[Any, ...]]:
    """Draw features of all nodes from the normal distribution, for these trees."""
    return lambda rng: (rng.standard_normal((*parents.shape, features)), parents)


def cell(of: Callable[..., Layer], *sizes: int, **options: Any) -> Callable[[Generator], Layer]:
    """Return the constructor of a cell whose biases are not 0."""
    return lambda rng: of(*sizes, rng=rng, bias_init=normal(1), **options)


def _classified(cell_: Layer, classifier: Layer, x: Any, trees: Any) -> Any:
    return classifier(cell_(x, trees))


CASES = (
    Case("TreeRNN", cell(TreeRNN, 3, 5), nodes(3, BINARY)),
    Case("TreeRNN of all nodes", cell(TreeRNN, 3, 4, all_nodes=True), nodes(3, BINARY)),
    Case("TreeRNN of five children", cell(TreeRNN, 2, 3, children=5), nodes(2, WIDE)),
    Case("TreeRNN of odd sizes", cell(TreeRNN, 1, 19), nodes(1, FULL)),
    Case("TreeLSTM", cell(TreeLSTM, 3, 5), nodes(3, WIDE)),
    Case("TreeLSTM of all nodes", cell(TreeLSTM, 3, 4, all_nodes=True), nodes(3, WIDE)),
    Case("TreeLSTM of odd sizes", cell(TreeLSTM, 11, 9), nodes(11, BINARY)),
    Case("TreeLSTM of equal trees", cell(TreeLSTM, 2, 1), nodes(2, FULL)),
    Case(
        "TreeLSTM and Linear",
        lambda rng: Apply(_classified, cell(TreeLSTM, 3, 4)(rng), dense(4, 2)(rng)),
        nodes(3, BINARY),
    ),
)
