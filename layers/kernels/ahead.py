"""Which kernels will be compiled, known before any is; and how another process is told of them."""

import base64
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from numba.core.dispatcher import _DispatcherBase
from numba.core.serialize import dumps

from .cache import KernelCache


class Missing(NamedTuple):
    """A kernel without code for some types of arguments.

    Attributes
    ----------
    kernel
        The kernel.
    types
        Those of the arguments.
    """

    kernel: Any
    types: tuple[Any, ...]

    def compile(self) -> None:
        """Compile it, or load it from the cache."""
        self.kernel.compile(self.types)

    def line(self) -> bytes | None:
        """Return it as `of_line` takes it in another process, None if that would not find it by its
        name.
        """
        name = self.kernel.py_func.__module__, self.kernel.py_func.__qualname__
        if getattr(import_module(name[0]), name[1], None) is not self.kernel:
            return None
        return base64.b64encode(dumps((*name, self.types))) + b"\n"


def of_line(line: bytes) -> Missing:
    """Return what `Missing.line` has returned the line of."""
    module, name, types = pickle.loads(base64.b64decode(line))
    return Missing(getattr(import_module(module), name), types)


@contextmanager
def missing() -> Iterator[list[Missing]]:
    """Return a context in which kernels that have not been called with such arguments yet do
    nothing, and those of which there is no code in the cache stand in a list: what is computed
    meanwhile is void. One that returns something returns None.
    """
    found: set[tuple[int, tuple[Any, ...]]] = set()
    compile_for = _DispatcherBase._compile_for_args
    result: list[Missing] = []

    def note(kernel: Any, *arguments: Any, **named: Any) -> Any:
        if named or not isinstance(kernel._cache, KernelCache):
            return compile_for(kernel, *arguments, **named)
        types = tuple(map(kernel.typeof_pyval, arguments))
        if (id(kernel), types) not in found:
            found.add((id(kernel), types))
            if not kernel._cache.has(types):
                result.append(Missing(kernel, types))
        return _nothing

    _DispatcherBase._compile_for_args = note
    try:
        yield result
    finally:
        _DispatcherBase._compile_for_args = compile_for


def _nothing(*arguments: Any) -> None:
    """Stand for the code of a kernel that has none."""
