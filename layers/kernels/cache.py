"""The cache that the machine code of kernels lives in: a kernel is compiled anew when its file
changes, or one that it imports.

Numba's own cache looks at the file of the kernel alone, and at where that lies; a kernel here
inlines helpers of other files.
"""

import hashlib
import inspect
import pickle
import platform
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from . import amx, cache_folder, linking
from .machine import VECTOR_BYTES

ROOM = Path(__file__).parent
_KEEPERS = {Path(__file__), Path(cache_folder.__file__)}
_IMPORT = re.compile(r"^ *from (\.*)([\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)
VERSIONS = {
    "version of Python": sys.implementation.cache_tag,
    "version of Numba": numba.__version__,
    "version of llvmlite": llvmlite.__version__,
    "version of NumPy": np.__version__,
}
"""What decides the machine code of kernels, beside their sources and the processor."""
_VERSIONS = (*VERSIONS.values(),)
_PROCESSOR = platform.machine(), VECTOR_BYTES
_AMX = Path(amx.__file__)


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
    """Return a file of kernels with all that it imports, directly or not, but for what keeps its
    code.
    """
    found: set[Path] = set()
    new = {path}
    while new:
        found |= new
        new = {other for one in new for other in imported(one)} - found
    return found - _KEEPERS


def _digest(paths: Iterable[Path], processor: tuple[Any, ...] = ()) -> str:
    digest = hashlib.sha256(repr((_VERSIONS, processor)).encode())
    for path in paths:
        digest.update(path.relative_to(ROOM).as_posix().encode() + _content(path))
    return digest.hexdigest()[:16]


@cache
def module_digest(path: Path) -> str:
    """Return a digest of all that decides the machine code of a file's kernels, except the
    processor's name and features; of a file that is none of these, of itself.
    """
    if path.is_relative_to(ROOM):
        files = sorted(closure(path))
        return _digest(files, (*_PROCESSOR, amx.TILES) if _AMX in files else _PROCESSOR)
    return hashlib.sha256(repr((_VERSIONS, _PROCESSOR)).encode() + _content(path)).hexdigest()[:16]


@cache
def source_digest() -> str:
    """Return a digest of all that decides the bits of results: those of ranks on different
    processors are the same.
    """
    return _digest(sources())


CACHE_FOLDER = cache_folder.find()
"""Where machine code is kept, None if nowhere."""


class KernelCache(_Cache):  # type: ignore[misc]
    """The cached machine code of one kernel: a file for each processor and types of arguments, in a
    folder named after the file of the kernel and its digest.

    Numba's own cache has an index of such files, which processes overwrite for each other: one may
    then load the code for the types of another.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        path = Path(inspect.getfile(function))
        self._folder = None
        if CACHE_FOLDER is not None:
            self._folder = CACHE_FOLDER / f"{path.stem}-{module_digest(path)}"
        # No two kernels of a file have one name.
        self._name = re.sub("[<>]", "", f"{path.stem}.{function.__qualname__}")
        self._enabled = True

    @property
    def cache_path(self) -> str:
        """Return the folder, nothing if there is none."""
        return str(self._folder or "")

    def enable(self) -> None:
        """Load and save from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Neither load nor save from now on."""
        self._enabled = False

    def flush(self) -> None:
        """Forget the code for all types."""
        for file in self._folder.glob(f"{self._name}-*.code") if self._folder else ():
            file.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for types of arguments, after the shared helpers that it refers to; None
        if there is none.
        """
        target_context.refresh()
        path = self._file(sig, target_context.codegen())
        kept = cache_folder.read(path) if path else None
        if kept is None:
            return None
        shared, code = pickle.loads(kept)
        linking.provide(shared)
        return CompileResult._rebuild(target_context, *code)

    def has(self, sig: Any) -> bool:
        """Return whether there seems to be code for types of arguments."""
        path = self._file(sig, cpu_target.target_context.codegen())
        return path is not None and path.is_file()

    def save_overload(self, sig: Any, compiled: Any) -> None:
        """Keep code for types of arguments."""
        path = self._file(sig, compiled.codegen)
        if path and not compiled.library.has_dynamic_globals:
            kept = linking.shared_by(compiled.library), compiled._reduce()
            cache_folder.write(path, dumps(kept))

    def _file(self, sig: Any, codegen: Any) -> Path | None:
        """Return the file for types of arguments on the processor that code is made for."""
        if self._folder is None or not self._enabled:
            return None
        key = hashlib.sha256(repr((sig, codegen.magic_tuple())).encode()).hexdigest()
        return self._folder / f"{self._name}-{key[:16]}.code"
