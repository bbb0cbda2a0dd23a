"""The twins of `layers.gradient_check.cases.dropout`."""

import numpy as np


def philox(counter, key):
    """Return four 32-bit numbers: Philox 4x32-10 with the multipliers and increments of Salmon et
    al. 2011.
    """
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def dropped(x, p, draw):
    """Return x with the mask of seed 0 and step 0."""
    y = np.zeros(x.shape)
    for n in range(len(x)):
        quarter = -(-x[n].size // 4)
        for j in range(x[n].size):
            bits = philox((j % quarter, n, 0, draw), (0, 0))[j // quarter]
            y[n].flat[j] = x[n].flat[j] / (1 - p) if bits >= round(p * 2**32) else 0
    return y


def channels_dropped(_, x):
    """Return x with the mask of p = 0.4, seed 0, step 0 and draw 0."""
    y = np.zeros(x.shape)
    quarter = -(-x.shape[3] // 4)
    for n, i, j, c in np.ndindex(x.shape):
        bits = philox((c % quarter, n, 0, 0), (0, 0))[c // quarter]
        y[n, i, j, c] = x[n, i, j, c] / 0.6 if bits >= round(0.4 * 2**32) else 0
    return y


TWINS = {
    "Dropout": lambda _, x: dropped(x, 0.4, draw=0),
    "Dropout in evaluation": lambda _, x: x,
    "Dropout2d": channels_dropped,
    "Dropout2d in evaluation": lambda _, x: x,
}
