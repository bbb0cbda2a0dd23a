"""Trees evaluated one node after the other, by recursion: on our tape and in PyTorch. Tests and a
benchmark compare with it.

`features(n, node)` gives those of a node of tree n, recorded there: (1, C) on our tape, (C,) in
PyTorch.
"""

import numpy as np

import layers
from layers import Linear, TreeLSTM, TreeRNN


def random_trees(rng, count, leaves):
    """Return parents of random full binary trees of so many leaves each, the root last."""
    parents = np.full((count, 2 * leaves - 1), -1)
    for row in parents:
        roots = list(range(leaves))
        for node in range(leaves, 2 * leaves - 1):
            for _ in range(2):
                row[roots.pop(rng.integers(len(roots)))] = node
            roots.append(node)
    return parents


def children_of(parents):
    """Return the children of each node of a tree."""
    children = [[] for _ in parents]
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(node)
    return children


def on_a_tape(cell, tape, features, parents):
    """Return the states (1, H) of the roots, with layers of the cell's parameters."""
    rng, hidden, dtype = np.random.default_rng(0), cell.hidden_size, cell.bias.dtype
    own = Linear(cell.input_size, len(cell.bias.value), rng=rng, dtype=dtype)
    own.weight, own.bias = cell.weight_ih, cell.bias
    state = Linear(
        cell.weight_hh.shape[1], cell.weight_hh.shape[0], bias=False, rng=rng, dtype=dtype
    )
    state.weight = cell.weight_hh
    forget = Linear(hidden, hidden, bias=False, rng=rng, dtype=dtype)
    sigmoid, join = layers.Sigmoid(), layers.Concatenate()
    if isinstance(cell, TreeLSTM):
        forget.weight = cell.weight_hh_forget

    def rnn(n, node, children):
        z = own(features(n, node))
        below = [rnn(n, child, children) for child in children[node]]
        if below:
            below += [tape.input(np.zeros((1, hidden), dtype))] * (cell.children - len(below))
            z = z + state(join(*below))
        return layers.tanh(z)

    def lstm(n, node, children):
        z = own(features(n, node))
        below = [lstm(n, child, children) for child in children[node]]
        iog = z[:, : 3 * hidden]
        if below:
            iog = iog + state(sum(h for h, _ in below))
        c = sigmoid(iog[:, :hidden]) * layers.tanh(iog[:, 2 * hidden :])
        for h, old in below:
            c = c + sigmoid(z[:, 3 * hidden :] + forget(h)) * old
        return sigmoid(iog[:, hidden : 2 * hidden]) * layers.tanh(c), c

    states = []
    for n, row in enumerate(parents):
        root, children = int(np.flatnonzero(row == -1)[0]), children_of(row)
        states.append(
            rnn(n, root, children) if isinstance(cell, TreeRNN) else lstm(n, root, children)[0]
        )
    return states


def in_pytorch(torch, cell, p, features, parents):
    """Return the states (H,) of the roots, for the cell's parameters p as tensors."""
    hidden = cell.hidden_size
    nothing = torch.zeros(hidden, dtype=p[1].dtype)

    def rnn(n, node, children):
        below = [rnn(n, child, children) for child in children[node]]
        z = p[0] @ features(n, node) + p[1]
        if below:
            z = z + p[2] @ torch.cat([*below, *[nothing] * (cell.children - len(below))])
        return torch.tanh(z)

    def lstm(n, node, children):
        below = [lstm(n, child, children) for child in children[node]]
        z = p[0] @ features(n, node) + p[1]
        iog = z[: 3 * hidden]
        if below:
            iog = iog + p[2] @ sum((h for h, _ in below), nothing)
        i, o, g = iog.split(hidden)
        c = torch.sigmoid(i) * torch.tanh(g)
        for h, old in below:
            c = c + torch.sigmoid(z[3 * hidden :] + p[3] @ h) * old
        return torch.sigmoid(o) * torch.tanh(c), c

    states = []
    for n, row in enumerate(parents):
        root, children = int(np.flatnonzero(row == -1)[0]), children_of(row)
        states.append(
            rnn(n, root, children) if isinstance(cell, TreeRNN) else lstm(n, root, children)[0]
        )
    return states
