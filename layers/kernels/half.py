"""Half precision: float32 numbers in 16 bits."""

import numpy as np

from .jit import kernel
from .llvm.halves import narrowed, wide


@kernel
def narrow(words, x):
    """Writes the words of the numbers nearest to each float32, ties to even, as operands of
    products are rounded; words (n,), x (n,).
    """
    for i in range(x.size):
        words[i] = narrowed(words, x[i])


@kernel
def widen(x, words):
    """Writes the float32 of each word; x (n,), words (n,)."""
    for i in range(words.size):
        x[i] = wide(words[i])


@kernel
def to_bfloat16(y, x):
    """Writes the bfloat16 nearest to each float32, ties to even; y (n,) uint16 and x (n,) uint32
    are the bits of both.

    Adding half a unit of the last place that is kept, less one where that place is even, carries
    into it just when it must. NaN stays NaN: its lowest kept bit is set, lest only its dropped bits
    say so.
    """
    for i in range(x.size):
        bits = x[i]
        rounded = (
            bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        ) >> np.uint32(16)
        nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        y[i] = np.uint16((bits >> np.uint32(16)) | np.uint32(1)) if nan else np.uint16(rounded)
