"""The twins of `layers.gradient_check.cases.tree`: one node after the other, children first, by
recursion.
"""

import math

import numpy as np

from .activation import sigmoid
from .linear import affine


def children_of(parents, node):
    return [j for j in range(len(parents)) if parents[j] == node]


def times(matrix, vector):
    y = np.zeros(len(matrix))
    for i in range(len(matrix)):
        for j in range(len(vector)):
            y[i] += matrix[i, j] * vector[j]
    return y


def rnn_states(p, x, parents, node, states):
    """Write the states of a node and of all below it to `states`, and return its own."""
    hidden = len(p["bias"])
    z = times(p["weight_ih"], x[node]) + p["bias"]
    for place, child in enumerate(children_of(parents, node)):
        weight = p["weight_hh"][:, place * hidden : (place + 1) * hidden]
        z += times(weight, rnn_states(p, x, parents, child, states))
    states[node] = [math.tanh(v) for v in z]
    return states[node]


def lstm_states(p, x, parents, node, states):
    """Write the states of a node and of all below it to `states`, and return its own, h and c."""
    hidden = len(p["weight_hh_forget"])
    z = times(p["weight_ih"], x[node]) + p["bias"]
    below = [lstm_states(p, x, parents, child, states) for child in children_of(parents, node)]
    total = np.zeros(hidden)
    for h, _ in below:
        total = total + h
    iog = z[: 3 * hidden] + times(p["weight_hh"], total)
    c = np.zeros(hidden)
    for j in range(hidden):
        c[j] = sigmoid(iog[j]) * math.tanh(iog[2 * hidden + j])
    for h, old in below:
        forget = z[3 * hidden :] + times(p["weight_hh_forget"], h)
        for j in range(hidden):
            c[j] += sigmoid(forget[j]) * old[j]
    states[node] = [sigmoid(iog[hidden + j]) * math.tanh(c[j]) for j in range(hidden)]
    return states[node], c


def over(cell, all_nodes=False):
    """Return the twin of a cell over a batch of trees."""

    def twin(p, x, parents):
        hidden = len(p["weight_ih"]) // (4 if cell is lstm_states else 1)
        states = np.zeros((*parents.shape, hidden))
        for n in range(len(x)):
            (root,) = children_of(parents[n], -1)
            cell(p, x[n], parents[n], root, states[n])
        return (
            states
            if all_nodes
            else np.array([states[n, children_of(parents[n], -1)[0]] for n in range(len(x))])
        )

    return twin


def classifier(p, x, parents):
    parameters = {name.removeprefix("layers.0."): value for name, value in p.items()}
    return affine(
        over(lstm_states)(parameters, x, parents), p["layers.1.weight"], p["layers.1.bias"]
    )


TWINS = {
    "TreeRNN": over(rnn_states),
    "TreeRNN of all nodes": over(rnn_states, all_nodes=True),
    "TreeRNN of five children": over(rnn_states),
    "TreeRNN of odd sizes": over(rnn_states),
    "TreeLSTM": over(lstm_states),
    "TreeLSTM of all nodes": over(lstm_states, all_nodes=True),
    "TreeLSTM of odd sizes": over(lstm_states),
    "TreeLSTM of equal trees": over(lstm_states),
    "TreeLSTM and Linear": classifier,
}
