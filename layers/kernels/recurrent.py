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

from .gemm import BLOCK_M, packed_product
from .jit import inlined, kernel
from .llvm.memory import address_of, fetch_lines
from .llvm.simd_math import sigmoid_row, tanh_row
from .llvm.vmath import constant
from .machine import CACHE_LINE


@inlined
def _copy(to, of):
    """Write one row to another: an assignment to a slice takes several times as long."""
    for j in range(to.size):
        to[j] = of[j]


@inlined
def _clear(row):
    zero = constant(row, "zero")
    for j in range(row.size):
        row[j] = zero


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


@inlined
def _contribute(gates, inputs, t):
    """Write what the inputs contribute to the gates of step t and of those after it, where a number
    of steps begins.
    """
    x, packed, bias = inputs
    steps, samples, size = gates.shape
    together = max(1, BLOCK_M // max(1, samples))
    if t % together == 0:
        stop = min(t + together, steps)
        rows = (stop - t) * samples
        packed_product(
            gates[t:stop].reshape((rows, size)),
            x[t:stop].reshape((rows, x.shape[2])),
            packed,
            bias,
            False,
        )


@kernel
def lstm(y, h, c, squashed, gates, inputs, packed, nothing, lengths, reverse):
    """Writes y, h and c (T + 1, N, H) from step 1 on, tanh(c) to squashed (T, N, H), and the gates
    (T, N, 4 H) i, f, g and o.

    i, f, o = sigmoid and g = tanh of what inputs and last state contribute, c = f c + i g, h = o
    tanh(c).
    """
    steps, samples, size = squashed.shape
    for t in range(steps):
        _contribute(gates, inputs, t)
        packed_product(gates[t], h[t], packed, nothing, True)
        for n in range(samples):
            if t >= lengths[n]:
                _copy(h[t + 1, n], h[t, n])
                _copy(c[t + 1, n], c[t, n])
                continue
            row = gates[t, n]
            i, f, g, o = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
            before, now, flat, out = c[t, n], c[t + 1, n], squashed[t, n], h[t + 1, n]
            both = row[: 2 * size]
            sigmoid_row(both, both)
            tanh_row(g, g)
            sigmoid_row(o, o)
            for j in range(size):
                now[j] = f[j] * before[j] + i[j] * g[j]
            tanh_row(flat, now)
            for j in range(size):
                out[j] = o[j] * flat[j]
    _by_sample(y, h[1:], lengths, reverse)


@kernel
def lstm_backward(gates, dh, dc, dy, c, squashed, packed, nothing, lengths, reverse):
    """Writes the gates' gradients in their place; dh and dc (N, H), those of the last states,
    become those of the initial ones.

    dy is the gradient of the outputs, packed the recurrent weight.
    """
    steps, samples, size = squashed.shape
    one = constant(dh, "one")
    for step in range(steps):
        t = steps - 1 - step
        for n in range(samples):
            row = gates[t, n]
            if t >= lengths[n]:
                _clear(row)
                continue
            i, f, g, o = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
            above, dhidden, dcell = dy[n, _step(n, t, lengths, reverse)], dh[n], dc[n]
            _fetch_row(dy, n + 1, t, lengths, reverse)
            before, flat = c[t, n], squashed[t, n]
            for j in range(size):
                total, open_ = above[j] + dhidden[j], o[j]
                o[j] = total * flat[j] * open_ * (one - open_)
                dcell[j] += total * open_ * (one - flat[j] * flat[j])
            for j in range(size):
                into, new = i[j], g[j]
                i[j] = dcell[j] * new * into * (one - into)
                g[j] = dcell[j] * into * (one - new * new)
            for j in range(size):
                kept = f[j]
                f[j] = dcell[j] * before[j] * kept * (one - kept)
                dcell[j] *= kept
        _to_previous(dh, gates[t], packed, nothing, lengths, t)


@inlined
def _to_previous(dh, dgates, packed, nothing, lengths, t):
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


@kernel
def gru(y, h, inner, gates, inputs, packed, bias, lengths, reverse):
    """Writes y and h (T + 1, N, H) from step 1 on; and inner (T, N, 3 H), the last state's
    contribution, its bias (3 H,) included.

    Writes the gates (T, N, 3 H), too: r, z = sigmoid, n = tanh(x + r inner), x being what the
    inputs contribute; h = (1 - z) n + z h.
    """
    steps, samples, size = inner.shape[0], inner.shape[1], inner.shape[2] // 3
    one = constant(h, "one")
    for t in range(steps):
        _contribute(gates, inputs, t)
        packed_product(inner[t], h[t], packed, bias, False)
        for n in range(samples):
            if t >= lengths[n]:
                _copy(h[t + 1, n], h[t, n])
                continue
            row, own = gates[t, n], inner[t, n]
            r, z, new, of_new = row[:size], row[size : 2 * size], row[2 * size :], own[2 * size :]
            both, of_both = row[: 2 * size], own[: 2 * size]
            before, now = h[t, n], h[t + 1, n]
            for j in range(both.size):
                both[j] += of_both[j]
            sigmoid_row(both, both)
            for j in range(size):
                new[j] += r[j] * of_new[j]
            tanh_row(new, new)
            for j in range(size):
                now[j] = (one - z[j]) * new[j] + z[j] * before[j]
    _by_sample(y, h[1:], lengths, reverse)


@kernel
def gru_backward(gates, inner, dh, dy, h, packed, nothing, lengths, reverse):
    """Writes the gradients of gates and inner in their place; dh (N, H), that of the last state,
    becomes that of the initial one.

    dy is the gradient of the outputs, packed the recurrent weight.
    """
    steps, samples, size = inner.shape[0], inner.shape[1], inner.shape[2] // 3
    one = constant(dh, "one")
    for step in range(steps):
        t = steps - 1 - step
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
                total, kept, candidate = above[j] + dhidden[j], z[j], new[j]
                dhidden[j] = total * kept
                slope = total * (before[j] - candidate) * kept * (one - kept)
                z[j] = slope
                z_own[j] = slope
                new[j] = total * (one - kept) * (one - candidate * candidate)
            for j in range(size):
                reset, of_new = r[j], new[j]
                slope = of_new * new_own[j] * reset * (one - reset)
                r[j] = slope
                r_own[j] = slope
                new_own[j] = of_new * reset
        packed_product(dh, inner[t], packed, nothing, True)


@kernel
def rnn(y, h, gates, inputs, packed, nothing, lengths, reverse, rectified):
    """Writes y and h = tanh(V x + W h), or max(that, 0) if rectified, (T + 1, N, H) from step 1 on.

    The sum is written to gates (T, N, H).
    """
    steps, samples, size = gates.shape
    zero = constant(h, "zero")
    for t in range(steps):
        _contribute(gates, inputs, t)
        packed_product(gates[t], h[t], packed, nothing, True)
        # Of all samples at once; of those without this step it is overwritten.
        now, sums = h[t + 1].reshape(samples * size), gates[t].reshape(samples * size)
        if rectified:
            for j in range(now.size):
                now[j] = zero if sums[j] <= zero else sums[j]
        else:
            tanh_row(now, sums)
        for n in range(samples):
            if t >= lengths[n]:
                _copy(h[t + 1, n], h[t, n])
    _by_sample(y, h[1:], lengths, reverse)


@kernel
def rnn_backward(dgates, dh, dy, h, packed, nothing, lengths, reverse, rectified):
    """Writes dgates (T, N, H); dh (N, H), that of the last state, becomes that of the initial
    one.
    """
    steps, samples, size = dgates.shape
    zero, one = constant(dh, "zero"), constant(dh, "one")
    for step in range(steps):
        t = steps - 1 - step
        for n in range(samples):
            drow = dgates[t, n]
            if t >= lengths[n]:
                _clear(drow)
                continue
            now, above, dhidden = h[t + 1, n], dy[n, _step(n, t, lengths, reverse)], dh[n]
            _fetch_row(dy, n + 1, t, lengths, reverse)
            if rectified:
                for j in range(size):
                    drow[j] = zero if now[j] <= zero else above[j] + dhidden[j]
            else:
                for j in range(size):
                    drow[j] = (above[j] + dhidden[j]) * (one - now[j] * now[j])
        _to_previous(dh, dgates[t], packed, nothing, lengths, t)
