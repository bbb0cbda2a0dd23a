"""Cells evaluated over trees, level by level: all nodes of a level, of all trees, are the rows of
one matrix product.

States are rows (R, H), those of a tree one after the other; `order`, `level_starts`, `child_starts`
and `children` are the tables of `layers.TreeBatch`. p holds what a node's own input contributes.
Products read and write the rows of one level, gathered in scratch, by the level's number of rows at
the most. Level by level backward is Goller and Kuechler 1996, "Learning task-dependent distributed
representations by backpropagation through structure". `packed` is room for the panels of a weight:
its type says what products are computed in, see `products`.
"""

from .jit import inlined, kernel
from .llvm.vmath import constant, sigmoid, tanh
from .products import pack_panels, packed_product


@inlined
def _copy(to, of):
    for j in range(to.size):
        to[j] = of[j]


@inlined
def _add(to, of):
    for j in range(to.size):
        to[j] += of[j]


@inlined
def _join(joined, h, rows, child_starts, children):
    """Write the states of each row's children side by side, zeros for those that are missing;
    joined (m, k H).
    """
    hidden = h.shape[1]
    zero = constant(h, "zero")
    for i in range(rows.size):
        first = child_starts[rows[i]]
        count = child_starts[rows[i] + 1] - first
        for q in range(count):
            _copy(joined[i, q * hidden : (q + 1) * hidden], h[children[first + q]])
        joined[i, count * hidden :] = zero


@inlined
def _sum(sums, h, rows, child_starts, children):
    """Write the sum of the states of each row's children, in order; sums (m, H)."""
    for i in range(rows.size):
        first, last = child_starts[rows[i]], child_starts[rows[i] + 1]
        _copy(sums[i], h[children[first]])
        for e in range(first + 1, last):
            _add(sums[i], h[children[e]])


@kernel
def join_children(joined, h, rows, child_starts, children):
    """Writes the states of each row's children side by side: see `_join`."""
    _join(joined, h, rows, child_starts, children)


@kernel
def sum_children(sums, h, rows, child_starts, children):
    """Writes the sums of the states of each row's children: see `_sum`; every row has a child."""
    _sum(sums, h, rows, child_starts, children)


@kernel
def rnn(h, z, joined, packed, p, u, order, level_starts, child_starts, children):
    """Writes h = tanh(p + u [h_1; …; h_k]), the h_q being the states of the node's children, 0 for
    missing ones.

    h, p (R, H); u (H, k H). Scratch: z (m, H), joined (m, k H), packed.
    """
    pack_panels(packed, u, True)
    none = u[0, :0]
    for level in range(level_starts.size - 1):
        rows = order[level_starts[level] : level_starts[level + 1]]
        if level == 0:
            for i in range(rows.size):
                to, of = h[rows[i]], p[rows[i]]
                for j in range(to.size):
                    to[j] = tanh(of[j])
            continue
        for i in range(rows.size):
            _copy(z[i], p[rows[i]])
        _join(joined, h, rows, child_starts, children)
        packed_product(z[: rows.size], joined[: rows.size], packed, none, True)
        for i in range(rows.size):
            to, of = h[rows[i]], z[i]
            for j in range(to.size):
                to[j] = tanh(of[j])


@kernel
def rnn_backward(dp, dh, dz, djoined, packed, h, u, order, level_starts, child_starts, children):
    """Writes dp = dh (1 - h²), from the root down, and adds to dh of the children q their part of
    uᵀ dp.

    Forward: h = tanh(p + u [h_1; …; h_k]). dh (R, H) holds the gradients of the states from
    outside. Scratch as in `rnn`.
    """
    pack_panels(packed, u, False)
    none = u[0, :0]
    hidden = h.shape[1]
    one = constant(h, "one")
    for level in range(level_starts.size - 2, -1, -1):
        rows = order[level_starts[level] : level_starts[level + 1]]
        for i in range(rows.size):
            to, of, state = dp[rows[i]], dh[rows[i]], h[rows[i]]
            for j in range(to.size):
                to[j] = of[j] * (one - state[j] * state[j])
        if level == 0:
            return
        for i in range(rows.size):
            _copy(dz[i], dp[rows[i]])
        packed_product(djoined[: rows.size], dz[: rows.size], packed, none, False)
        for i in range(rows.size):
            first = child_starts[rows[i]]
            for q in range(child_starts[rows[i] + 1] - first):
                _add(dh[children[first + q]], djoined[i, q * hidden : (q + 1) * hidden])


@kernel
def lstm(
    h,
    c,
    t,
    gates,
    f,
    z,
    zf,
    sums,
    states,
    packed,
    packed_f,
    p,
    u,
    uf,
    order,
    level_starts,
    child_starts,
    children,
):
    """Writes the states h, c of a child-sum LSTM: Tai, Socher and Manning 2015, eq. 2 to 8.

    i, o, g = σ, σ, tanh of p_iog + u Σ_q h_q; f_q = σ(p_f + uf h_q); c = i g + Σ_q f_q c_q; t =
    tanh(c); h = o t. h, c, t (R, H); gates i, o, g (R, 3 H); f (R, H) at the rows of the children;
    p (R, 4 H); u (3 H, H); uf (H, H). Scratch: z (m, 3 H), zf and states (edges, H), sums (m, H),
    packed, packed_f.
    """
    hidden = h.shape[1]
    pack_panels(packed, u, True)
    pack_panels(packed_f, uf, True)
    none = u[0, :0]
    for level in range(level_starts.size - 1):
        rows = order[level_starts[level] : level_starts[level + 1]]
        edges = 0
        if level > 0:
            for i in range(rows.size):
                _copy(z[i], p[rows[i], : 3 * hidden])
                for e in range(child_starts[rows[i]], child_starts[rows[i] + 1]):
                    _copy(zf[edges], p[rows[i], 3 * hidden :])
                    _copy(states[edges], h[children[e]])
                    edges += 1
            _sum(sums, h, rows, child_starts, children)
            for task in range(2):
                if task == 0:
                    into, left, weights = z[: rows.size], sums[: rows.size], packed
                else:
                    into, left, weights = zf[:edges], states[:edges], packed_f
                packed_product(into, left, weights, none, True)
        edge = 0
        for i in range(rows.size):
            r = rows[i]
            of = z[i] if level > 0 else p[r, : 3 * hidden]
            to, before = gates[r, : 2 * hidden], of[: 2 * hidden]
            for j in range(to.size):
                to[j] = sigmoid(before[j])
            to, before = gates[r, 2 * hidden :], of[2 * hidden :]
            for j in range(to.size):
                to[j] = tanh(before[j])
            cell, gate, new = c[r], gates[r, :hidden], gates[r, 2 * hidden :]
            for j in range(cell.size):
                cell[j] = gate[j] * new[j]
            for e in range(child_starts[r], child_starts[r + 1]):
                q = children[e]
                forget, before, old = f[q], zf[edge], c[q]
                for j in range(cell.size):
                    forget[j] = sigmoid(before[j])
                for j in range(cell.size):
                    cell[j] += forget[j] * old[j]
                edge += 1
            squashed, state, gate = t[r], h[r], gates[r, hidden : 2 * hidden]
            for j in range(cell.size):
                squashed[j] = tanh(cell[j])
            for j in range(cell.size):
                state[j] = gate[j] * squashed[j]


@kernel
def lstm_backward(
    dp,
    df,
    dh,
    dc,
    dz,
    dsums,
    dzf,
    dstates,
    packed,
    packed_f,
    c,
    t,
    gates,
    f,
    u,
    uf,
    order,
    level_starts,
    child_starts,
    children,
):
    """Writes dp (R, 4 H) and df (R, H), from the root down, and adds to dh of the children what
    they get from their parent.

    With dc the gradient of c, df_q and the parts of dp those before the activations:
    dc = dc from the parent + dh o (1 - t²); dp_i = dc g i (1 - i); dp_o = dh t o (1 - o); dp_g = dc
    i (1 - g²); df_q = dc c_q f_q (1 - f_q); dp_f = Σ_q df_q; dc_q = dc f_q; dh_q += uᵀ dp_iog + ufᵀ
    df_q. dh (R, H) holds the gradients of the states from outside, df is at the rows of the
    children and 0 for roots. Scratch: dc (R, H) and, as in `lstm`, dz, dsums, dzf, dstates, packed,
    packed_f.
    """
    hidden = dh.shape[1]
    pack_panels(packed, u, False)
    pack_panels(packed_f, uf, False)
    none = u[0, :0]
    one, zero = constant(dh, "one"), constant(dh, "zero")
    dc.reshape(dc.size)[:] = zero
    df.reshape(df.size)[:] = zero
    for level in range(level_starts.size - 2, -1, -1):
        rows = order[level_starts[level] : level_starts[level + 1]]
        for i in range(rows.size):
            r = rows[i]
            into, state, gate, squashed = dc[r], dh[r], gates[r, hidden : 2 * hidden], t[r]
            for j in range(hidden):
                into[j] += state[j] * gate[j] * (one - squashed[j] * squashed[j])
            to = dp[r, hidden : 2 * hidden]
            for j in range(hidden):
                to[j] = state[j] * squashed[j] * gate[j] * (one - gate[j])
            to, gate, new = dp[r, :hidden], gates[r, :hidden], gates[r, 2 * hidden :]
            for j in range(hidden):
                to[j] = into[j] * new[j] * gate[j] * (one - gate[j])
            to = dp[r, 2 * hidden : 3 * hidden]
            for j in range(hidden):
                to[j] = into[j] * gate[j] * (one - new[j] * new[j])
            total = dp[r, 3 * hidden :]
            total[:] = zero
            for e in range(child_starts[r], child_starts[r + 1]):
                q = children[e]
                to, old, forget, further = df[q], c[q], f[q], dc[q]
                for j in range(hidden):
                    to[j] = into[j] * old[j] * forget[j] * (one - forget[j])
                for j in range(hidden):
                    further[j] = into[j] * forget[j]
                _add(total, to)
        if level == 0:
            return
        edges = 0
        for i in range(rows.size):
            _copy(dz[i], dp[rows[i], : 3 * hidden])
            for e in range(child_starts[rows[i]], child_starts[rows[i] + 1]):
                _copy(dzf[edges], df[children[e]])
                edges += 1
        for task in range(2):
            if task == 0:
                to_states, left, weights = dsums[: rows.size], dz[: rows.size], packed
            else:
                to_states, left, weights = dstates[:edges], dzf[:edges], packed_f
            packed_product(to_states, left, weights, none, False)
        edge = 0
        for i in range(rows.size):
            for e in range(child_starts[rows[i]], child_starts[rows[i] + 1]):
                _add(dh[children[e]], dsums[i])
                _add(dh[children[e]], dstates[edge])
                edge += 1
