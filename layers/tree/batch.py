"""Batches of trees of any shape, given by the parents of their nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layers.checks import array, positive_int, require_room
from layers.errors import message
from layers.kernels import tree_structure
from layers.kernels.tree_structure import ABSENT, ROOT
from layers.types import Integers

_FAULTS = {
    tree_structure.OUTSIDE: (
        "a parent must be a node of its tree, -1 (root) or -2 (no node)",
        "Count nodes from 0 within each tree.",
    ),
    tree_structure.PARENT_ABSENT: (
        "a node's parent must exist",
        "The parent is marked with -2, as no node.",
    ),
    tree_structure.NO_NODES: ("a tree must have a node", "Leave the tree out of the batch."),
    tree_structure.NO_ROOT: (
        "a tree must have a root: its parents form a cycle",
        "Mark the root with the parent -1.",
    ),
    tree_structure.SEVERAL_ROOTS: (
        "a tree must have one root",
        "Pass the trees of a forest apart, or join them by a common root.",
    ),
    tree_structure.CYCLE: (
        "every node must descend from the root: parents form a cycle",
        "Follow the parents of this node.",
    ),
}


class TreeBatch:
    """N trees of at most M nodes each, and the order in which they are evaluated: all nodes of a
    level at once, children first.

    Parameters
    ----------
    parents
        Integers (N, M): of each node the number of its parent in the same tree, -1 for the root, -2
        where there is no node (a smaller tree). The children of a node are ordered by their
        numbers. Nodes may stand in any order.

    Attributes
    ----------
    parents
        A copy of those given.
    starts, slots
        The R nodes of all trees are rows of matrices, those of tree n from starts[n] to starts[n +
        1]; row r is element slots[r] of the flattened (N, M).
    roots
        The row of each root (N,).
    child_starts, children
        The children of row r are children[child_starts[r] : child_starts[r + 1]].
    order, level_starts
        The rows by level, 0 for leaves, or one more than the highest level among the children.
    inner, inner_starts
        The rows that have children, and where those of each tree begin (N + 1,).
    widest, most_edges
        The most rows, and the most children, of any level above the leaves.

    Raises
    ------
    ValueError
        A tree has no node, no root or several, or a cycle, or a parent is no node of its tree: tree
        and node are named.
    TypeError
        The parents are not integers.
    """

    def __init__(self, parents: Any) -> None:
        parents = array("TreeBatch", "parents", parents)
        if parents.ndim != 2:
            fix = (
                "Pass one row per tree, filled up with -2; TreeBatch.from_nested takes nested"
                " tuples."
            )
            raise ValueError(
                message("TreeBatch", "parents must have shape (N, nodes)", parents.shape, fix)
            )
        if parents.dtype.kind not in "iu":
            raise TypeError(
                message(
                    "TreeBatch",
                    "parents must be integers",
                    parents.dtype,
                    "Convert them with .astype(int).",
                )
            )
        self.parents: Integers = np.array(parents, np.int64, order="C")
        trees, room = len(parents), parents.size + 1
        self.starts, self.inner_starts, self.roots = (
            np.empty(size, np.int64) for size in (trees + 1, trees + 1, trees)
        )
        slots, child_starts, children, order, level_starts, inner, level_of, waiting = np.empty(
            (8, room), np.int64
        )
        sizes, fault = np.zeros(1, tree_structure.SIZES), np.zeros(1, tree_structure.FAULT)
        tables = (slots, child_starts, children, order, level_starts, inner, level_of, waiting)
        tree_structure.structure(
            self.starts, self.inner_starts, self.roots, *tables, sizes, fault, self.parents
        )
        kind, tree, node = fault[0].item()
        if kind:
            must, fix = _FAULTS[kind]
            got = (
                f"tree {tree}"
                if kind in (tree_structure.NO_NODES, tree_structure.NO_ROOT)
                else f"tree {tree}, node {node}"
            )
            raise ValueError(
                message("TreeBatch", must, f"{got}, parents {_shortened(self.parents[tree])}", fix)
            )
        used = sizes[0]
        rows, levels = int(used["nodes"]), int(used["levels"])
        self.widest = int(used["widest"])
        self.most_edges = int(used["most_edges"])
        self.slots = slots[:rows]
        self.order = order[:rows]
        self.inner = inner[: used["inner"]]
        self.child_starts = child_starts[: rows + 1]
        self.children = children[: max(0, rows - trees)]
        self.level_starts = level_starts[: levels + 1]

    def __len__(self) -> int:
        return len(self.parents)

    def __repr__(self) -> str:
        return (
            f"TreeBatch({len(self)} trees, {len(self.slots)} nodes, {len(self.level_starts) - 1}"
            " levels)"
        )

    @property
    def most_children(self) -> int:
        """The most children of any node."""
        return int(np.diff(self.child_starts).max(initial=0))

    @classmethod
    def from_nested(
        cls, trees: Sequence[Any], nodes: int | None = None
    ) -> tuple["TreeBatch", Integers]:
        """Return the batch and the tokens (N, nodes) of trees that are written as nested tuples.

        A tree is the token of its root, an integer, or a tuple of that token and the subtrees: (7,
        1, (8, 2)) is 7 with the children 1 and 8, and 2 is the child of 8. Nodes are numbered from
        the root, a subtree at a time; where there is no node the token is 0. `nodes` is the M of
        the batch, the size of the largest tree unless given.
        """
        if not isinstance(trees, list | tuple):
            fix = "Pass a list of trees: from_nested([(7, 1, (8, 2))])."
            must = "trees must be a list"
            raise TypeError(message("TreeBatch.from_nested", must, type(trees).__name__, fix))
        parents: list[list[int]] = []
        tokens: list[list[int]] = []
        for number, tree in enumerate(trees):
            parents.append([])
            tokens.append([])
            # Deep trees would exhaust Python's stack, so there is one here.
            left = [(tree, ROOT)]
            while left:
                node, parent = left.pop()
                token, *subtrees = node if isinstance(node, tuple) and node else (node,)
                if not isinstance(token, int | np.integer) or isinstance(token, bool):
                    fix = "A node is an integer, or a tuple (token, subtree, subtree, …)."
                    raise TypeError(
                        message(
                            "TreeBatch.from_nested",
                            f"tokens of tree {number} must be integers",
                            repr(token),
                            fix,
                        )
                    )
                here = len(parents[-1])
                parents[-1].append(parent)
                tokens[-1].append(int(token))
                left += [(subtree, here) for subtree in reversed(subtrees)]
        largest = max(map(len, parents), default=0)
        fix = "Leave it out for the largest tree."
        room = (
            largest if nodes is None else positive_int("TreeBatch.from_nested", "nodes", nodes, fix)
        )
        require_room("TreeBatch.from_nested", (len(trees), room), 16)
        if largest > room:
            raise ValueError(
                message(
                    "TreeBatch.from_nested",
                    f"trees must have at most {room} nodes",
                    largest,
                    "Pass a larger nodes.",
                )
            )
        padded = np.full((len(trees), room), ABSENT, np.int64)
        known = np.zeros((len(trees), room), np.int64)
        for i, (row, values) in enumerate(zip(parents, tokens, strict=True)):
            padded[i, : len(row)], known[i, : len(row)] = row, values
        return cls(padded), known


def _shortened(row: Integers) -> str:
    """Return a row of parents as text of sensible length."""
    return str(row.tolist() if len(row) <= 16 else [*row[:16].tolist(), "…"]).replace("'", "")
