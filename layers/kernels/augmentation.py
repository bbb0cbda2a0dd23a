"""Augmentation of samples: random words that belong to a sample, images moved, flipped and cut out,
noise, and mixtures of samples.

Randomness is keyed by (seed, epoch, sample, draw), see `random.philox`; draws are numbered from
2^31 on, where those of layers, which are keyed by the step, do not come.
"""

import numpy as np

from .elementary import power_of
from .jit import inlined, kernel
from .random import normal_pair, philox

_32 = np.uint64(32)
_UNIT = 2.0**-32
ZERO, EDGE, WRAP, REFLECT = range(4)
"""What stands beyond the ends of an axis."""


@kernel
def random_words(words, numbers, epoch, draw, seed):
    """Writes words_i, random 32-bit integers of (seed, epoch, sample, draw); words (R, 4 B) of
    uint32, numbers (R,) of the samples.
    """
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> _32)
    for i in range(len(words)):
        row, sample = words[i], np.uint32(numbers[i])
        for b in range(row.size // 4):
            row[4 * b], row[4 * b + 1], row[4 * b + 2], row[4 * b + 3] = philox(
                np.uint32(b), sample, np.uint32(epoch), np.uint32(draw), k0, k1
            )


@inlined
def place_of(i, size, beyond):
    """Return which of `size` places is at i, which may lie beyond the ends; -1 for none."""
    if 0 <= i < size:
        return i
    if beyond == ZERO:
        return -1
    if beyond == EDGE or size == 1:
        return 0 if i < 0 else size - 1
    if beyond == WRAP:
        return i % size
    # The element at the end stands there once.
    i = abs(i) % (2 * size - 2)
    return 2 * size - 2 - i if i >= size else i


@kernel
def move(y, x, offsets, beyond, fill):
    """Writes y[n, h, w] = x[n, h + o_n0, w + o_n1]; y and x (N, H, W, C), offsets o (N, 2).

    What lies outside of x is `fill` with `beyond` ZERO, else the nearest element, or those of the
    other end, or those before the end once more in reverse order.
    """
    height, width, channels = x.shape[1:]
    for n in range(len(x)):
        down, right = offsets[n, 0], offsets[n, 1]
        for h in range(height):
            row = place_of(h + down, height, beyond)
            for w in range(width):
                column = place_of(w + right, width, beyond)
                if row < 0 or column < 0:
                    for c in range(channels):
                        y[n, h, w, c] = fill
                else:
                    for c in range(channels):
                        y[n, h, w, c] = x[n, row, column, c]


@kernel
def flip(y, x, flips):
    """Writes y[n, h, w] = x[n, H - 1 - h or h, W - 1 - w or w]; y and x (N, H, W, C).

    flips (N,): 1 turns columns, 2 turns rows, 3 both.
    """
    height, width, channels = x.shape[1:]
    for n in range(len(x)):
        columns, rows = flips[n] & 1, flips[n] & 2
        for h in range(height):
            row = height - 1 - h if rows else h
            for w in range(width):
                column = width - 1 - w if columns else w
                for c in range(channels):
                    y[n, h, w, c] = x[n, row, column, c]


@kernel
def cut_out(y, x, boxes, fill):
    """Writes y = x, and `fill` in a box of each image; y and x (N, H, W, C).

    boxes (N, 4) are top, bottom, left and right, where bottom and right lie outside.
    """
    height, width, channels = x.shape[1:]
    for n in range(len(x)):
        top, bottom, left, right = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        for h in range(height):
            inside = top <= h < bottom
            for w in range(width):
                if inside and left <= w < right:
                    for c in range(channels):
                        y[n, h, w, c] = fill
                else:
                    for c in range(channels):
                        y[n, h, w, c] = x[n, h, w, c]


@kernel
def resample(y, x, maps, fill):
    """Writes y[n, h, w] = x[n] at (a h + b w + c, d h + e w + f), between pixels by those around;
    y and x (N, H, W, C), maps (N, 6): a to f.

    Bilinear: with fractions u and v of the place, (1 - u) ((1 - v) x_00 + v x_01) + u ((1 - v) x_10
    + v x_11), in float64; pixels outside of x are `fill`.
    """
    height, width, channels = x.shape[1:]
    for n in range(len(x)):
        of = maps[n]
        for h in range(height):
            for w in range(width):
                down = of[0] * h + of[1] * w + of[2]
                right = of[3] * h + of[4] * w + of[5]
                if not (-1.0 < down < height and -1.0 < right < width):
                    for c in range(channels):
                        y[n, h, w, c] = fill
                    continue
                top, left = np.int64(np.floor(down)), np.int64(np.floor(right))
                u, v = down - top, right - left
                for c in range(channels):
                    total = 0.0
                    for i in range(2):
                        for j in range(2):
                            row, column = top + i, left + j
                            inside = 0 <= row < height and 0 <= column < width
                            pixel = np.float64(x[n, row, column, c]) if inside else np.float64(fill)
                            total += (u if i else 1.0 - u) * ((v if j else 1.0 - v) * pixel)
                    y[n, h, w, c] = total


@kernel
def add_normal(y, x, numbers, epoch, draw, seed, deviation):
    """Writes y_ij = x_ij + deviation z_ij, where z is a standard normal number of (seed, epoch,
    sample, draw, j); y and x (R, D), numbers (R,) of the samples.

    See `random.standard_normal`; sums are in float64, and rounded once.
    """
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> _32)
    for i in range(len(x)):
        to, row, sample = y[i], x[i], np.uint32(numbers[i])
        for start in range(0, row.size, 4):
            a, b, c, d = philox(
                np.uint32(start // 4), sample, np.uint32(epoch), np.uint32(draw), k0, k1
            )
            z0, z1 = normal_pair(a, b)
            z2, z3 = normal_pair(c, d)
            to[start] = row[start] + deviation * z0
            if start + 1 < row.size:
                to[start + 1] = row[start + 1] + deviation * z1
            if start + 2 < row.size:
                to[start + 2] = row[start + 2] + deviation * z2
            if start + 3 < row.size:
                to[start + 3] = row[start + 3] + deviation * z3


@kernel
def mix(y, x, partner, shares):
    """Writes y_ij = x_ij + s_i (partner_ij - x_ij), in float64 and rounded once; y, x and partner
    (R, D), shares s (R,).
    """
    for i in range(len(x)):
        share = shares[i]
        for j in range(x.shape[1]):
            of = np.float64(x[i, j])
            y[i, j] = of + share * (np.float64(partner[i, j]) - of)


@kernel
def to_bytes(y, x):
    """Writes y = x, rounded to the nearest integer (the even one of two) from 0 to 255; flat."""
    for i in range(x.size):
        y[i] = np.uint8(min(max(np.rint(x[i]), 0.0), 255.0))


@kernel
def beta_shares(shares, numbers, epoch, draw, seed, alpha):
    """Writes shares_i, a number of the distribution Beta(alpha, alpha) of (seed, epoch, sample,
    draw); shares (R,), numbers (R,) of the samples.

    With uniform u and v, X = u^(1/alpha) and Y = v^(1/alpha), X / (X + Y) is that if X + Y <= 1;
    else others are drawn (Jöhnk, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen",
    1964).
    """
    k0, k1 = np.uint32(seed), np.uint32(np.uint64(seed) >> _32)
    power = 1.0 / alpha
    for i in range(shares.size):
        sample, block = np.uint32(numbers[i]), 0
        found = False
        while not found:
            a, b, c, d = philox(np.uint32(block), sample, np.uint32(epoch), np.uint32(draw), k0, k1)
            block += 1
            for half in range(2):
                u = (np.float64(c if half else a) + 0.5) * _UNIT
                v = (np.float64(d if half else b) + 0.5) * _UNIT
                x, y = power_of(u, power), power_of(v, power)
                if not found and x + y <= 1.0:
                    shares[i] = x / (x + y)
                    found = True
