"""The cache that the machine code of kernels lives in: a kernel is compiled anew when its file
changes, or one that it imports.

Numba's own cache looks at the file of the kernel alone, and at where that lies; a kernel here
inlines helpers of other files.
"""

import hashlib
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import llvmlite
import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from . import linking
from .machine import VECTOR_BYTES

ROOM = Path(__file__).parent
_IMPORT = re.compile(r"^ *from (\.*)([\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)
_VERSIONS = (
    numba.__version__,
    llvmlite.__version__,
    np.__version__,
    platform.machine(),
    VECTOR_BYTES,
)


@cache
def sources() -> tuple[Path, ...]:
    """Return the files of kernels."""
    return tuple(sorted(ROOM.rglob("*.py")))


@cache
def _content(path: Path) -> bytes:
    return path.read_bytes()


@cache
def imported(path: Path) -> frozenset[Path]:
    """Return the files of kernels that a file of kernels imports from, as its text says."""
    found = set()
    for dots, module, names in _IMPORT.findall(_content(path).decode()):
        if dots:
            folder = path.parents[len(dots) - 1].joinpath(*filter(None, module.split(".")))
        elif module.startswith("layers.kernels"):
            folder = ROOM.joinpath(*module.split(".")[2:])
        else:
            continue
        found |= {folder.with_suffix(".py")}
        found |= {folder / f"{name}.py" for name in re.findall(r"\w+", names)}
    return frozenset(found & set(sources()))


def closure(path: Path) -> set[Path]:
    """Return a file of kernels with all that it imports, directly or not."""
    found: set[Path] = set()
    new = {path}
    while new:
        found |= new
        new = {other for one in new for other in imported(one)} - found
    return found


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256(repr(_VERSIONS).encode())
    for path in paths:
        digest.update(path.relative_to(ROOM).as_posix().encode() + _content(path))
    return digest.hexdigest()[:16]


@cache
def module_digest(path: Path) -> str:
    """Return a digest of all that decides the machine code of a file's kernels, except the
    processor, which Numba's index adds.
    """
    return _digest(sorted(closure(path)))


@cache
def source_digest() -> str:
    """Return a digest of all that decides the machine code of all kernels, except the processor."""
    return _digest(sources())


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _cache_folder() -> Path:
    """Return the first writable of: NUMBA_CACHE_DIR, the user's cache folder, a folder of this user
    in the temporary folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    for base in filter(None, (chosen, os.path.join(home, "ddbp"))):
        if _writable(Path(base) / "kernels"):
            return Path(base) / "kernels"
    return (
        Path(tempfile.gettempdir())
        / f"ddbp-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
        / "kernels"
    )


CACHE_FOLDER = _cache_folder()


class _Locator(_CacheLocator):
    """Where the machine code of a file's kernels lies: in a folder named after the file and its
    digest.
    """

    def __init__(self, path: Path) -> None:
        self._digest = (
            module_digest(path)
            if path.is_relative_to(ROOM)
            else hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        )
        self._folder = CACHE_FOLDER / f"{path.stem}-{self._digest}"

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._digest

    def get_disambiguator(self) -> str:
        """Return nothing: no two kernels of a file have one name."""
        return ""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_Locator":
        return cls(Path(py_file))


class _Implementation(CompileResultCacheImpl):
    """What is kept of a kernel: its code, after the shared helpers that this refers to."""

    _locator_classes: ClassVar = [_Locator]

    def reduce(self, compiled: Any) -> Any:
        return linking.shared_by(compiled.library), super().reduce(compiled)

    def rebuild(self, target_context: Any, kept: Any) -> Any:
        shared, code = kept
        linking.provide(shared)
        return super().rebuild(target_context, code)


class KernelCache(FunctionCache):
    """The cached machine code of one kernel."""

    _impl_class = _Implementation
