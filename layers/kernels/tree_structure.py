"""The order in which trees are evaluated, and rows picked and put back by it.

Letters: N trees of at most M nodes, R nodes in all, that are rows of matrices: those of a tree one
after the other.
"""

import numpy as np

from .jit import inlined, kernel
from .llvm.vmath import constant
from .records import record

ROOT, ABSENT = -1, -2
# What can be wrong with parents; `layers.tree.batch` has the words.
OUTSIDE, PARENT_ABSENT, NO_NODES, NO_ROOT, SEVERAL_ROOTS, CYCLE = 1, 2, 3, 4, 5, 6
# What is wrong, if anything, in which tree and at which of its nodes.
FAULT = record("kind", "tree", "node")
# Numbers of nodes, of levels and of nodes with children; the most nodes, and the most edges, of a
# level above the leaves.
SIZES = record("nodes", "levels", "inner", "widest", "most_edges")


@inlined
def _report(fault, kind, tree, node):
    fault[0].kind = kind
    fault[0].tree = tree
    fault[0].node = node


@kernel
def structure(
    starts,
    inner_starts,
    roots,
    slots,
    child_starts,
    children,
    order,
    level_starts,
    inner,
    level_of,
    waiting,
    sizes,
    fault,
    parents,
):
    """Writes the tables of `layers.TreeBatch` from parents (N, M); or what is wrong to `fault`, one
    record FAULT.

    starts (N + 1,), inner_starts (N + 1,), roots (N,); the others have room for N M + 1 numbers, of
    which `sizes`, one record SIZES, says how many are used. `level_of` and `waiting` are scratch. A
    node's level is 0 for a leaf, or one more than the highest level of its children.
    """
    trees, width = parents.shape
    fault[0].kind = 0
    row_of = np.empty(width, np.int64)
    parent_row = np.empty(trees * width, np.int64)
    rows = edges = above = 0
    starts[0] = inner_starts[0] = child_starts[0] = 0
    for n in range(trees):
        first, found = rows, 0
        for j in range(width):
            if parents[n, j] != ABSENT:
                row_of[j] = rows
                slots[rows] = n * width + j
                waiting[rows] = 0
                rows += 1
        for j in range(width):
            p = parents[n, j]
            if p == ABSENT:
                continue
            if p < ABSENT or p >= width:
                _report(fault, OUTSIDE, n, j)
                return
            if p == ROOT:
                found += 1
                roots[n] = row_of[j]
                parent_row[row_of[j]] = -1
                if found > 1:
                    _report(fault, SEVERAL_ROOTS, n, j)
                    return
            elif parents[n, p] == ABSENT:
                _report(fault, PARENT_ABSENT, n, j)
                return
            else:
                parent_row[row_of[j]] = row_of[p]
                waiting[row_of[p]] += 1
        if rows == first or found == 0:
            _report(fault, NO_NODES if rows == first else NO_ROOT, n, 0)
            return
        for r in range(first, rows):
            child_starts[r + 1] = child_starts[r] + waiting[r]
        # `order` is the queue of nodes whose children all have a level; `children` is filled in the
        # order of rows.
        tail = first
        for r in range(first, rows):
            level_of[r] = 0
            if waiting[r] == 0:
                order[tail] = r
                tail += 1
            else:
                inner[above] = r
                above += 1
            p = parent_row[r]
            if p >= 0:
                level_of[p] = 0
        head = first
        while head < tail:
            r = order[head]
            head += 1
            p = parent_row[r]
            if p >= 0:
                level_of[p] = max(level_of[p], level_of[r] + 1)
                waiting[p] -= 1
                if waiting[p] == 0:
                    order[tail] = p
                    tail += 1
        if tail < rows:
            stuck = first
            while waiting[stuck] == 0:
                stuck += 1
            _report(fault, CYCLE, n, slots[stuck] - n * width)
            return
        for r in range(first, rows):
            waiting[r] = child_starts[r]
        for r in range(first, rows):
            p = parent_row[r]
            if p >= 0:
                children[waiting[p]] = r
                waiting[p] += 1
                edges += 1
        starts[n + 1], inner_starts[n + 1] = rows, above
    levels = 0
    for r in range(rows):
        levels = max(levels, level_of[r] + 1)
    # A counting sort: by level, then by row.
    level_starts[: levels + 1] = 0
    for r in range(rows):
        level_starts[level_of[r] + 1] += 1
    for level in range(levels):
        level_starts[level + 1] += level_starts[level]
        waiting[level] = level_starts[level]
    for r in range(rows):
        level = level_of[r]
        order[waiting[level]] = r
        waiting[level] += 1
    widest = most_edges = 0
    for level in range(1, levels):
        here = 0
        for i in range(level_starts[level], level_starts[level + 1]):
            here += child_starts[order[i] + 1] - child_starts[order[i]]
        widest = max(widest, level_starts[level + 1] - level_starts[level])
        most_edges = max(most_edges, here)
    sizes[0].nodes = rows
    sizes[0].levels = levels
    sizes[0].inner = above
    sizes[0].widest = widest
    sizes[0].most_edges = most_edges


@kernel
def pick(y, x, rows):
    """Writes y_i = x[rows_i], or its first columns; y (R, C), x (any, C or more)."""
    for i in range(len(y)):
        to, of = y[i], x[rows[i]]
        for j in range(to.size):
            to[j] = of[j]


@kernel
def put(y, x, rows):
    """Writes y[rows_i] = x_i and zeros elsewhere; y (any, C), x (R, C)."""
    flat = y.reshape(y.size)
    flat[:] = constant(y, "zero")
    for i in range(len(x)):
        to, of = y[rows[i]], x[i]
        for j in range(to.size):
            to[j] = of[j]
