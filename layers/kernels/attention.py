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

`work` is scratch for what `forward_work` and `backward_work` say; `order` says what products are
computed in: see `attention_products`.
"""

import numpy as np

from .attention_products import (
    INNER,
    KEYS,
    LANES,
    pair_rows_of,
    product_of_features,
    product_of_keys,
    product_of_queries,
    round_rows,
    turn_rows,
    turn_strip,
)
from .jit import inlined, kernel
from .llvm.memory import address_of, copy_rows
from .llvm.simd_rows import strip_dot, strip_exp, strip_max, strip_softmax_gradient
from .llvm.vmath import constant, exp, number
from .machine import VECTOR_BYTES
from .random import philox

STRIP = 16
"""Queries whose scores are computed at a time: 6 KiB in float32. With few of them causal attention
computes little that none of them sees.
"""
STRIP_BF16 = 32
"""As many as a tile of TDPBF16PS has inner indices, as these are one product of a gradient. Part of
the contract.
"""


def _wide(features: int, itemsize: int, halved: bool) -> int:
    lanes = INNER if halved else VECTOR_BYTES // itemsize
    return -(-features // lanes) * lanes


def scores(halved: bool) -> int:
    """Return the number of scores that are computed at a time, in bfloat16 or not."""
    return _strip(halved) * KEYS


def _strip(halved: bool) -> int:
    return STRIP_BF16 if halved else STRIP


def forward_work(keys: int, features: int, itemsize: int, halved: bool) -> tuple[int, ...]:
    """Return the numbers of elements of: a block of scores; the keys of a head, transposed; its
    values; a block; twice a strip; the panels of the values. `halved`: in bfloat16.
    """
    wide, rows = _wide(features, itemsize, halved), _strip(halved)
    blocks = -(-keys // KEYS) * KEYS
    return (
        rows * KEYS,
        blocks * wide,
        keys * wide,
        KEYS * wide,
        rows * wide,
        rows * wide,
        blocks * wide // 2 * halved,
    )


def backward_work(queries: int, features: int, itemsize: int, halved: bool) -> tuple[int, ...]:
    """Return the numbers of elements of: a block of scores, and their gradients; five times a
    block; three times a head; panels of a block, and twice of a head; a transposed block of scores,
    and a part of it.
    """
    wide, rows = _wide(features, itemsize, halved), _strip(halved)
    strips = -(-queries // rows) * rows
    panels = (KEYS * wide // 2, *[strips * wide // 2] * 2, KEYS * rows // 2, LANES * rows // 2)
    return (
        *[rows * KEYS] * 2,
        *[KEYS * wide] * 5,
        *[queries * wide] * 3,
        *(size * halved for size in panels),
    )


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
def forward(
    y, saved, work, bits, order, q, k, v, at_q, at_k, at_v, lengths, mask, scale, causal, dropout
):
    """Writes y, and of each row what it was shifted by and 1 over its sum.

    work: `forward_work`. bits (STRIP KEYS,): scratch. dropout: (threshold, keep, first sample,
    step, draw, seed); a threshold of 0 drops nothing.
    """
    scores, columns_k, rows_v, block_k, rows_q, sums, panels_v = work
    samples, queries, width_of_y = y.shape
    heads = saved.shape[2]
    features = width_of_y // heads
    size = y.itemsize
    height = scores.size // KEYS
    wide = sums.size // height
    # Of one type, so that what multiplies is compiled once.
    write, add = np.int64(0), np.int64(1)
    scale = number(y, scale)
    zero, one, none = constant(y, "zero"), constant(y, "one"), number(y, -np.inf)
    threshold, keep, first_sample, step, draw, seed = dropout
    numbers = np.empty((5, height), y.dtype)
    row = wide * size
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
                round_rows(order, block_k, wide, features, packed)
                turn_rows(order, columns_k[start * wide :], block_k, wide, packed)
            _gather(rows_v, wide, v[n, :length, at_v + begin : at_v + begin + features])
            round_rows(order, rows_v, wide, features, length)
            for start in range(0, length, KEYS):
                packed = min(KEYS, length - start)
                panels = panels_v[start * wide // 2 :]
                pair_rows_of(order, panels, rows_v, start, wide, packed, KEYS // 2)
            for i0 in range(0, queries, height):
                rows = min(height, queries - i0)
                limit = min(length, i0 + rows) if causal else length
                greatest, total, top = numbers[0, :rows], numbers[1, :rows], numbers[2, :rows]
                shift, part = numbers[3, :rows], numbers[4, :rows]
                greatest[:] = none
                total[:] = zero
                _gather(rows_q, wide, q[n, i0 : i0 + rows, at_q + begin : at_q + begin + features])
                round_rows(order, rows_q, wide, features, rows)
                if limit == 0:
                    sums[:] = zero
                for start in range(0, limit, KEYS):
                    block, width = start // KEYS, min(KEYS, limit - start)
                    b = columns_k[start * wide :]
                    product_of_features(order, scores, rows_q, 0, rows, b, wide, features, width)
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
                    round_rows(order, scores, KEYS, width, rows)
                    product_of_keys(
                        order,
                        sums,
                        0,
                        scores,
                        rows,
                        rows_v,
                        panels_v,
                        start,
                        wide,
                        width,
                        features,
                        add if start else write,
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
    order,
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
        panels_k,
        panels_q,
        panels_dy,
        turned,
        room,
    ) = work
    samples, queries, width_of_y = y.shape
    heads = saved.shape[2]
    features = width_of_y // heads
    wide = rows_k.size // KEYS
    height = scores.size // KEYS
    # Of one type, so that what multiplies is compiled once.
    write, add = np.int64(0), np.int64(1)
    scale = number(y, scale)
    zero = constant(y, "zero")
    threshold, keep, first_sample, step, draw, seed = dropout
    means = np.empty(queries, y.dtype)
    pairs = height // 2
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
            round_rows(order, rows_q, wide, features, queries)
            round_rows(order, rows_dy, wide, features, queries)
            for i0 in range(0, queries, height):
                rows, at = min(height, queries - i0), i0 * wide // 2
                pair_rows_of(order, panels_q[at:], rows_q, i0, wide, rows, pairs)
                pair_rows_of(order, panels_dy[at:], rows_dy, i0, wide, rows, pairs)
            for start in range(0, length, KEYS):
                block, packed = start // KEYS, min(KEYS, length - start)
                _gather(rows_k, wide, v[n, start : start + packed, of_v])
                round_rows(order, rows_k, wide, features, packed)
                turn_rows(order, columns_v, rows_k, wide, packed)
                _gather(rows_k, wide, k[n, start : start + packed, of_k])
                round_rows(order, rows_k, wide, features, packed)
                turn_rows(order, columns_k, rows_k, wide, packed)
                pair_rows_of(order, panels_k, rows_k, 0, wide, packed, KEYS // 2)
                # The last strip first: it sees all keys, so that it writes what the others add to.
                for i0 in range(
                    (queries - 1) // height * height, start - height if causal else -1, -height
                ):
                    rows = min(height, queries - i0)
                    first = write if i0 + rows == queries else add
                    width = min(packed, i0 + rows - start) if causal else packed
                    product_of_features(
                        order, scores, rows_q, i0, rows, columns_k, wide, features, width
                    )
                    product_of_features(
                        order, gradients, rows_dy, i0, rows, columns_v, wide, features, width
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
                    for task in range(2):
                        if task == 0:
                            into, left, right, panels = block_dv, scores, rows_dy, panels_dy
                        else:
                            into, left, right, panels = block_dk, gradients, rows_q, panels_q
                        round_rows(order, left, KEYS, width, rows)
                        turn_strip(order, turned, room, left, rows, width, pairs)
                        product_of_queries(
                            order,
                            into,
                            left,
                            turned,
                            width,
                            right,
                            panels,
                            i0,
                            wide,
                            rows,
                            pairs,
                            features,
                            first,
                        )
                    product_of_keys(
                        order,
                        rows_dq,
                        i0,
                        gradients,
                        rows,
                        rows_k,
                        panels_k,
                        0,
                        wide,
                        width,
                        features,
                        add if start else write,
                    )
                _scatter(dk[n, start : start + packed, of_k], block_dk, wide)
                _scatter(dv[n, start : start + packed, of_v], block_dv, wide)
            _scatter(dq[n, :, of_q], rows_dq, wide)
