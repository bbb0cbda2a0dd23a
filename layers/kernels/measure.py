"""What instruments count in arrays: squares, zeros, what is saturated, and a histogram of
magnitudes by powers of two, in one pass; products of two arrays; what is saturated in a recurrence.
"""

import numpy as np

from .jit import inlined, kernel
from .llvm.vmath import fma
from .reduce import BLOCK, LANES

SQUARES, ZEROS, SATURATED, FIRST_BIN = range(4)
"""Columns of what `measures` writes."""
LOWEST, HIGHEST = -32, 8
"""The histogram has a bin from each power of two to the next, 2^LOWEST to 2^HIGHEST, one below
them, with the zeros, and one above, with what is not finite.
"""
BINS = HIGHEST - LOWEST + 2
_TABLES = 4


@inlined
def _count_exponents(tables, bits):
    """Adds to how often each exponent occurs in bits (n,), unsigned integers; tables (4, all
    exponents), whose rows are added up later.
    """
    shift = np.uint64(23 if bits.itemsize == 4 else 52)
    mask = np.uint64(tables.shape[1] - 1)
    whole = bits.size - bits.size % _TABLES
    for i in range(0, whole, _TABLES):
        for t in range(_TABLES):
            tables[t, (np.uint64(bits[i + t]) >> shift) & mask] += np.uint32(1)
    for i in range(whole, bits.size):
        tables[0, (np.uint64(bits[i]) >> shift) & mask] += np.uint32(1)


@inlined
def _into_bins(counts, tables, first):
    """Writes how many magnitudes each bin has; counts (BINS,)."""
    for b in range(BINS):
        counts[b] = 0.0
    for exponent in range(tables.shape[1]):
        count = 0
        for t in range(_TABLES):
            count += np.int64(tables[t, exponent])
        counts[min(max(exponent - first, 0), BINS - 1)] += count


@kernel
def measures(sums, x, bits, bounds, low, high, first):
    """Writes of each part of x the sum of squares, and how many elements are 0, are at most `low`
    or at least `high`, and have a magnitude in each bin; sums (P, 3 + BINS) float64, x (n,), bits
    (n,), bounds (P, 2).

    `bits` are the elements of x as unsigned integers; `first` is the exponent of what belongs to
    the bin below the powers of two.
    """
    lanes = np.empty(LANES, np.float64)
    exponents = 256 if x.itemsize == 4 else 2048
    # Neighbours often fall into one bin, and an addition to memory must wait for the one before.
    tables = np.empty((_TABLES, exponents), np.uint32)
    for p in range(len(sums)):
        for lane in range(LANES):
            lanes[lane] = 0.0
        tables[:] = 0
        zeros = 0
        saturated = 0
        for start in range(bounds[p, 0], bounds[p, 1], BLOCK):
            stop = min(start + BLOCK, bounds[p, 1])
            block = x[start:stop]
            whole = block.size - block.size % LANES
            for i in range(0, whole, LANES):
                for lane in range(LANES):
                    value = np.float64(block[i + lane])
                    lanes[lane] = fma(value, value, lanes[lane])
            for lane in range(block.size - whole):
                value = np.float64(block[whole + lane])
                lanes[lane] = fma(value, value, lanes[lane])
            for i in range(block.size):
                zeros += block[i] == 0
                saturated += (block[i] <= low) | (block[i] >= high)
            _count_exponents(tables, bits[start:stop])
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        sums[p, SQUARES] = total
        sums[p, ZEROS] = zeros
        sums[p, SATURATED] = saturated
        _into_bins(sums[p, FIRST_BIN:], tables, first)


@kernel
def magnitudes(counts, bits, bounds, first):
    """Writes how many elements of each part have a magnitude in each bin; counts (P, BINS) float64,
    bits (n,), bounds (P, 2), `first` as of `measures`.
    """
    tables = np.empty((_TABLES, 256 if bits.itemsize == 4 else 2048), np.uint32)
    for p in range(len(counts)):
        tables[:] = 0
        _count_exponents(tables, bits[bounds[p, 0] : bounds[p, 1]])
        _into_bins(counts[p], tables, first)


@kernel
def fired_units(fired, x):
    """Adds to `fired` (C,) uint8, by setting them to 1, the columns of x (R, C) that are not 0 in
    all rows.
    """
    for r in range(len(x)):
        row = x[r]
        for c in range(fired.size):
            fired[c] |= row[c] != 0


@kernel
def products(sums, x, y, blocks):
    """Writes sums_p = sum of x_i y_i over i in blocks[p, 0]..blocks[p, 1] in float64, in the order
    of `reduce.square_sums`; sums (P,), x and y (n,), blocks (P, 2).
    """
    lanes = np.empty(LANES, np.float64)
    for p in range(sums.size):
        lanes[:] = 0
        left, right = x[blocks[p, 0] : blocks[p, 1]], y[blocks[p, 0] : blocks[p, 1]]
        whole = left.size - left.size % LANES
        for i in range(0, whole, LANES):
            for lane in range(LANES):
                a, b = np.float64(left[i + lane]), np.float64(right[i + lane])
                lanes[lane] = fma(a, b, lanes[lane])
        for lane in range(left.size - whole):
            a, b = np.float64(left[whole + lane]), np.float64(right[whole + lane])
            lanes[lane] = fma(a, b, lanes[lane])
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        sums[p] = total


@kernel
def saturated_steps(counts, x, first, last, lengths, bounds, low, high):
    """Writes to `counts` (S,) how many elements of x[:, :, first:last] (T, N, …) are at most `low`
    or at least `high`, of the samples of each shard, at steps that these have; lengths (N,), bounds
    (S + 1,).
    """
    for s in range(counts.size):
        found = 0
        for n in range(bounds[s], bounds[s + 1]):
            for t in range(lengths[n]):
                row = x[t, n, first:last]
                for c in range(row.size):
                    found += (row[c] <= low) | (row[c] >= high)
        counts[s] = found
