"""The one decorator that compiles kernels."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba.core import types

from .cache import KernelCache
from .linking import HelperCompiler, KernelCompiler, SharedCompiler, refuse, share

# Arithmetic is strict IEEE (no fast-math flag at all): a loop's vector body and its scalar tail
# then round alike, so that a sample's bits do not depend on where in the batch it stands. Where a
# multiply-add should be fused, a kernel says so with `vmath.fma`.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False}


def kernel(function: Callable[..., Any], *, cache: bool = True, nogil: bool = True) -> Any:
    """Compile a kernel: called from Python, specialised on first use, its machine code cached on
    disk unless `cache` is False. Other threads run meanwhile unless `nogil` is False, which takes
    less time to call.

    Conventions: outputs first, then inputs, then what forward saved, then scalars; returns nothing
    but a number; allocates nothing large; the docstring begins "Writes", "Adds to" or "Returns".
    """
    options = {
        "pipeline_class": KernelCompiler,
        "no_cfunc_wrapper": True,
        "_nrt": _allocates(function),
        **OPTIONS,
        "nogil": nogil,
    }
    dispatcher = numba.njit(**options)(_named_apart(function))
    if cache:
        dispatcher._cache = KernelCache(dispatcher.py_func)
    return dispatcher


def compiled(function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
    """Return the machine code of a kernel for arguments of the types of these, which it must have
    been called with; a function that is no kernel as it is.

    A kernel itself looks at the types of its arguments in every call. Its machine code takes them
    for what they were.
    """
    overloads = getattr(function, "overloads", None)
    if overloads is None:
        return function
    found = overloads.get(tuple(map(numba.typeof, arguments)))
    return function if found is None else found.entry_point


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a helper that becomes part of each kernel that calls it: see `linking`."""
    return _helper(function, HelperCompiler)


def shared(function: Callable[..., Any]) -> Any:
    """Compile a helper once for all kernels that call it, one that works for microseconds: see
    `linking`.
    """
    helper = _helper(function, SharedCompiler)
    helper._cache = KernelCache(helper.py_func)
    share(helper)
    return helper


def _helper(function: Callable[..., Any], compiler: type) -> Any:
    options = {
        "pipeline_class": compiler,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "_nrt": _allocates(function),
        **OPTIONS,
    }
    helper = numba.njit(**options)(_named_apart(function))
    # Python finds no code to call, and is told so.
    helper._insert, helper._compile_for_args = lambda *compiled, **named: None, refuse
    of_types = helper.get_call_template
    # `False` and 0 have types of their own: without this a helper is compiled for each of them.
    helper.get_call_template = lambda args, kws: of_types(
        tuple(map(types.unliteral, args)), {name: types.unliteral(of) for name, of in kws.items()}
    )
    return helper


def _allocates(function: Callable[..., Any]) -> bool:
    """Return whether a function makes arrays: only then Numba has to count references, code that
    takes time to compile.
    """
    return "empty" in function.__code__.co_names


def _named_apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Put what a closure closes over into its name.

    A compiled function is known by its name, its types and a number that counts functions within a
    process. Without this, two closures of one factory, cached by different processes, may be taken
    for each other where both are loaded.
    """
    if function.__closure__:
        digest = hashlib.sha256()
        for cell in function.__closure__:
            content = cell.cell_contents
            of = (
                content.tobytes()
                if isinstance(content, np.ndarray)
                else getattr(content, "__qualname__", repr(content)).encode()
            )
            digest.update(of + b";")
        function.__qualname__ += f"_{digest.hexdigest()[:16]}"
    return function
