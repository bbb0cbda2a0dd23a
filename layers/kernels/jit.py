"""The one decorator that compiles kernels, and the cache that their machine code lives in."""

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

from .linking import HelperCompiler, refuse

# Arithmetic is strict IEEE (no fast-math flag at all): a loop's vector body and its scalar tail then round alike, so
# that a sample's bits do not depend on where in the batch it stands. Where a multiply-add should be fused, a kernel
# says so with `vmath.fma`.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}

_SOURCES = Path(__file__).parent


def source_digest() -> str:
    """Return a digest of everything that decides the machine code of the kernels, except the processor.

    Numba notices an edit only in the file of the kernel itself; a kernel here inlines helpers of other files. Keying the
    cache folder on all kernel sources closes that gap. (Numba's own index adds the processor and its features.)
    """
    digest = hashlib.sha256()
    for source in sorted(_SOURCES.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    versions = (numba.__version__, llvmlite.__version__, np.__version__, platform.machine())
    digest.update(repr((versions, os.environ.get("LAYERS_VECTOR_BYTES"), sorted(OPTIONS.items()))).encode())
    return digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _cache_folder() -> Path:
    """Return the first writable of: NUMBA_CACHE_DIR, the user's cache folder, a folder of this user in the temporary folder."""
    name = f"layers-{source_digest()}"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    for base in filter(None, (chosen, os.path.join(home, "ddbp"))):
        if _writable(Path(base) / name):
            return Path(base) / name
    return Path(tempfile.gettempdir()) / f"ddbp-{os.getuid() if hasattr(os, 'getuid') else 'user'}" / name


CACHE_FOLDER = _cache_folder()


@contextmanager
def _caching_in(folder: Path) -> Iterator[None]:
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = previous


def kernel(function: Callable[..., Any], *, cache: bool = True) -> Any:
    """Compile a kernel: called from Python, specialised on first use, its machine code cached on disk unless `cache` is False.

    Conventions: outputs first, then inputs, then what forward saved, then scalars; returns nothing but a number; allocates nothing
    large; the docstring begins "Writes", "Adds to" or "Returns".
    """
    with _caching_in(CACHE_FOLDER):
        return numba.njit(cache=cache, no_cfunc_wrapper=True, **OPTIONS)(_named_apart(function))


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a helper that only kernels call: see `linking`."""
    options = {"pipeline_class": HelperCompiler, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, **OPTIONS}
    helper = numba.njit(**options)(_named_apart(function))
    # Python finds no code to call, and is told so.
    helper._insert, helper._compile_for_args = lambda *compiled, **named: None, refuse
    return helper


def _named_apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put what a closure closes over into its name.

    A compiled function is known by its name, its types and a number that counts functions within a process. Without this, two
    closures of one factory, cached by different processes, may be taken for each other where both are loaded.
    """
    if function.__closure__:
        digest = hashlib.sha256()
        for cell in function.__closure__:
            content = cell.cell_contents
            of = content.tobytes() if isinstance(content, np.ndarray) else getattr(content, "__qualname__", repr(content)).encode()
            digest.update(of + b";")
        function.__qualname__ += f"_{digest.hexdigest()[:16]}"
    return function
