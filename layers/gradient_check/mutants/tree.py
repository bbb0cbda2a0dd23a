"""The mistakes in cells over trees."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from layers.engine.layer import Layer
from layers.engine.parameter import Parameter
from layers.gradient_check.cases.case import Generator
from layers.gradient_check.cases.tree import BINARY, WIDE, cell, nodes
from layers.tree.batch import TreeBatch
from layers.tree.cells import TreeLSTM, TreeRNN
from layers.types import Array, Integers

from .mutant import Gradients, Mutant


def _changed(trees: TreeBatch, **tables: Integers) -> TreeBatch:
    result = copy.copy(trees)
    for name, table in tables.items():
        setattr(result, name, np.array(table))
    return result


def _levels_from_below(trees: TreeBatch) -> TreeBatch:
    """Return the trees with their levels the other way round, but for the leaves."""
    levels = [trees.order[start:stop] for start, stop in pairwise(trees.level_starts.tolist())]
    levels[1:] = levels[:0:-1]
    return _changed(
        trees, order=np.concatenate(levels), level_starts=np.cumsum([0, *map(len, levels)])
    )


def _last_child_forgotten(trees: TreeBatch) -> TreeBatch:
    """Return the trees with the last child of the first node that has two counted as the first one
    again.
    """
    children = trees.children.copy()
    node = int(np.argmax(np.diff(trees.child_starts) > 1))
    children[trees.child_starts[node + 1] - 1] = children[trees.child_starts[node]]
    return _changed(trees, children=children)


def _siblings_exchanged(trees: TreeBatch) -> TreeBatch:
    """Return the trees with the children of every node in the opposite order."""
    starts = trees.child_starts.tolist()
    children = [trees.children[start:stop][::-1] for start, stop in pairwise(starts)]
    return _changed(trees, children=np.concatenate(children))


class _SeesOtherTrees(Layer):
    """A cell whose backward pass sees other trees than its forward pass."""

    def __init__(self, tree_cell: Layer, change: Callable[[TreeBatch], TreeBatch]) -> None:
        self.cell = tree_cell
        self.change = change

    def own_parameters(self) -> list[Parameter]:
        return self.cell.own_parameters()

    def forward(self, call: Any, x: Array, trees: Any) -> Array:
        return np.asarray(self.cell.forward(call, x, trees))

    def backward(self, call: Any, dy: Array) -> Gradients:
        rows, trees, *kept = call.saved
        call.saved = (rows, self.change(trees), *kept)
        return self.cell.backward(call, dy)


def _with_other_trees(
    of: Callable[..., Layer], change: Callable[[TreeBatch], TreeBatch]
) -> Callable[[Generator], Layer]:
    return lambda rng: _SeesOtherTrees(_of(of)(rng), change)


class _ForgetGateOfTheSibling(TreeLSTM):
    def backward(self, call: Any, dy: Array) -> Gradients:
        rows, trees, h, c, t, gates, f = call.saved
        others = f.copy()
        others[trees.children] = f[_siblings_exchanged(trees).children]
        call.saved = (rows, trees, h, c, t, gates, others)
        return super().backward(call, dy)


class _CellStateOfTheSibling(TreeLSTM):
    def backward(self, call: Any, dy: Array) -> Gradients:
        rows, trees, h, c, *kept = call.saved
        others = c.copy()
        others[trees.children] = c[_siblings_exchanged(trees).children]
        call.saved = (rows, trees, h, others, *kept)
        return super().backward(call, dy)


class _CellStateIsCut(TreeLSTM):
    """The gradient of c stops at its node, as if only h were handed on."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        *kept, f = call.saved
        call.saved = (*kept, np.zeros_like(f))
        return super().backward(call, dy)


class _TanhOfTheCellForgotten(TreeLSTM):
    def backward(self, call: Any, dy: Array) -> Gradients:
        rows, trees, h, c, _, *kept = call.saved
        call.saved = (rows, trees, h, c, c, *kept)
        return super().backward(call, dy)


class _LeavesGetNothing(TreeRNN):
    def states_backward(
        self, call: Any, dh: Array, kept: Any, trees: TreeBatch, bounds: Integers
    ) -> Array:
        down = super().states_backward(call, dh, kept, trees, bounds)
        down[trees.order[: trees.level_starts[1]]] = 0
        return down


class _RootsOnly(TreeRNN):
    """The gradient of the states' weights has the contributions of the roots alone."""

    def states_backward(
        self, call: Any, dh: Array, kept: Any, trees: TreeBatch, bounds: Integers
    ) -> Array:
        down = super().states_backward(call, dh, kept, trees, bounds)
        (h,) = kept
        gradients = call.gradient(self.weight_hh)
        gradients[...] = 0
        for root in trees.roots:
            joined = np.zeros(self.weight_hh.shape[1])
            states = h[
                trees.children[trees.child_starts[root] : trees.child_starts[root + 1]]
            ].reshape(-1)
            joined[: states.size] = states
            gradients[0] += np.outer(down[root], joined)
        return down


class _OtherNodesForgotten(TreeLSTM):
    """Only the gradient of the root's state is taken up, though all states are the output."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        trees = call.saved[1]
        of_roots = np.zeros(dy.size // self.hidden_size, bool)
        of_roots[trees.slots[trees.roots]] = True
        return super().backward(call, dy * of_roots.reshape(*dy.shape[:2], 1))


def _of(mutant: Callable[..., Layer], **options: Any) -> Callable[[Generator], Layer]:
    return cell(mutant, 3, 4, **options)


_TREES, _BINARY = nodes(3, WIDE), nodes(3, BINARY)

MUTANTS = (
    Mutant("TreeRNN: levels from below", _with_other_trees(TreeRNN, _levels_from_below), _BINARY),
    Mutant(
        "TreeRNN: a child is forgotten", _with_other_trees(TreeRNN, _last_child_forgotten), _BINARY
    ),
    Mutant(
        "TreeRNN: left and right exchanged",
        _with_other_trees(TreeRNN, _siblings_exchanged),
        _BINARY,
    ),
    Mutant("TreeRNN: leaves get no gradient", _of(_LeavesGetNothing), _BINARY),
    Mutant("TreeRNN: weights learn from roots only", _of(_RootsOnly), _BINARY),
    Mutant("TreeLSTM: levels from below", _with_other_trees(TreeLSTM, _levels_from_below), _TREES),
    Mutant(
        "TreeLSTM: a child is forgotten", _with_other_trees(TreeLSTM, _last_child_forgotten), _TREES
    ),
    Mutant("TreeLSTM: forget gate of the wrong child", _of(_ForgetGateOfTheSibling), _TREES),
    Mutant("TreeLSTM: cell state of the wrong child", _of(_CellStateOfTheSibling), _TREES),
    Mutant("TreeLSTM: cell state is not handed on", _of(_CellStateIsCut), _TREES),
    Mutant("TreeLSTM: tanh of the cell state forgotten", _of(_TanhOfTheCellForgotten), _TREES),
    Mutant(
        "TreeLSTM: only roots get a gradient", _of(_OtherNodesForgotten, all_nodes=True), _TREES
    ),
)
