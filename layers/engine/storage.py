"""How what backward needs is kept in 16 bits between forward and backward.

A layer keeps an array by `self.precision.keep(call, x, source)`, and reads it by `call.kept(name,
x)`. In float32 both give x itself. In a precision with a `Storage` the first gives words, once for
all calls that keep an input (`source` is its number) or an output (None), and the second float32
again, in memory that is soon used for something else. What is saved without `keep` is float32, and
lives on.

Kernels that read `wide(x[i])` take words as they are, and so do packers of products; those that
write what is kept write `narrowed(to, x)` into `precision.room`.

Outputs come from `call.output_buffer` or `call.matrix_buffer`: with 16 bits that is memory of the
pool, free again when no call has saved the array and no frame but the tape's calls refers to its
value (`live_outputs`). A new format is a `Storage` with a word type of its own, and a branch in
`kernels.llvm.halves.wide` and `narrowed`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Storage:
    """A format of 16 bits.

    Attributes
    ----------
    name
        Its name.
    words
        The type of words that hold a number each, by which kernels tell formats: see
        `layers.kernels.llvm.halves`.
    """

    name: str
    words: Any


BFLOAT16 = Storage("bfloat16", np.dtype(np.uint16))
FLOAT16 = Storage("float16", np.dtype(np.int16))
