"""What kernels assume of the processor: its vectors, and what fits its caches.

Neither the width of vectors nor the cache line decides a bit of a result. A budget may, where it
cuts a sum into blocks: so it is the same number for every processor.
"""

import os
import warnings
from functools import cache

from numba.core import config
from numba.core.codegen import get_host_cpu_features

from layers.errors import message

from . import target


def _target() -> target.Target:
    """Return what the processor has that Numba compiles for, and warn of one that is slow."""
    name, features = config.CPU_NAME, config.CPU_FEATURES
    found = target.of_host()
    if name is not None or features is not None:
        try:
            found = target.of_named(
                target.host_name() if name is None else name,
                get_host_cpu_features() if features is None else features,
            )
        except RuntimeError as error:
            must = (
                f"code for the processor that Numba is told must run on this {target.host_name()}"
            )
            fix = "Leave both out for this processor's."
            got = f"NUMBA_CPU_NAME={name!r}, NUMBA_CPU_FEATURES={features!r}: {error}"
            raise RuntimeError(message("layers", must, got, fix)) from None
    if not found.fused:
        warnings.warn(
            "layers: the processor has no fused multiply-add (FMA). The C library computes it: the"
            " results are the same, but it takes many times as long.",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def has(feature: str) -> bool:
    """Return whether this processor has a feature, by LLVM's name, and Numba compiles for it."""
    given = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    # Of two words about one feature LLVM takes the last.
    said = [each for each in given.split(",") if each[1:] == feature]
    return said[-1:] == [f"+{feature}"] and target.host_has(feature)


def _forced(vector_bytes: int) -> int:
    """Return the width of vectors that the environment asks for, so that one machine can test the
    code of another, or else the given one.
    """
    text = os.environ.get("LAYERS_VECTOR_BYTES", str(vector_bytes))
    if text not in ("16", "32", "64"):
        must, fix = "LAYERS_VECTOR_BYTES must be 16, 32 or 64", "Leave it out for this processor's."
        raise ValueError(message("layers", must, repr(text), fix))
    return int(text)


VECTOR_BYTES, REGISTERS, FUSED = _target()
VECTOR_BYTES = _forced(VECTOR_BYTES)

WIDEST_VECTOR = 64
"""Bytes of the widest vectors of any processor: what decides bits asks for whole ones of these, not
of `VECTOR_BYTES`.
"""

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
