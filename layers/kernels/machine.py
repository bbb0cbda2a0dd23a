"""What kernels assume of the processor: its vectors, and what fits its caches.

Neither the width of vectors nor the cache line decides a bit of a result. A budget may, where it
cuts a sum into blocks: so it is the same number for every processor.
"""

import os
from functools import cache

import llvmlite.binding

from layers.errors import message


def _vector_registers() -> tuple[int, int]:
    """Return (bytes of a vector register, number of vector registers) of this processor."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2") or features.get("avx"):
        return 32, 16
    arm = "neon" in features or "aarch64" in llvmlite.binding.get_process_triple()
    return 16, 32 if arm else 16


def _forced(vector_bytes: int) -> int:
    """Return the width of vectors that the environment asks for, so that one machine can test the
    code of another, or else the given one.
    """
    text = os.environ.get("LAYERS_VECTOR_BYTES", str(vector_bytes))
    if text not in ("16", "32", "64"):
        must, fix = "LAYERS_VECTOR_BYTES must be 16, 32 or 64", "Leave it out for this processor's."
        raise ValueError(message("layers", must, repr(text), fix))
    return int(text)


VECTOR_BYTES, REGISTERS = _vector_registers()
VECTOR_BYTES = _forced(VECTOR_BYTES)

CACHE_LINE = 64
"""Bytes that one prefetch brings: those of x86 and most ARM processors; elsewhere a few are asked
for twice or not at all. Memory of ours begins at one: of a vector that lies across two lines the
processor makes two accesses.
"""

POOLED_BYTES = 256 * 1024
"""From this size on gradients of activations share memory: they would push each other out of the
processor's caches.
"""

BAND_BYTES = 128 * 1024
"""Size of a padded band of rows of images: it shall stay in the second-level cache together with
the output.
"""
GRADIENT_BAND_BYTES = 48 * 1024
"""Size of the band of a weight's gradient, which reads a band once for each tap: it shall stay in
the first level, with the band of dy.
"""
DEPTHWISE_BAND_BYTES = 64 * 1024
"""Size of the band of depthwise convolution, which reads each element of a band once per tap and
little else.
"""
WINOGRAD_BYTES = 192 * 1024
"""Size of the transformed tiles of a block and of their products."""
FRAME_BYTES = 1024 * 1024
"""Size of the frames that are in memory at a time: they shall stay in the second-level cache until
they are convolved.
"""


@cache
def memory_bytes() -> int:
    """Return the bytes of memory of this machine, more than any has if it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**60
