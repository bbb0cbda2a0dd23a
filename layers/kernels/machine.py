"""What kernels assume of the processor: its vectors, and what fits its caches.

Nothing here decides a bit of a result: sizes that do are parts of a kernel's contract and stand
beside it.
"""

import os

import llvmlite.binding


def _vector_registers() -> tuple[int, int]:
    """Return (bytes of a vector register, number of vector registers) of this processor."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2") or features.get("avx"):
        return 32, 16
    arm = "neon" in features or "aarch64" in llvmlite.binding.get_process_triple()
    return 16, 32 if arm else 16


VECTOR_BYTES, REGISTERS = _vector_registers()
# The width may be forced (16, 32 or 64), so that one machine can test the code of another.
VECTOR_BYTES = int(os.environ.get("LAYERS_VECTOR_BYTES", VECTOR_BYTES))

CACHE_LINE = 64
"""Bytes that one prefetch brings: those of x86 and most ARM processors; elsewhere a few are asked
for twice or not at all. Memory of ours begins at one: of a vector that lies across two lines the
processor makes two accesses.
"""

POOLED_BYTES = 256 * 1024
"""From this size on gradients of activations share memory: they would push each other out of the
processor's caches.
"""
