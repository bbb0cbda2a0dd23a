"""Recurrent layers over whole sequences, in order of time: x (T, N, C), h (T + 1, N, H) with the
initial state at 0.

What the inputs contribute to the gates is one product for so many steps that their gates stay in
the second-level cache; the gradients of the weights are products over all steps, made after. What
goes from step to step is the product of the last state with the packed recurrent weight, and the
gates' arithmetic. `inputs` are x, their packed weight, and their bias, (G H,) or empty.

Of a sample with fewer steps than T (`lengths`, (N,)), the state stays what it was from there on.
Outputs y and their gradients dy stand by sample, (N, T, H); in `reverse`, the first step in time is
each sample's last.
"""

import numpy as np

from .gemm import BLOCK_M
from .jit import inlined, kernel
from .llvm.halves import narrowed, wide
from .llvm.memory import address_of, fetch_lines
from .llvm.simd_math import sigmoid_row, tanh_row
from .llvm.vmath import constant
from .machine import CACHE_LINE
from .products import packed_product

ROOM = 2**17
"""Elements of the gates of some steps that stay in the second-level cache."""


@inlined
def _copy(to, of):
    """Write one row to another: an assignment to a slice takes several times as long."""
    for j in range(to.size):
        to[j] = narrowed(to, wide(of[j]))


@inlined
def _clear(row):
    for j in range(row.size):
        row[j] = 0


@inlined
def _step(n, t, lengths, reverse):
    """Return where an array by sample (N, T, C) holds what sample n has at step t in time."""
    return lengths[n] - 1 - t if reverse else t


@inlined
def _fetch_row(array, n, t, lengths, reverse):
    """Ask for such a row of a sample, if there is that sample: rows of one step lie far apart."""
    if n < len(lengths) and t < lengths[n]:
        row = array[n, _step(n, t, lengths, reverse)]
        fetch_lines(
            array,
            address_of(row),
            CACHE_LINE,
            (row.size * row.itemsize + CACHE_LINE - 1) // CACHE_LINE,
        )


@kernel
def by_time(out, x, lengths, reverse):
    """Writes x (N, T, C) to out (T, N, C), each sample's steps in reverse order if so said; zeros
    after its last step.
    """
    for n in range(len(x)):
        for t in range(lengths[n]):
            _copy(out[t, n], x[n, _step(n, t, lengths, reverse)])
        for t in range(lengths[n], x.shape[1]):
            _clear(out[t, n])


@inlined
def _by_sample(out, x, lengths, reverse):
    """Write x (T, N, C) to out (N, T, C), as `by_time` would read it; zeros after each sample's
    last step.
    """
    for n in range(len(out)):
        for t in range(lengths[n]):
            _copy(out[n, _step(n, t, lengths, reverse)], x[t, n])
        for t in range(lengths[n], out.shape[1]):
            _clear(out[n, t])


@kernel
def by_sample(out, x, lengths, reverse):
    """Writes x (T, N, C) to out (N, T, C), as `by_time` would read it; zeros after each sample's
    last step.
    """
    _by_sample(out, x, lengths, reverse)


@kernel
def by_shard(out, x, bounds):
    """Writes x (T, N, C) to out (T N C,), the steps of each shard of the samples together."""
    steps, _, features = x.shape
    at = 0
    for s in range(bounds.size - 1):
        for t in range(steps):
            part = x[t, bounds[s] : bounds[s + 1]].reshape((bounds[s + 1] - bounds[s]) * features)
            _copy(out[at : at + part.size], part)
            at += part.size


def steps_together(samples: int, size: int) -> int:
    """Return for how many steps the contribution of the inputs to gates of a size is one product,
    where only those of so many steps are there.
    """
    return max(1, min(BLOCK_M, ROOM // max(1, size)) // max(1, samples))


@inlined
def _contribute(gates, inputs, t):
    """Write what the inputs contribute to the gates of step t and of those after it, where a number
    of steps begins; return where those of t are. `gates` are of all steps, or room for those of one
    product.
    """
    x, packed, bias = inputs
    steps, samples, _ = x.shape
    size = gates.shape[2]
    together = max(1, BLOCK_M // max(1, samples)) if len(gates) == steps else len(gates)
    first = t if len(gates) == steps else t % together
    if t % together == 0:
        count = min(together, steps - t)
        rows = count * samples
        packed_product(
            gates[first : first + count].reshape((rows, size)),
            x[t : t + count].reshape((rows, x.shape[2])),
            packed,
            bias,
            False,
        )
    return first


@kernel
def states(h, y, first, lengths, reverse):
    """Writes the states h (T + 1, N, H) in order of time, given outputs y (N, T, H) and the initial
    ones (N, H), 0 if that is empty; zeros after each sample's last step.
    """
    for n in range(len(y)):
        if first.size:
            _copy(h[0, n], first[n])
        else:
            _clear(h[0, n])
        for t in range(lengths[n]):
            _copy(h[t + 1, n], y[n, _step(n, t, lengths, reverse)])
        for t in range(lengths[n], y.shape[1]):
            _clear(h[t + 1, n])


@inlined
def _put(y, t, n, hidden, lengths, reverse):
    """Write a state (H,) to the outputs, zeros after the last step."""
    if t < lengths[n]:
        _copy(y[n, _step(n, t, lengths, reverse)], hidden)
    else:
        _clear(y[n, t])


@inlined
def _lstm_cell(h, c, squashed, row, before):
    """Write h, c and tanh(c) of a sample (H,), given the last c, and the gates in place of what
    inputs and last state contribute.
    """
    size = h.size
    i, f, g, o = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
    both = row[: 2 * size]
    sigmoid_row(both, both)
    tanh_row(g, g)
    sigmoid_row(o, o)
    for j in range(size):
        c[j] = f[j] * before[j] + i[j] * g[j]
    tanh_row(squashed, c)
    for j in range(size):
        h[j] = o[j] * squashed[j]


@kernel
def lstm(y, h, c, squashed, gates, inputs, packed, nothing, lengths, reverse):
    """Writes y, h and c (T + 1, N, H) from step 1 on, tanh(c) to squashed (T, N, H), and the gates
    (T, N, 4 H) i, f, g and o.

    i, f, o = sigmoid and g = tanh of what inputs and last state contribute, c = f c + i g, h = o
    tanh(c).
    """
    steps, samples, _ = squashed.shape
    for t in range(steps):
        now = gates[_contribute(gates, inputs, t)]
        packed_product(now, h[t], packed, nothing, True)
        for n in range(samples):
            if t >= lengths[n]:
                _copy(h[t + 1, n], h[t, n])
                _copy(c[t + 1, n], c[t, n])
                continue
            _lstm_cell(h[t + 1, n], c[t + 1, n], squashed[t, n], now[n], c[t, n])
    _by_sample(y, h[1:], lengths, reverse)


@kernel
def lstm_in_words(y, h, cell, c, gates, room, inputs, packed, nothing, lengths, reverse):
    """Writes what `lstm` does where gates (T, N, 4 H) and c (T + 1, N, H) are words, which are
    rounded when they have been computed with; y are the states.

    h and cell (N, H) are the states, before and after. room (K, N, 4 H) holds the gates of as many
    steps as are one product.
    """
    steps, samples, _ = gates.shape
    line = np.empty(h.shape[1], h.dtype)
    for n in range(samples):
        _copy(c[0, n], cell[n])
    for t in range(steps):
        now = room[_contribute(room, inputs, t)]
        packed_product(now, h, packed, nothing, True)
        for n in range(samples):
            if t < lengths[n]:
                _lstm_cell(h[n], cell[n], line, now[n], cell[n])
                _copy(gates[t, n], now[n])
            _put(y, t, n, h[n], lengths, reverse)
            _copy(c[t + 1, n], cell[n])


@inlined
def lstm_step_back(gates, dh, dc, dy, c, squashed, line, lengths, reverse, t):
    """Write the gradients of the gates of step t in their place, and dc of the step before: see
    `lstm_backward`.
    """
    samples, size, one = gates.shape[1], dh.shape[1], constant(dh, "one")
    for n in range(samples):
        row = gates[t, n]
        if t >= lengths[n]:
            _clear(row)
            continue
        i, f, g, o = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
        above, dhidden, dcell = dy[n, _step(n, t, lengths, reverse)], dh[n], dc[n]
        _fetch_row(dy, n + 1, t, lengths, reverse)
        before, flat = c[t, n], line
        if squashed.size:
            flat = squashed[t, n]
        else:
            _copy(line, c[t + 1, n])
            tanh_row(line, line)
        for j in range(size):
            total, open_ = above[j] + dhidden[j], wide(o[j])
            o[j] = narrowed(o, total * flat[j] * open_ * (one - open_))
            dcell[j] += total * open_ * (one - flat[j] * flat[j])
        for j in range(size):
            into, new = wide(i[j]), wide(g[j])
            i[j] = narrowed(i, dcell[j] * new * into * (one - into))
            g[j] = narrowed(g, dcell[j] * into * (one - new * new))
        for j in range(size):
            kept = wide(f[j])
            f[j] = narrowed(f, dcell[j] * wide(before[j]) * kept * (one - kept))
            dcell[j] *= kept


@kernel
def lstm_backward(gates, dh, dc, dy, c, squashed, line, packed, nothing, lengths, reverse):
    """Writes the gates' gradients in their place; dh and dc (N, H), those of the last states,
    become those of the initial ones.

    dy is the gradient of the outputs, packed the recurrent weight. Gates and c may be words; if
    `squashed` is empty, tanh(c) is computed again, for which line (H,) is room.
    """
    for t in range(len(gates) - 1, -1, -1):
        lstm_step_back(gates, dh, dc, dy, c, squashed, line, lengths, reverse, t)
        to_previous(dh, gates[t], packed, nothing, lengths, t)


@inlined
def to_previous(dh, dgates, packed, nothing, lengths, t):
    """Write dh = dgates W of the samples that had this step; add to that of the others, whose
    dgates are 0.
    """
    ragged = False
    for n in range(lengths.size):
        ragged |= t >= lengths[n]
    if not ragged:
        packed_product(dh, dgates, packed, nothing, False)
        return
    for n in range(lengths.size):
        if t < lengths[n]:
            _clear(dh[n])
    packed_product(dh, dgates, packed, nothing, True)


@inlined
def _gru_cell(h, row, own, before):
    """Write h of a sample (H,), given the last one, and the gates in place of what the inputs
    contribute; `own` is the last state's contribution.
    """
    size, one = h.size, constant(h, "one")
    r, z, new, of_new = row[:size], row[size : 2 * size], row[2 * size :], own[2 * size :]
    both, of_both = row[: 2 * size], own[: 2 * size]
    for j in range(both.size):
        both[j] += of_both[j]
    sigmoid_row(both, both)
    for j in range(size):
        new[j] += r[j] * of_new[j]
    tanh_row(new, new)
    for j in range(size):
        h[j] = (one - z[j]) * new[j] + z[j] * before[j]


@kernel
def gru(y, h, inner, gates, inputs, packed, bias, lengths, reverse):
    """Writes y and h (T + 1, N, H) from step 1 on; and inner (T, N, 3 H), the last state's
    contribution, its bias (3 H,) included.

    Writes the gates (T, N, 3 H), too: r, z = sigmoid, n = tanh(x + r inner), x being what the
    inputs contribute; h = (1 - z) n + z h.
    """
    steps, samples, _ = inner.shape
    for t in range(steps):
        now = gates[_contribute(gates, inputs, t)]
        packed_product(inner[t], h[t], packed, bias, False)
        for n in range(samples):
            if t >= lengths[n]:
                _copy(h[t + 1, n], h[t, n])
                continue
            _gru_cell(h[t + 1, n], now[n], inner[t, n], h[t, n])
    _by_sample(y, h[1:], lengths, reverse)


@kernel
def gru_in_words(y, h, inner, of_state, gates, room, inputs, packed, bias, lengths, reverse):
    """Writes what `gru` does where gates and inner are words: see `lstm_in_words`; of_state (N, 3
    H) is room for the inner contribution of a step.
    """
    steps, samples, _ = gates.shape
    for t in range(steps):
        now = room[_contribute(room, inputs, t)]
        packed_product(of_state, h, packed, bias, False)
        for n in range(samples):
            if t < lengths[n]:
                _gru_cell(h[n], now[n], of_state[n], h[n])
                _copy(gates[t, n], now[n])
                _copy(inner[t, n], of_state[n])
            _put(y, t, n, h[n], lengths, reverse)


@inlined
def gru_step_back(gates, inner, dh, dy, h, lengths, reverse, t):
    """Write the gradients of gates and inner of step t in their place, and to dh what of that of
    the step before comes by way of z: see `gru_backward`.
    """
    samples, size, one = inner.shape[1], dh.shape[1], constant(dh, "one")
    for n in range(samples):
        row, own = gates[t, n], inner[t, n]
        if t >= lengths[n]:
            _clear(row)
            _clear(own)
            continue
        r, z, new = row[:size], row[size : 2 * size], row[2 * size :]
        r_own, z_own, new_own = own[:size], own[size : 2 * size], own[2 * size :]
        above, dhidden, before = dy[n, _step(n, t, lengths, reverse)], dh[n], h[t, n]
        _fetch_row(dy, n + 1, t, lengths, reverse)
        for j in range(size):
            total, kept, candidate = above[j] + dhidden[j], wide(z[j]), wide(new[j])
            dhidden[j] = total * kept
            slope = total * (wide(before[j]) - candidate) * kept * (one - kept)
            z[j] = narrowed(z, slope)
            z_own[j] = narrowed(z_own, slope)
            new[j] = narrowed(new, total * (one - kept) * (one - candidate * candidate))
        for j in range(size):
            reset, of_new = wide(r[j]), wide(new[j])
            slope = of_new * wide(new_own[j]) * reset * (one - reset)
            r[j] = narrowed(r, slope)
            r_own[j] = narrowed(r_own, slope)
            new_own[j] = narrowed(new_own, of_new * reset)


@kernel
def gru_backward(gates, inner, dh, dy, h, packed, nothing, lengths, reverse):
    """Writes the gradients of gates and inner in their place; dh (N, H), that of the last state,
    becomes that of the initial one.

    dy is the gradient of the outputs, packed the recurrent weight. Gates, inner and h may be words.
    """
    for t in range(len(inner) - 1, -1, -1):
        gru_step_back(gates, inner, dh, dy, h, lengths, reverse, t)
        packed_product(dh, inner[t], packed, nothing, True)


@inlined
def _rnn_cells(h, sums, rectified):
    """Write tanh of sums, or max(sum, 0) if rectified."""
    zero = constant(h, "zero")
    if rectified:
        for j in range(h.size):
            h[j] = zero if sums[j] <= zero else sums[j]
    else:
        tanh_row(h, sums)


@kernel
def rnn(y, h, gates, inputs, packed, nothing, lengths, reverse, rectified):
    """Writes y and h = tanh(V x + W h), or max(that, 0) if rectified, (T + 1, N, H) from step 1 on.

    The sum is written to gates (T, N, H).
    """
    steps, samples, size = gates.shape
    for t in range(steps):
        sums = gates[_contribute(gates, inputs, t)]
        packed_product(sums, h[t], packed, nothing, True)
        # Of all samples at once; of those without this step it is overwritten.
        _rnn_cells(h[t + 1].reshape(samples * size), sums.reshape(samples * size), rectified)
        for n in range(samples):
            if t >= lengths[n]:
                _copy(h[t + 1, n], h[t, n])
    _by_sample(y, h[1:], lengths, reverse)


@kernel
def rnn_in_words(y, h, room, inputs, packed, nothing, lengths, reverse, rectified):
    """Writes what `rnn` does to y alone: see `lstm_in_words`."""
    samples, steps = y.shape[0], y.shape[1]
    for t in range(steps):
        sums = room[_contribute(room, inputs, t)]
        packed_product(sums, h, packed, nothing, True)
        for n in range(samples):
            if t < lengths[n]:
                _rnn_cells(h[n], sums[n], rectified)
            _put(y, t, n, h[n], lengths, reverse)


@inlined
def rnn_step_back(dgates, dh, dy, h, lengths, reverse, rectified, t):
    """Write the gradients of what step t's nonlinearity takes: see `rnn_backward`."""
    samples, size = dgates.shape[1], dgates.shape[2]
    zero, one = constant(dh, "zero"), constant(dh, "one")
    for n in range(samples):
        drow = dgates[t, n]
        if t >= lengths[n]:
            _clear(drow)
            continue
        now, above, dhidden = h[t + 1, n], dy[n, _step(n, t, lengths, reverse)], dh[n]
        _fetch_row(dy, n + 1, t, lengths, reverse)
        if rectified:
            for j in range(size):
                total = zero if wide(now[j]) <= zero else above[j] + dhidden[j]
                drow[j] = narrowed(drow, total)
        else:
            for j in range(size):
                state = wide(now[j])
                drow[j] = narrowed(drow, (above[j] + dhidden[j]) * (one - state * state))


@kernel
def rnn_backward(dgates, dh, dy, h, packed, nothing, lengths, reverse, rectified):
    """Writes dgates (T, N, H); dh (N, H), that of the last state, becomes that of the initial one.
    dgates and h may be words.
    """
    for t in range(len(dgates) - 1, -1, -1):
        rnn_step_back(dgates, dh, dy, h, lengths, reverse, rectified, t)
        to_previous(dh, dgates[t], packed, nothing, lengths, t)
