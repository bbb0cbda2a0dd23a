"""Scaled dot-product attention, block by block: y = softmax(scale q kᵀ) v for every sample and head
(Vaswani et al. 2017, eq. 1).

The scores of STRIP queries and KEYS keys are held at a time; the softmax over all keys is made up
as the blocks pass (Milakov and Gimelshein 2018; Rabe and Staats 2021, arXiv 2112.05682; Dao et al.
2022, arXiv 2205.14135). Of each row only the greatest score and the sum are kept, from which
backward computes the probabilities again: memory grows with the length, not with its square.

q (N, T, …), k and v (N, U, …) hold the heads side by side: head h of k has the D columns from
`at_k` + h D on, so that the three may be parts of one array; so are dq, dk, dv. y (N, T, H D),
saved (2, N, H, T). `lengths` (N,) says how many keys a sample has. With `causal`, query i sees keys
0..i. `mask` (N or 1, H or 1, T or 1, U) is True where a query sees a key; empty: everywhere. A
query that sees no key gets 0. Probabilities below `threshold` / 2^32 of a Philox number are
dropped, the others multiplied by `keep`.

`work` is scratch for what `forward_work` and `backward_work` say.
"""

import numpy as np

from .gemm import transpose_plane
from .jit import inlined, kernel
from .llvm.memory import address_of, copy_rows
from .llvm.planes import rows_of_1, rows_of_2
from .llvm.simd_rows import strip_dot, strip_exp, strip_max, strip_softmax_gradient
from .llvm.vmath import constant, exp, number
from .machine import VECTOR_BYTES
from .random import philox

# Queries and keys whose scores are computed at a time: 6 KiB in float32. With few queries, causal
# attention computes little that none of them sees. KEYS is a multiple of the lanes of ROW_BYTES,
# and of the numbers that Philox gives at a time.
STRIP = 16
KEYS = 96


def _wide(features: int, itemsize: int) -> int:
    lanes = VECTOR_BYTES // itemsize
    return -(-features // lanes) * lanes


def forward_work(keys: int, features: int, itemsize: int) -> tuple[int, ...]:
    """Return the numbers of elements of: a block of scores; the keys of a head, transposed; its
    values; a block; twice a strip.
    """
    wide = _wide(features, itemsize)
    return (
        STRIP * KEYS,
        -(-keys // KEYS) * KEYS * wide,
        keys * wide,
        KEYS * wide,
        STRIP * wide,
        STRIP * wide,
    )


def backward_work(queries: int, features: int, itemsize: int) -> tuple[int, ...]:
    """Return the numbers of elements of: a block of scores, and their gradients; five times a
    block; three times a head.
    """
    wide = _wide(features, itemsize)
    return (*[STRIP * KEYS] * 2, *[KEYS * wide] * 5, *[queries * wide] * 3)


@inlined
def _gather(rows, wide, x):
    """Write the rows of x (R, D), which may lie far apart, next to each other, `wide` elements
    each.
    """
    copy_rows(
        x,
        address_of(rows),
        wide * x.itemsize,
        address_of(x),
        x.strides[0],
        x.shape[0],
        x.shape[1],
        0,
    )


@inlined
def _scatter(x, rows, wide):
    """Write to x (R, D) what `_gather` would read."""
    copy_rows(
        x,
        address_of(x),
        x.strides[0],
        address_of(rows),
        wide * x.itemsize,
        x.shape[0],
        x.shape[1],
        0,
    )


@inlined
def _scale(to, to_row, rows, wide, factors, n):
    """Write the n columns of rows, times each row's factor."""
    copy_rows(
        factors,
        to,
        to_row,
        address_of(rows),
        wide * factors.itemsize,
        factors.size,
        n,
        address_of(factors),
    )


@inlined
def _transpose(columns, rows, wide, count):
    """Write the transpose (wide, KEYS) of so many rows, and what stands after them up to a whole
    vector.
    """
    lanes = VECTOR_BYTES // rows.itemsize
    whole = (count + lanes - 1) // lanes * lanes
    transpose_plane(
        columns[: wide * KEYS].reshape((wide, KEYS)), rows[: whole * wide].reshape((whole, wide))
    )


@inlined
def _product(like, c, c_row, a, a_row, a_k, m, b, b_row, k, n, accumulate):
    """Write (add) a (m, k) times b (k, n), n rounded up to whole vectors; addresses and distances
    in bytes.
    """
    lanes = VECTOR_BYTES // like.itemsize
    vectors = (n + lanes - 1) // lanes
    for v in range(0, vectors - 1, 2):
        rows_of_2(
            like,
            m,
            c + v * VECTOR_BYTES,
            c_row,
            a,
            a_row,
            a_k,
            b + v * VECTOR_BYTES,
            b_row,
            k,
            accumulate,
        )
    if vectors % 2:
        at = (vectors - 1) * VECTOR_BYTES
        rows_of_1(like, m, c + at, c_row, a, a_row, a_k, b + at, b_row, k, accumulate)


@inlined
def _hide(scores, mask, n, h, i0, rows, start, width):
    """Write -inf where a query of the strip does not see a key."""
    none = number(scores, -np.inf)
    for r in range(rows):
        row = scores[r * KEYS : r * KEYS + width]
        seen = mask[
            n % len(mask), h % mask.shape[1], (i0 + r) % mask.shape[2], start : start + width
        ]
        for j in range(width):
            row[j] = row[j] if seen[j] else none


@inlined
def _draw(bits, row, rows, block, sample, step, draw, seed):
    """Write the random numbers of a strip that begins with this row.

    Key j of a block takes output j // (KEYS / 4) of Philox, so that neighbours are drawn side by
    side.
    """
    quarter = KEYS // 4
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> np.uint64(32))
    for r in range(rows):
        b0, b1 = (
            bits[4 * r * quarter : (4 * r + 1) * quarter],
            bits[(4 * r + 1) * quarter : (4 * r + 2) * quarter],
        )
        b2, b3 = (
            bits[(4 * r + 2) * quarter : (4 * r + 3) * quarter],
            bits[(4 * r + 3) * quarter : (4 * r + 4) * quarter],
        )
        first = np.uint32(((row + r) * (1 << 10) + block) * quarter)
        for b in range(quarter):
            b0[b], b1[b], b2[b], b3[b] = philox(
                first + np.uint32(b), np.uint32(sample), np.uint32(step), np.uint32(draw), k0, k1
            )


@inlined
def _drop(p, bits, rows, width, threshold, keep):
    """Multiply a strip by its mask: `keep` where a random number is at least the threshold, else
    0.
    """
    zero = constant(p, "zero")
    for r in range(rows):
        row, drawn = p[r * KEYS : r * KEYS + width], bits[r * KEYS : r * KEYS + width]
        for j in range(width):
            row[j] = row[j] * keep if drawn[j] >= threshold else zero


@kernel
def forward(y, saved, work, bits, q, k, v, at_q, at_k, at_v, lengths, mask, scale, causal, dropout):
    """Writes y, and of each row what it was shifted by and 1 over its sum.

    work: `forward_work`. bits (STRIP KEYS,): scratch. dropout: (threshold, keep, first sample,
    step, draw, seed); a threshold of 0 drops nothing.
    """
    scores, columns_k, rows_v, block_k, rows_q, sums = work
    samples, queries, width_of_y = y.shape
    heads = saved.shape[2]
    features = width_of_y // heads
    size = y.itemsize
    wide = sums.size // STRIP
    # Of one type, so that what multiplies is compiled once.
    write, add = np.int64(0), np.int64(1)
    scale = number(y, scale)
    zero, one, none = constant(y, "zero"), constant(y, "one"), number(y, -np.inf)
    threshold, keep, first_sample, step, draw, seed = dropout
    numbers = np.empty((5, STRIP), y.dtype)
    row, s_row = wide * size, KEYS * size
    for n in range(samples):
        length = lengths[n]
        for h in range(heads):
            begin = h * features
            for start in range(0, length, KEYS):
                packed = min(KEYS, length - start)
                _gather(
                    block_k,
                    wide,
                    k[n, start : start + packed, at_k + begin : at_k + begin + features],
                )
                _transpose(columns_k[start * wide :], block_k, wide, packed)
            _gather(rows_v, wide, v[n, :length, at_v + begin : at_v + begin + features])
            for i0 in range(0, queries, STRIP):
                rows = min(STRIP, queries - i0)
                limit = min(length, i0 + rows) if causal else length
                greatest, total, top = numbers[0, :rows], numbers[1, :rows], numbers[2, :rows]
                shift, part = numbers[3, :rows], numbers[4, :rows]
                greatest[:] = none
                total[:] = zero
                _gather(rows_q, wide, q[n, i0 : i0 + rows, at_q + begin : at_q + begin + features])
                if limit == 0:
                    sums[:] = zero
                for start in range(0, limit, KEYS):
                    block, width = start // KEYS, min(KEYS, limit - start)
                    b = address_of(columns_k) + start * row
                    _product(
                        y,
                        address_of(scores),
                        s_row,
                        address_of(rows_q),
                        row,
                        size,
                        rows,
                        b,
                        s_row,
                        features,
                        width,
                        write,
                    )
                    if mask.size:
                        _hide(scores, mask, n, h, i0, rows, start, width)
                    seen, more = (i0 + 1 - start, 1) if causal else (width, 0)
                    strip_max(top, scores, KEYS, width, seen, more)
                    for r in range(rows):
                        now = scale * top[r]
                        now = greatest[r] if greatest[r] > now else now
                        top[r] = now
                        shift[r] = zero if now == none else now
                    strip_exp(part, scores, KEYS, width, seen, more, scale, shift)
                    if start:
                        for r in range(rows):
                            factor = exp(greatest[r] - shift[r])
                            part[r] += total[r] * factor
                            greatest[r] = factor
                        _scale(address_of(sums), row, sums, wide, greatest, features)
                    for r in range(rows):
                        greatest[r], total[r] = top[r], part[r]
                    if threshold:
                        _draw(
                            bits, h * queries + i0, rows, block, first_sample + n, step, draw, seed
                        )
                        _drop(scores, bits, rows, width, threshold, keep)
                    b = address_of(rows_v) + start * row
                    accumulate = add if start else write
                    _product(
                        y,
                        address_of(sums),
                        row,
                        address_of(scores),
                        s_row,
                        size,
                        rows,
                        b,
                        row,
                        width,
                        features,
                        accumulate,
                    )
                for r in range(rows):
                    shift[r] = zero if greatest[r] == none else greatest[r]
                    total[r] = zero if total[r] == zero else one / total[r]
                for r in range(rows):
                    saved[0, n, h, i0 + r], saved[1, n, h, i0 + r] = shift[r], total[r]
                _scale(
                    address_of(y) + ((n * queries + i0) * width_of_y + begin) * size,
                    y.strides[1],
                    sums,
                    wide,
                    total,
                    features,
                )


@kernel
def backward(
    dq,
    dk,
    dv,
    work,
    bits,
    dy,
    y,
    saved,
    q,
    k,
    v,
    at_q,
    at_k,
    at_v,
    lengths,
    mask,
    scale,
    causal,
    dropout,
):
    """Writes dv = pᵀ dy, dq = scale ds k and dk = scale dsᵀ q, where ds = p (dp - sum of dp p over
    keys) and dp = dy vᵀ.

    The sum is that of dy y over features (Dao et al. 2022, section B.2, eq. 4). work:
    `backward_work`.
    """
    (
        scores,
        gradients,
        rows_k,
        columns_k,
        columns_v,
        block_dk,
        block_dv,
        rows_q,
        rows_dy,
        rows_dq,
    ) = work
    samples, queries, width_of_y = y.shape
    heads = saved.shape[2]
    features = width_of_y // heads
    size = y.itemsize
    wide = rows_k.size // KEYS
    # Of one type, so that what multiplies is compiled once.
    write, add = np.int64(0), np.int64(1)
    scale = number(y, scale)
    zero = constant(y, "zero")
    threshold, keep, first_sample, step, draw, seed = dropout
    means = np.empty(queries, y.dtype)
    row, s_row = wide * size, KEYS * size
    for n in range(samples):
        length = lengths[n] if queries else 0
        for h in range(heads):
            begin = h * features
            of_q = slice(at_q + begin, at_q + begin + features)
            of_k = slice(at_k + begin, at_k + begin + features)
            of_v = slice(at_v + begin, at_v + begin + features)
            of_y = slice(begin, begin + features)
            dk[n, length:, of_k] = zero
            dv[n, length:, of_v] = zero
            if length == 0:
                dq[n, :, of_q] = zero
                continue
            _gather(rows_q, wide, q[n, :, of_q])
            _gather(rows_dy, wide, dy[n, :, of_y])
            strip_dot(means, dy[n, :, of_y], y[n, :, of_y])
            for start in range(0, length, KEYS):
                block, packed = start // KEYS, min(KEYS, length - start)
                _gather(rows_k, wide, v[n, start : start + packed, of_v])
                _transpose(columns_v, rows_k, wide, packed)
                _gather(rows_k, wide, k[n, start : start + packed, of_k])
                _transpose(columns_k, rows_k, wide, packed)
                # The last strip first: it sees all keys, so that it writes what the others add to.
                for i0 in range(
                    (queries - 1) // STRIP * STRIP, start - STRIP if causal else -1, -STRIP
                ):
                    rows = min(STRIP, queries - i0)
                    first = write if i0 + rows == queries else add
                    width = min(packed, i0 + rows - start) if causal else packed
                    s, g = address_of(scores), address_of(gradients)
                    a, b = address_of(rows_q) + i0 * row, address_of(rows_dy) + i0 * row
                    _product(
                        y,
                        s,
                        s_row,
                        a,
                        row,
                        size,
                        rows,
                        address_of(columns_k),
                        s_row,
                        features,
                        width,
                        write,
                    )
                    _product(
                        y,
                        g,
                        s_row,
                        b,
                        row,
                        size,
                        rows,
                        address_of(columns_v),
                        s_row,
                        features,
                        width,
                        write,
                    )
                    if mask.size:
                        _hide(scores, mask, n, h, i0, rows, start, width)
                    if threshold:
                        _draw(
                            bits, h * queries + i0, rows, block, first_sample + n, step, draw, seed
                        )
                        _drop(gradients, bits, rows, width, threshold, keep)
                    seen, more = (i0 + 1 - start, 1) if causal else (width, 0)
                    shifts, inverses = (
                        saved[0, n, h, i0 : i0 + rows],
                        saved[1, n, h, i0 : i0 + rows],
                    )
                    mean = means[i0 : i0 + rows]
                    strip_softmax_gradient(
                        scores, gradients, KEYS, width, seen, more, scale, shifts, inverses, mean
                    )
                    if threshold:
                        _drop(scores, bits, rows, width, threshold, keep)
                    _product(
                        y,
                        address_of(block_dv),
                        row,
                        s,
                        size,
                        s_row,
                        width,
                        b,
                        row,
                        rows,
                        features,
                        first,
                    )
                    _product(
                        y,
                        address_of(block_dk),
                        row,
                        g,
                        size,
                        s_row,
                        width,
                        a,
                        row,
                        rows,
                        features,
                        first,
                    )
                    to = address_of(rows_dq) + i0 * row
                    _product(
                        y,
                        to,
                        row,
                        g,
                        s_row,
                        size,
                        rows,
                        address_of(rows_k),
                        row,
                        width,
                        features,
                        add if start else write,
                    )
                _scatter(dk[n, start : start + packed, of_k], block_dk, wide)
                _scatter(dv[n, start : start + packed, of_v], block_dv, wide)
            _scatter(dq[n, :, of_q], rows_dq, wide)
