"""Sums over shards by the fixed tree of which every node is rounded: to 16 bits, or to 8 in
blocks.
"""

import numpy as np

from .jit import inlined, kernel
from .llvm.halves import narrowed, wide
from .llvm.words import of_word, word_of
from .random import philox
from .reduce import BLOCK

BLOCK_8 = 256
"""Elements that share a scale where numbers are rounded to 8 bits; it divides `BLOCK`."""
_SIZE = np.uint32(0x7FFFFFFF)
_INFINITE = np.uint32(0x7F800000)
# 127 / 64, less 1, as a fraction of a float32.
_MOST = np.uint32(0x7E0000)
_FRACTION = np.uint32(0x7FFFFF)
_23 = np.uint32(23)
# Below this the scale is subnormal, and numbers count as zero.
_LEAST = np.uint32(7 << 23)
_UNIT = np.float32(2.0**-16)
# Multipliers of the finaliser of MurmurHash3 (Appleby 2011, in the public domain).
_M0, _M1 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


@inlined
def _scale_of(largest):
    """Return the bits of the power of two that makes at most 127 of the number with these bits, and
    more than 63.
    """
    above = np.uint32(1) if (largest & _FRACTION) > _MOST else np.uint32(0)
    return ((largest >> _23) - np.uint32(6) + above) << _23


@inlined
def _largest(row, start, stop):
    """Return the bits of the largest absolute value; NaN is the largest."""
    largest = np.int32(0)
    for i in range(start, stop):
        size = np.int32(word_of(row[i]) & _SIZE)
        if size > largest:
            largest = size
    return np.uint32(largest)


@inlined
def _to_half(row, words, place, node, step):
    """Round a row to the type of `words`, to nearest."""
    for i in range(row.size):
        row[i] = wide(narrowed(words, row[i]))


@inlined
def _to_8_bits(row, words, place, node, step):
    """Round a row, whose first element has a place in the flat array, to multiples of a power of
    two for each block: one of the two that are next, at random, so that the mean is the number.
    """
    k0, k1, _, _ = philox(
        np.uint32(step), np.uint32(node), np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0)
    )
    for start in range(0, row.size, BLOCK_8):
        stop = min(start + BLOCK_8, row.size)
        largest = _largest(row, start, stop)
        if largest >= _INFINITE:
            for i in range(start, stop):
                row[i] = np.float32(np.nan)
            continue
        if largest < _LEAST:
            for i in range(start, stop):
                row[i] = 0
            continue
        bits = _scale_of(largest)
        scale, inverse = of_word(bits), of_word((np.uint32(254) << _23) - bits)
        first = np.uint32(np.uint32(place + start) ^ k0)
        block = row[start:stop]
        for i in range(block.size):
            # Sums of 32 bits are made with 64.
            hashed = np.uint32(np.uint32(first + np.uint32(i)) * _M0)
            hashed = np.uint32(np.uint32(hashed ^ (hashed >> np.uint32(13)) ^ k1) * _M1)
            random = np.float32(np.int32(hashed >> np.uint32(16))) * _UNIT
            # Above zero what is left of the point is the next number below; with 16 bits of chance
            # the sum with a whole number is exact, which then stays.
            moved = block[i] * inverse + (random + np.float32(128))
            block[i] = (np.float32(np.int32(moved)) - np.float32(128)) * scale


def _rounded_by(round_row):
    """Return the kernel of sums whose nodes are rounded by a helper."""

    @kernel
    def rounded_sum(total, parts, sizes, start, words, shard, place, step):
        """Writes the sum of parts[:, start : start + m] by the fixed tree, of which each node is
        rounded, parts and the whole included; what is rounded already stays.

        total (m,), parts (P, n) float32, sizes (P,), words (1,) of the type. Part 0 begins at a
        shard; column 0 of parts has a place in the flat array, where a block begins.
        """
        n = total.size
        shards = 0
        for p in range(len(parts)):
            shards += sizes[p]
        depth = 2 + int(np.log2(shards))
        stack = np.empty((depth, BLOCK), np.float32)
        held, firsts = np.empty(depth, np.int64), np.empty(depth, np.int64)
        for at in range(start - start % BLOCK, start + n, BLOCK):
            width = min(BLOCK, parts.shape[1] - at)
            top, first = 0, shard
            for p in range(len(parts)):
                size = sizes[p]
                into, part = stack[top, :width], parts[p, at : at + width]
                for i in range(width):
                    into[i] = part[i]
                round_row(into, words, place + at, 64 * first + int(np.log2(size)), step)
                held[top], firsts[top] = size, first
                top += 1
                first += size
                while (
                    top > 1
                    and held[top - 2] == held[top - 1]
                    and firsts[top - 2] % (2 * held[top - 1]) == 0
                ):
                    into, right = stack[top - 2, :width], stack[top - 1, :width]
                    for i in range(width):
                        into[i] += right[i]
                    held[top - 2] *= 2
                    top -= 1
                    node = 64 * firsts[top - 1] + int(np.log2(held[top - 1]))
                    round_row(into, words, place + at, node, step)
            for t in range(top - 1, 0, -1):
                into, right = stack[t - 1, :width], stack[t, :width]
                for i in range(width):
                    into[i] += right[i]
                round_row(into, words, place + at, 64 * firsts[t - 1] + 63, step)
            begin, end = max(at, start), min(at + BLOCK, start + n)
            for i in range(begin, end):
                total[i - start] = stack[0, i - at]

    return rounded_sum


sum_in_halves = _rounded_by(_to_half)
sum_in_8_bits = _rounded_by(_to_8_bits)


@kernel
def pack_8_bits(numbers, exponents, x):
    """Writes x, multiples of a power of two for each block as `sum_in_8_bits` has made them, in 8
    bits: numbers (n,) int8 and exponents (blocks,) uint8, 255 where x is not finite.
    """
    for b in range(exponents.size):
        start, stop = b * BLOCK_8, min((b + 1) * BLOCK_8, x.size)
        largest = _largest(x, start, stop)
        # Zeros and NaN are no multiples of anything.
        scaled = _LEAST <= largest < _INFINITE
        bits = _scale_of(largest) if scaled else np.uint32(127) << _23
        exponents[b] = np.uint8(bits >> _23) if largest < _INFINITE else np.uint8(255)
        inverse = of_word((np.uint32(254) << _23) - bits) if scaled else np.float32(0)
        for i in range(start, stop):
            numbers[i] = np.int8(np.int32(x[i] * inverse)) if scaled else np.int8(0)


@kernel
def unpack_8_bits(x, numbers, exponents):
    """Writes the x that `pack_8_bits` was given; x (n,), numbers (n,), exponents (blocks,)."""
    for b in range(exponents.size):
        start, stop = b * BLOCK_8, min((b + 1) * BLOCK_8, x.size)
        bits = np.uint32(exponents[b]) << _23
        scale = np.float32(np.nan) if exponents[b] == 255 else of_word(bits)
        for i in range(start, stop):
            x[i] = np.float32(numbers[i]) * scale
