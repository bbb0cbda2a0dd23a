"""Gradients in few bytes: their largest elements, their signs, products of low rank, and what is
left out of them.

All arrays are float32 unless said.
"""

import numpy as np

from .gemm import product
from .jit import kernel
from .llvm.simd_rows import row_dot
from .llvm.vmath import fma
from .rounded_sums import BLOCK_8

_SIZE = np.uint32(0x7FFFFFFF)
"""The bits of a float32 without its sign: they are in the order of absolute values, and NaN is
above all.
"""
_LOW = np.uint32(15)
_LOW_BITS = np.uint32(0x7FFF)
COUNTS = 2**16
"""Elements of the room that `largest` counts in."""
LANES = 16
"""Chains of additions that `signs` runs side by side; part of its order."""
_DEPENDENT = 1e-4
"""What is left of a row, as a part of it, when those before it are taken away: below this it is
rounding errors.
"""


@kernel
def compensate(x, scale, residual):
    """Writes x = scale x + residual, all (n,)."""
    for i in range(x.size):
        x[i] = fma(x[i], scale, residual[i])


@kernel
def remainder(residual, x, taken):
    """Writes residual = x - taken, all (n,)."""
    for i in range(x.size):
        residual[i] = x[i] - taken[i]


@kernel
def largest(places, values, x, bits, counts):
    """Writes the k elements of x (n,) whose absolute values are largest, and their places, in the
    order of places; of equal ones the first are taken.

    values (k,), places (k,) int32, bits (n,) uint32 are those of x, counts (`COUNTS`,) int64 is
    room. Absolute values are counted by their upper 16 bits, then those with the upper bits of the
    k-th by the lower ones: a selection by radix, which knows the k-th in two passes.
    """
    k = places.size
    for c in range(COUNTS):
        counts[c] = 0
    for i in range(x.size):
        counts[(bits[i] & _SIZE) >> _LOW] += 1
    high, above = COUNTS - 1, 0
    while above + counts[high] < k:
        above += counts[high]
        high -= 1
    for c in range(COUNTS // 2):
        counts[c] = 0
    upper = np.uint32(high)
    for i in range(x.size):
        size = bits[i] & _SIZE
        if size >> _LOW == upper:
            counts[size & _LOW_BITS] += 1
    low = COUNTS // 2 - 1
    while above + counts[low] < k:
        above += counts[low]
        low -= 1
    least = np.uint32((high << 15) | low)
    equal = k - above
    found = 0
    for i in range(x.size):
        size = bits[i] & _SIZE
        if size >= least:
            if size == least:
                if equal == 0:
                    continue
                equal -= 1
            places[found] = i
            values[found] = x[i]
            found += 1


@kernel
def scatter(y, places, values, start):
    """Writes elements start.. of an array that is zero but for values (k,) at places (k,) int32, in
    their order; y (m,).
    """
    for i in range(y.size):
        y[i] = 0
    first, last = 0, places.size
    while first < last:
        middle = (first + last) // 2
        if places[middle] < start:
            first = middle + 1
        else:
            last = middle
    stop = start + y.size
    while first < places.size and places[first] < stop:
        y[places[first] - start] = values[first]
        first += 1


@kernel
def signs(scales, words, x, bits, segments):
    """Writes the mean absolute value of each segment of x (n,), and which elements of x are
    negative.

    scales (P,), segments (P, 2) their begins and ends, words (n / 32 rounded up,) uint32 with a bit
    for each element, the first of 32 the lowest; bits (n,) uint32 are those of x. Means are taken
    in float64, in `LANES` chains.
    """
    lanes = np.empty(LANES, np.float64)
    for p in range(scales.size):
        begin, end = segments[p, 0], segments[p, 1]
        for lane in range(LANES):
            lanes[lane] = 0
        whole = end - (end - begin) % LANES
        for i in range(begin, whole, LANES):
            for lane in range(LANES):
                lanes[lane] += np.float64(abs(x[i + lane]))
        for i in range(whole, end):
            lanes[i - whole] += np.float64(abs(x[i]))
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        scales[p] = total / (end - begin)
    for w in range(words.size):
        word, start = np.uint32(0), 32 * w
        for j in range(min(32, x.size - start)):
            word |= (bits[start + j] >> np.uint32(31)) << np.uint32(j)
        words[w] = word


@kernel
def signed(y, scales, words, segments, start):
    """Writes elements start.. of the array that has the scale of its segment everywhere, with the
    signs of `words`, and zeros between segments: see `signs`; y (m,).
    """
    for i in range(y.size):
        y[i] = 0
    for p in range(scales.size):
        first, last = max(segments[p, 0], start), min(segments[p, 1], start + y.size)
        scale = scales[p]
        for w in range(first >> 5, (last + 31) >> 5 if first < last else 0):
            word = words[w]
            begin, end = max(first, 32 * w), min(last, 32 * w + 32)
            if end - begin == 32:
                into = y[begin - start : end - start]
                for j in range(32):
                    into[j] = -scale if (word >> np.uint32(j)) & np.uint32(1) else scale
            else:
                for i in range(begin, end):
                    y[i - start] = -scale if (word >> np.uint32(i & 31)) & np.uint32(1) else scale


@kernel
def factor(p, q, x, no_bias):
    """Writes an orthonormal basis of what x makes of the rows of q, and then q = p x, so that pᵀ q
    is near x.

    p (R, M), q (R, N), x (M, N), no_bias (0,). That is a step of subspace iteration from q (Vogels
    et al. 2019, algorithm 1). Rows of p are made orthogonal in their order (Gram-Schmidt, twice, as
    rounding asks for); one that depends on those before it becomes zero, and its row of q, too.
    """
    product(p, q, False, x, True, no_bias, False)
    for i in range(len(p)):
        row = p[i]
        whole = np.sqrt(row_dot(row, row))
        for _ in range(2):
            for j in range(i):
                before = p[j]
                along = -row_dot(row, before)
                for k in range(row.size):
                    row[k] = fma(along, before[k], row[k])
        norm = np.sqrt(row_dot(row, row))
        # NaN stays what it is.
        if norm <= np.float32(_DEPENDENT) * whole:
            for k in range(row.size):
                row[k] = 0
        else:
            for k in range(row.size):
                row[k] /= norm
    product(q, p, False, x, False, no_bias, False)


@kernel
def low_rank(y, p, q, start):
    """Writes elements start.. of pᵀ q, whose rows follow each other; y (m,), p (R, M), q (R, N)."""
    columns = q.shape[1]
    i, j, at = start // columns, start % columns, 0
    while at < y.size:
        width = min(columns - j, y.size - at)
        into = y[at : at + width]
        left, right = p[0, i], q[0, j : j + width]
        for k in range(width):
            into[k] = left * right[k]
        for r in range(1, len(p)):
            left, right = p[r, i], q[r, j : j + width]
            for k in range(width):
                into[k] = fma(left, right[k], into[k])
        at += width
        i += 1
        j = 0


@kernel
def coded(scales, words, x, most):
    """Writes x (n,) as integers of so many bits that the largest is `most`, 127 or 7, and a scale
    for each `BLOCK_8` neighbours: the largest absolute value over `most`.

    scales (blocks,), NaN where one of them is not finite; words (blocks, …) uint8, each with an
    integer or two, the first in its lower half.
    """
    for b in range(scales.size):
        block = x[b * BLOCK_8 : (b + 1) * BLOCK_8]
        largest = np.float32(0)
        finite = True
        for i in range(block.size):
            finite = finite and np.isfinite(block[i])
            largest = max(largest, abs(block[i]))
        scale = largest / np.float32(most)
        scales[b] = scale if finite else np.float32(np.nan)
        for k in range(words.shape[1]):
            words[b, k] = 0
        if not (finite and scale > 0):
            continue
        for i in range(block.size):
            integer = np.int32(min(max(np.rint(block[i] / scale), -most), most))
            if most == 127:
                words[b, i] = np.uint8(integer & 255)
            else:
                words[b, i // 2] |= np.uint8((integer & 15) << (i % 2 * 4))


@kernel
def of_codes(y, scales, words, most, start):
    """Writes elements start.. of what `coded` was given as integers times scales; y (m,)."""
    at = 0
    while at < y.size:
        b, k = (start + at) // BLOCK_8, (start + at) % BLOCK_8
        into, row, scale = y[at : at + BLOCK_8 - k], words[b], scales[b]
        if most == 127:
            for i in range(into.size):
                into[i] = np.float32(np.int8(row[k + i])) * scale
        else:
            for i in range(into.size):
                integer = np.int32(row[(k + i) // 2]) >> ((k + i) % 2 * 4) & 15
                into[i] = np.float32(integer - (integer & 8) * 2) * scale
        at += into.size
