"""Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011).
"""

import math

import numpy as np

from .elementary import log_of, sin_of
from .jit import inlined, kernel
from .llvm.vmath import constant

# The multipliers and Weyl increments of the paper's table 2 and section 4.
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_32 = np.uint64(32)
_UNIT = 2.0**-32


@inlined
def philox(c0, c1, c2, c3, k0, k1):
    """Return four random 32-bit integers for the counter (c0, c1, c2, c3) and the key (k0, k1), all
    uint32.
    """
    for _ in range(10):
        p0, p1 = _M0 * np.uint64(c0), _M1 * np.uint64(c2)
        c0, c1, c2, c3 = (
            np.uint32(p1 >> _32) ^ c1 ^ k0,
            np.uint32(p1),
            np.uint32(p0 >> _32) ^ c3 ^ k1,
            np.uint32(p0),
        )
        k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
    return c0, c1, c2, c3


@kernel
def dropout_mask(mask, bits, first_sample, step, draw, seed, threshold, scale):
    """Writes mask_ij = scale where the random 32-bit integer of (seed, step, sample, draw, j) is >=
    threshold, else 0.

    mask (R, D); bits is room for the integers of one row, 4 ceil(D / 4) of uint32. Row i is sample
    first_sample + i. Quarter q of a row takes output q of Philox, so that neighbours are drawn side
    by side.
    """
    zero = constant(mask, "zero")
    quarter = bits.size // 4
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> _32)
    b0, b1, b2, b3 = (
        bits[:quarter],
        bits[quarter : 2 * quarter],
        bits[2 * quarter : 3 * quarter],
        bits[3 * quarter :],
    )
    for i in range(len(mask)):
        sample = np.uint32(first_sample + i)
        for b in range(quarter):
            b0[b], b1[b], b2[b], b3[b] = philox(
                np.uint32(b), sample, np.uint32(step), np.uint32(draw), k0, k1
            )
        row = mask[i]
        for j in range(row.size):
            row[j] = scale if bits[j] >= threshold else zero


@inlined
def normal_pair(a, b):
    """Return two independent standard normal numbers of two random 32-bit integers."""
    log_u, _ = log_of((np.float64(a) + 0.5) * _UNIT)
    radius = math.sqrt(-2.0 * log_u)
    angle = (np.float64(b) + 0.5) * (2.0 * math.pi * _UNIT)
    return radius * sin_of(angle, 1), radius * sin_of(angle, 0)


@kernel
def standard_normal(z, first_sample, step, draw, seed):
    """Writes z_ij, a standard normal number of (seed, step, sample, draw, j), z (R, D).

    Row i is sample first_sample + i. Of u and v, uniform in (0, 1), are made √(-2 log u) cos(2 pi
    v) and √(-2 log u) sin(2 pi v) (Box and Muller, "A note on the generation of random normal
    deviates", 1958); four neighbours are made of one output of Philox, however long the row is.
    """
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> _32)
    for i in range(len(z)):
        row, sample = z[i], np.uint32(first_sample + i)
        for start in range(0, row.size, 4):
            a, b, c, d = philox(
                np.uint32(start // 4), sample, np.uint32(step), np.uint32(draw), k0, k1
            )
            z0, z1 = normal_pair(a, b)
            z2, z3 = normal_pair(c, d)
            row[start] = z0
            if start + 1 < row.size:
                row[start + 1] = z1
            if start + 2 < row.size:
                row[start + 2] = z2
            if start + 3 < row.size:
                row[start + 3] = z3


@kernel
def mask_channels(y, x, mask, factors):
    """Writes y[n, h, w C + c] = x[n, h, w C + c] mask[n, c]; y and x (N, H, W C), mask (N, C).

    factors (W C,) is room for the mask of a row: a loop over a row is long enough to vectorise,
    whatever C is.
    """
    channels = mask.shape[1]
    for n in range(len(x)):
        of = mask[n]
        for start in range(0, factors.size, channels):
            to = factors[start : start + channels]
            for c in range(channels):
                to[c] = of[c]
        for h in range(x.shape[1]):
            into, row = y[n, h], x[n, h]
            for i in range(factors.size):
                into[i] = row[i] * factors[i]
