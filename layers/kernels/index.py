"""Rows of a table by number. table (V, D), ids (R,), y (R, D)."""

from .jit import kernel


@kernel
def take_rows(y, table, ids, padding):
    """Writes y_i = table[ids_i], and zeros where ids_i is `padding` (-1: nowhere), up to the first
    id that is not in 0..V-1.

    Returns how many rows are written.
    """
    for i in range(ids.size):
        if not 0 <= ids[i] < len(table):
            return i
        to, of = y[i], table[ids[i]]
        if ids[i] == padding:
            to[:] = 0
        else:
            for j in range(to.size):
                to[j] = of[j]
    return ids.size


@kernel
def add_rows(dw, dy, ids, padding, bounds, accumulate):
    """Writes (adds, if `accumulate`) for each shard dw[v] = the sum of dy_i over its rows with
    ids_i = v, in their order.

    dw (S, V, D), dy (R, D), bounds (S + 1,). Rows whose id is `padding` count for nothing.
    """
    for s in range(len(dw)):
        shard = dw[s]
        if not accumulate:
            shard[:] = 0
        for i in range(bounds[s], bounds[s + 1]):
            if ids[i] != padding:
                to, of = shard[ids[i]], dy[i]
                for j in range(to.size):
                    to[j] += of[j]


@kernel
def repeat(y, row):
    """Writes y[n] = row; y (N, C), row (C,)."""
    for n in range(len(y)):
        to = y[n]
        for c in range(to.size):
            to[c] = row[c]


@kernel
def add_positions(y, x, positions):
    """Writes y[n, t] = x[n, t] + positions[t]; y, x (N, T, C), positions (T or more, C)."""
    for n in range(len(x)):
        for t in range(x.shape[1]):
            to, of, more = y[n, t], x[n, t], positions[t]
            for c in range(to.size):
                to[c] = of[c] + more[c]


@kernel
def positions_backward(dw, dy, bounds, accumulate):
    """Writes (adds, if `accumulate`) for each shard dw[t] = sum of dy[n, t] over its samples; dw
    (S, T…, C), dy (N, T, C).
    """
    for s in range(len(dw)):
        shard = dw[s]
        if not accumulate:
            shard[:] = 0
        for n in range(bounds[s], bounds[s + 1]):
            for t in range(dy.shape[1]):
                to, of = shard[t], dy[n, t]
                for c in range(to.size):
                    to[c] += of[c]
