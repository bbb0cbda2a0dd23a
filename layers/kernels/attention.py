"""Scaled dot-product attention, block by block: y = softmax(scale q kᵀ) v for every sample and head (Vaswani et al. 2017, eq. 1).

The scores of STRIP queries and KEYS keys are held at a time; the softmax over all keys is made up as the blocks pass (Milakov and
Gimelshein 2018; Rabe and Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv 2205.14135). Of each row only the greatest score and
the sum are kept, from which backward computes the probabilities again: memory grows with the length, not with its square.

q (N, T, …), k and v (N, U, …) hold the heads side by side: head h of k has the D columns from `at_k` + h D on, so that the three
may be parts of one array; so are dq, dk, dv. y (N, T, H D), saved (2, N, H, T). `lengths` (N,) says how many keys a sample has.
With `causal`, query i sees keys 0..i. `mask` (N or 1, H or 1, T or 1, U) is True where a query sees a key; empty: everywhere. A
query that sees no key gets 0. Probabilities below `threshold` / 2^32 of a Philox number are dropped, the others multiplied by
`keep`.

`work` is room for what `sizes_of_work` says.
"""

import numpy as np

from .gemm import pack_panel, panel_vectors, tiles
from .jit import inlined, kernel
from .random import philox
from .simd import VECTOR_BYTES
from .simd_rows import row_dot, row_exp, row_max, row_softmax_gradient
from .vmath import constant, exp, number

# Queries and keys whose scores are computed at a time: 12 KiB in float32. KEYS is a multiple of the width of every panel, and of
# the numbers that Philox gives at a time.
STRIP = 32
KEYS = 96


def sizes_of_work(keys: int, features: int, itemsize: int) -> tuple[int, int, int]:
    """Return the numbers of elements of: the scores of a block; the packed keys of a head; the packed queries of a strip."""
    lanes = VECTOR_BYTES // itemsize
    wide = -(-features // lanes) * lanes
    return STRIP * KEYS, (keys + lanes) * wide, STRIP * wide


@inlined
def _pack(packed, block, transposed):
    """Write the panels of a block (K, N), or of its transpose, one after the other: K is not cut."""
    inner, n = (block.shape[1], block.shape[0]) if transposed else block.shape
    lanes = VECTOR_BYTES // packed.itemsize
    at = 0
    j = 0
    while j < n:
        vectors = panel_vectors((n - j + lanes - 1) // lanes)
        columns = min(n - j, vectors * lanes)
        pack_panel(packed[at : at + inner * vectors * lanes], block, transposed, 0, inner, j, columns, vectors)
        at += inner * vectors * lanes
        j += columns


@inlined
def _whole(size, like):
    lanes = VECTOR_BYTES // like.itemsize
    return (size + lanes - 1) // lanes * lanes


@inlined
def _pack_keys(packed, rows, transposed):
    """Write the panels of every block of KEYS rows (U, D), or of its transpose; return how many elements a block takes."""
    step = KEYS * (rows.shape[1] if transposed else _whole(rows.shape[1], packed))
    for start in range(0, len(rows), KEYS):
        _pack(packed[start // KEYS * step :], rows[start : start + KEYS], transposed)
    return step


@inlined
def _address(array):
    """Return where an array lies. NumPy's is unsigned, and unsigned plus signed is floating."""
    return np.int64(array.ctypes.data)


@inlined
def _product(like, c, c_row, a, a_row, a_k, m, k, packed, inner, columns_packed, n, accumulate):
    """Write (add) a (m, k) times the first k of the `inner` rows of panels of so many columns: n of them, and whole panels."""
    size = like.itemsize
    lanes = VECTOR_BYTES // size
    no_bias = np.int64(0)
    j = no_bias
    while j < n:
        vectors = panel_vectors((columns_packed - j + lanes - 1) // lanes)
        columns = min(columns_packed - j, vectors * lanes)
        last = columns - (vectors - 1) * lanes
        tiles(like, c + j * size, c_row, a, a_row, a_k, m, packed, k, vectors, last, no_bias, accumulate)
        packed += inner * vectors * lanes * size
        j += columns


@inlined
def _visible(i, start, width, length, causal):
    """Return how many of the keys start..start + width query i sees, other masks apart."""
    return max(0, min((min(length, i + 1) if causal else length) - start, width))


@inlined
def _hide(scores, seen):
    """Write -inf where a key is not seen."""
    none = number(scores, -np.inf)
    for j in range(seen.size):
        scores[j] = scores[j] if seen[j] else none


@inlined
def _drop(p, bits, row, block, sample, step, call, seed, threshold, keep):
    """Multiply p by its mask: `keep` where a random number is at least the threshold, else 0.

    Key j of a block takes output j // (KEYS / 4) of Philox, so that neighbours are drawn side by side.
    """
    quarter = KEYS // 4
    zero = constant(p, "zero")
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> np.uint64(32))
    b0, b1, b2, b3 = bits[:quarter], bits[quarter : 2 * quarter], bits[2 * quarter : 3 * quarter], bits[3 * quarter : 4 * quarter]
    first = np.uint32((row * (1 << 10) + block) * quarter)
    for b in range(quarter):
        b0[b], b1[b], b2[b], b3[b] = philox(first + np.uint32(b), np.uint32(sample), np.uint32(step), np.uint32(call), k0, k1)
    for j in range(p.size):
        p[j] = p[j] * keep if bits[j] >= threshold else zero


@kernel
def forward(y, saved, work, bits, q, k, v, at_q, at_k, at_v, lengths, mask, scale, causal, dropout):
    """Writes y, and of each row what it was shifted by and 1 over its sum.

    work: (scores, packed keys, packed values). dropout: (threshold, keep, first sample, step, call, seed); a threshold of 0 drops
    nothing.
    """
    scores, packed_k, packed_v = work
    samples, queries, width_of_y = y.shape
    heads = saved.shape[2]
    features = width_of_y // heads
    size = y.itemsize
    # Of one type, so that what multiplies is compiled once.
    write, add = np.int64(0), np.int64(1)
    scale = number(y, scale)
    zero, one, none = constant(y, "zero"), constant(y, "one"), number(y, -np.inf)
    threshold, keep, first_sample, step, call, seed = dropout
    greatest, total = np.empty(STRIP, y.dtype), np.empty(STRIP, y.dtype)
    q_row, y_row, s_row = q.strides[1], y.strides[1], KEYS * size
    for n in range(samples):
        length = lengths[n]
        for h in range(heads):
            begin = h * features
            keys = k[n, :length, at_k + begin : at_k + begin + features]
            values = v[n, :length, at_v + begin : at_v + begin + features]
            step_k = _pack_keys(packed_k, keys, True)
            step_v = _pack_keys(packed_v, values, False)
            for i0 in range(0, queries, STRIP):
                rows = min(STRIP, queries - i0)
                limit = min(length, i0 + rows) if causal else length
                to = y[n, i0 : i0 + rows, begin : begin + features]
                of = q[n, i0 : i0 + rows, at_q + begin : at_q + begin + features]
                greatest[:rows] = none
                total[:rows] = zero
                if limit == 0:
                    to[:] = 0
                for start in range(0, limit, KEYS):
                    block = start // KEYS
                    packed, width = min(KEYS, length - start), min(KEYS, limit - start)
                    panels = _address(packed_k) + block * step_k * size
                    address = _address(scores)
                    _product(y, address, s_row, _address(of), q_row, size, rows, features, panels, features, packed, width, write)
                    for r in range(rows):
                        i = i0 + r
                        row = scores[r * KEYS : (r + 1) * KEYS]
                        seen = _visible(i, start, width, length, causal)
                        if mask.size:
                            _hide(row[:seen], mask[n % len(mask), h % mask.shape[1], i % mask.shape[2], start : start + seen])
                        top = scale * row_max(row, seen)
                        top = greatest[r] if greatest[r] > top else top
                        shift = zero if top == none else top
                        part = row_exp(row, seen, width, scale, shift)
                        if start:
                            factor = exp(greatest[r] - shift)
                            into = y[n, i, begin : begin + features]
                            for j in range(features):
                                into[j] *= factor
                            part += total[r] * factor
                        greatest[r], total[r] = top, part
                        if threshold:
                            _drop(row[:seen], bits, h * queries + i, block, first_sample + n, step, call, seed, threshold, keep)
                    panels = _address(packed_v) + block * step_v * size
                    _product(
                        y,
                        _address(to),
                        y_row,
                        address,
                        s_row,
                        size,
                        rows,
                        width,
                        panels,
                        packed,
                        features,
                        features,
                        add if start else write,
                    )
                for r in range(rows):
                    inverse = one / total[r] if total[r] > zero else zero
                    into = y[n, i0 + r, begin : begin + features]
                    for j in range(features):
                        into[j] *= inverse
                    saved[0, n, h, i0 + r] = zero if greatest[r] == none else greatest[r]
                    saved[1, n, h, i0 + r] = inverse


@kernel
def backward(dq, dk, dv, work, bits, dy, y, saved, q, k, v, at_q, at_k, at_v, lengths, mask, scale, causal, dropout):
    """Writes dv = pᵀ dy, dq = scale ds k and dk = scale dsᵀ q, where ds = p (dp - sum of dp p over keys) and dp = dy vᵀ.

    The sum is that of dy y over features (Dao et al. 2022, section B.2, eq. 4). work: (scores, their gradients, packed keys
    transposed, packed values transposed, packed keys, packed queries, packed gradients).
    """
    scores, gradients, packed_k, packed_v, packed_rows, packed_q, packed_dy = work
    samples, queries, width_of_y = y.shape
    heads = saved.shape[2]
    features = width_of_y // heads
    size = y.itemsize
    # Of one type, so that what multiplies is compiled once.
    write, add = np.int64(0), np.int64(1)
    scale = number(y, scale)
    zero = constant(y, "zero")
    threshold, keep, first_sample, step, call, seed = dropout
    mean = np.empty(STRIP, y.dtype)
    q_row, y_row, s_row = q.strides[1], dy.strides[1], KEYS * size
    dq_row, dk_row, dv_row = dq.strides[1], dk.strides[1], dv.strides[1]
    for n in range(samples):
        length = lengths[n]
        for h in range(heads):
            begin = h * features
            columns_q, columns_k, columns_v = at_q + begin, at_k + begin, at_v + begin
            keys, values = k[n, :length, columns_k : columns_k + features], v[n, :length, columns_v : columns_v + features]
            step_k = _pack_keys(packed_k, keys, True)
            _pack_keys(packed_v, values, True)
            step_rows = _pack_keys(packed_rows, keys, False)
            for j in range(length if queries else 0, k.shape[1]):
                dk[n, j, columns_k : columns_k + features] = zero
                dv[n, j, columns_v : columns_v + features] = zero
            # The last strip first: it sees all keys, so that it writes what the others add to.
            for i0 in range((queries - 1) // STRIP * STRIP, -1, -STRIP):
                rows = min(STRIP, queries - i0)
                first = write if i0 + rows == queries else add
                limit = min(length, i0 + rows) if causal else length
                of = q[n, i0 : i0 + rows, columns_q : columns_q + features]
                into = dq[n, i0 : i0 + rows, columns_q : columns_q + features]
                given = dy[n, i0 : i0 + rows, begin : begin + features]
                _pack(packed_q, of, False)
                _pack(packed_dy, given, False)
                if limit == 0:
                    into[:] = 0
                for r in range(rows):
                    mean[r] = row_dot(given[r], y[n, i0 + r, begin : begin + features])
                for start in range(0, limit, KEYS):
                    block = start // KEYS
                    packed, width = min(KEYS, length - start), min(KEYS, limit - start)
                    s, g = _address(scores), _address(gradients)
                    panels = _address(packed_k) + block * step_k * size
                    _product(y, s, s_row, _address(of), q_row, size, rows, features, panels, features, packed, width, write)
                    panels = _address(packed_v) + block * step_k * size
                    _product(y, g, s_row, _address(given), y_row, size, rows, features, panels, features, packed, width, write)
                    for r in range(rows):
                        i = i0 + r
                        row, gradient = scores[r * KEYS : (r + 1) * KEYS], gradients[r * KEYS : (r + 1) * KEYS]
                        seen = _visible(i, start, width, length, causal)
                        if mask.size:
                            _hide(row[:seen], mask[n % len(mask), h % mask.shape[1], i % mask.shape[2], start : start + seen])
                        place = h * queries + i
                        if threshold:
                            sample = first_sample + n
                            _drop(gradient[:seen], bits, place, block, sample, step, call, seed, threshold, keep)
                        row_softmax_gradient(row, gradient, seen, width, scale, saved[0, n, h, i], saved[1, n, h, i], mean[r])
                        if threshold:
                            for j in range(seen):
                                row[j] = row[j] * keep if bits[j] >= threshold else zero
                    at = _address(dv[n]) + start * dv_row + columns_v * size
                    _product(
                        y, at, dv_row, s, size, s_row, width, rows, _address(packed_dy), rows, features, features, first
                    )  # fmt: skip
                    at = _address(dk[n]) + start * dk_row + columns_k * size
                    _product(
                        y, at, dk_row, g, size, s_row, width, rows, _address(packed_q), rows, features, features, first
                    )  # fmt: skip
                    panels = _address(packed_rows) + block * step_rows * size
                    _product(
                        y,
                        _address(into),
                        dq_row,
                        g,
                        s_row,
                        size,
                        rows,
                        width,
                        panels,
                        packed,
                        features,
                        features,
                        add if start else write,
                    )
