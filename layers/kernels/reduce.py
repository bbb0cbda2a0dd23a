"""Sums in a fixed order: over the rows of a shard, over shards, over blocks of the flat arrays."""

import numpy as np

from .jit import inlined, kernel, shared
from .llvm.halves import wide
from .llvm.vmath import fma

# Elements of the flat arrays that are summed at a time: a few such rows stay in the first-level
# cache. It decides no bits in `tree_sum`; in `square_sums` the caller's blocks do.
BLOCK = 1024
# Chains of additions that `square_sums` runs side by side; part of its order.
LANES = 16


@inlined
def add_columns(total, x, accumulate):
    """Write (add, if `accumulate`) the column sums of x (R, C), which may be words, in order."""
    if not accumulate:
        total[:] = 0
    for i in range(len(x)):
        row = x[i]
        for j in range(total.size):
            total[j] += wide(row[j])


@inlined
def sum_columns(sums, x, bounds, accumulate):
    """Write (add, if `accumulate`) the column sums of each shard's rows, in order; sums (S, C), x
    (R, C), bounds (S + 1,).
    """
    for s in range(len(sums)):
        add_columns(sums[s], x[bounds[s] : bounds[s + 1]], accumulate)


@kernel
def column_sums(sums, x, bounds, accumulate):
    """Writes (adds, if `accumulate`) the column sums of each shard's rows: see `sum_columns`."""
    sum_columns(sums, x, bounds, accumulate)


@shared
def _tree_sum(total, parts, sizes, start):
    """Do what `tree_sum` does."""
    n = total.size
    if len(parts) <= 2:
        # In whatever tree: the order of two terms does not matter.
        first, last = parts[0, start : start + n], parts[len(parts) - 1, start : start + n]
        if len(parts) == 2:
            for i in range(n):
                total[i] = first[i] + last[i]
        else:
            for i in range(n):
                total[i] = first[i]
        return
    shards = 0
    for p in range(len(parts)):
        shards += sizes[p]
    # The parts that wait for their siblings have different sizes, all powers of two: at most one
    # per binary digit.
    depth = 2 + int(np.log2(shards))
    stack = np.empty((depth, BLOCK), total.dtype)
    held = np.empty(depth, np.int64)
    for at in range(0, n, BLOCK):
        width = min(BLOCK, n - at)
        begin, end = start + at, start + at + width
        top = 0
        first = 0
        p = 0
        while p < len(parts):
            size = sizes[p]
            into, left = stack[top, :width], parts[p, begin:end]
            if p + 1 < len(parts) and sizes[p + 1] == size and first % (2 * size) == 0:
                right = parts[p + 1, begin:end]
                for i in range(width):
                    into[i] = left[i] + right[i]
                size *= 2
                p += 2
            else:
                for i in range(width):
                    into[i] = left[i]
                p += 1
            held[top] = size
            top += 1
            first += size
            while (
                top > 1
                and held[top - 2] == held[top - 1]
                and (first - 2 * held[top - 1]) % (2 * held[top - 1]) == 0
            ):
                into, right = stack[top - 2, :width], stack[top - 1, :width]
                for i in range(width):
                    into[i] += right[i]
                held[top - 2] *= 2
                top -= 1
        for t in range(top - 1, 0, -1):
            into, source = stack[t - 1, :width], stack[t, :width]
            for i in range(width):
                into[i] += source[i]
        result, source = total[at : at + width], stack[0, :width]
        for i in range(width):
            result[i] = source[i]


@kernel
def tree_sum(total, parts, sizes, start):
    """Writes the sum of parts[:, start : start + m] by the fixed binary tree over shard numbers.

    total (m,), parts (P, n), sizes (P,).
    Part p is the sum of sizes[p] shards, a power of two that divides the number of its first shard.
    Parts are added only to their sibling of the same size; what then remains without a sibling (the
    number of shards is no power of two) is added from the right. So the result does not depend on
    which parts were summed beforehand.
    """
    _tree_sum(total, parts, sizes, start)


@inlined
def _added_up(terms):
    """Return the sum of terms (S,), which is written over, by the fixed tree."""
    count = terms.size
    while count > 1:
        for i in range(count // 2):
            terms[i] = terms[2 * i] + terms[2 * i + 1]
        if count % 2:
            terms[count // 2] = terms[count - 1]
        count = (count + 1) // 2
    return terms[0]


@kernel
def number_sum(total, numbers):
    """Writes to total (1,) the sum of numbers (S,), one at least, by the fixed tree."""
    terms = np.empty(numbers.size, numbers.dtype)
    for i in range(numbers.size):
        terms[i] = numbers[i]
    total[0] = _added_up(terms)


@inlined
def add_step(sums, numbers, requests, losses, terms, total, parts, sizes, start):
    """Do what `step_sums` does."""
    asked = 0.0
    for i in range(requests.size):
        asked += numbers[requests[i]]
    for i in range(losses.size):
        terms[i] = numbers[losses[i]]
    sums[0] = _added_up(terms)
    sums[1] = asked
    if total.size:
        _tree_sum(total, parts, sizes, start)


@kernel
def step_sums(sums, numbers, requests, losses, terms, total, parts, sizes, start):
    """Writes what a step adds up: to sums (2,) those of numbers (n,) at the places `losses` (S,),
    by the fixed tree, and `requests` (R,), and to total (m,) what `tree_sum` does.

    terms (S,) is room; numbers, terms and sums are float64, places int64.
    """
    add_step(sums, numbers, requests, losses, terms, total, parts, sizes, start)


@kernel
def square_sums(sums, x, blocks):
    """Writes sums_p = sum of x_i^2 over i in blocks[p, 0]..blocks[p, 1] in float64; sums (P,), x
    (n,), blocks (P, 2).
    """
    lanes = np.empty(LANES, np.float64)
    for p in range(sums.size):
        lanes[:] = 0
        block = x[blocks[p, 0] : blocks[p, 1]]
        whole = block.size - block.size % LANES
        for i in range(0, whole, LANES):
            for lane in range(LANES):
                value = np.float64(block[i + lane])
                lanes[lane] = fma(value, value, lanes[lane])
        for lane in range(block.size - whole):
            value = np.float64(block[whole + lane])
            lanes[lane] = fma(value, value, lanes[lane])
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        sums[p] = total


@kernel
def absolute_sums(sums, x, blocks):
    """Writes sums_p = sum of |x_i| over i in blocks[p, 0]..blocks[p, 1] in float64; sums (P,), x
    (n,), blocks (P, 2).
    """
    for p in range(sums.size):
        total = 0.0
        for i in range(blocks[p, 0], blocks[p, 1]):
            total += abs(np.float64(x[i]))
        sums[p] = total


@kernel
def row_sums(sums, x):
    """Writes sums_r = sum of row r in float64, in `LANES` chains side by side; sums (R,), x (R,
    C).
    """
    lanes = np.empty(LANES, np.float64)
    for r in range(len(x)):
        row = x[r]
        whole = row.size - row.size % LANES
        for lane in range(LANES):
            lanes[lane] = 0.0
        for i in range(0, whole, LANES):
            for lane in range(LANES):
                lanes[lane] += np.float64(row[i + lane])
        for lane in range(row.size - whole):
            lanes[lane] += np.float64(row[whole + lane])
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        sums[r] = total


@kernel
def middle_sums(sums, x):
    """Writes sums_oi = sum over r of x_ori in float64, in order; sums (O, I), x (O, R, I)."""
    block = np.empty(BLOCK, np.float64)
    for o in range(len(x)):
        for start in range(0, sums.shape[1], BLOCK):
            width = min(BLOCK, sums.shape[1] - start)
            for i in range(width):
                block[i] = 0.0
            for r in range(x.shape[1]):
                row = x[o, r, start : start + width]
                for i in range(width):
                    block[i] += np.float64(row[i])
            for i in range(width):
                sums[o, start + i] = block[i]
