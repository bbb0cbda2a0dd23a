"""What instruments count in arrays, in one pass: squares, zeros, what is saturated, and a histogram
of magnitudes by powers of two.
"""

import numpy as np

from .jit import kernel
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


@kernel
def measures(sums, x, bits, bounds, low, high, shift, first):
    """Writes of each part of x the sum of squares, and how many elements are 0, are at most `low`
    or at least `high`, and have a magnitude in each bin; sums (P, 3 + BINS) float64, x (n,), bits
    (n,), bounds (P, 2).

    `bits` are the elements of x as integers, whose exponent begins at bit `shift`; `first` is the
    exponent of what belongs to the bin below the powers of two.
    """
    lanes = np.empty(LANES, np.float64)
    # Neighbours often fall into one bin, and an addition to memory must wait for the one before.
    tables = np.empty((_TABLES, BINS), np.int64)
    mask = (1 << (x.itemsize * 8 - 1 - shift)) - 1
    for p in range(len(sums)):
        for lane in range(LANES):
            lanes[lane] = 0.0
        for t in range(_TABLES):
            for b in range(BINS):
                tables[t, b] = 0
        zeros = 0
        saturated = 0
        for start in range(bounds[p, 0], bounds[p, 1], BLOCK):
            stop = min(start + BLOCK, bounds[p, 1])
            block, of = x[start:stop], bits[start:stop]
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
            for i in range(block.size):
                exponent = (of[i] >> shift) & mask
                tables[i % _TABLES, min(max(exponent - first, 0), BINS - 1)] += 1
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        sums[p, SQUARES] = total
        sums[p, ZEROS] = zeros
        sums[p, SATURATED] = saturated
        for b in range(BINS):
            count = 0
            for t in range(_TABLES):
                count += tables[t, b]
            sums[p, FIRST_BIN + b] = count


@kernel
def fired_units(fired, x):
    """Adds to `fired` (C,) uint8, by setting them to 1, the columns of x (R, C) that are not 0 in
    all rows.
    """
    for r in range(len(x)):
        row = x[r]
        for c in range(fired.size):
            fired[c] |= row[c] != 0
