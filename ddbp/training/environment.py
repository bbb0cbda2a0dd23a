"""What a run is computed with: the versions of packages, the processor."""

import platform
import sys
from typing import Any

import llvmlite.binding

from ddbp.comm.cores import available_cores
from ddbp.comm.packages import versions
from layers.kernels import machine

_FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bf16", "amx-bf16", "neon", "sve")


def environment() -> dict[str, Any]:
    """Return what a run is computed with, by name."""
    features = llvmlite.binding.get_host_cpu_features()
    return {
        **versions(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "cpu": llvmlite.binding.get_host_cpu_name(),
        "cpu features": " ".join(name for name in _FEATURES if features.get(name)),
        "vectors": f"{machine.REGISTERS} registers of {machine.VECTOR_BYTES} bytes",
        "cores": available_cores(),
        "threads per rank": 1,
    }
