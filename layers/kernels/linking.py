"""How helpers are compiled, which only kernels call.

Numba optimises every compiled function and makes machine code of it, together with all that it
calls, and again as a part of each of its callers. Of a helper only the last is used. So an
`inlined` helper stays in LLVM's intermediate language until it is linked into a kernel, and is
optimised there; a `shared` one, large enough that a call costs nothing beside it, has machine code
of its own, to which its callers refer by name. Either way no code is made twice that is used once.
"""

import gc
from typing import Any

import llvmlite.binding
from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.typed_passes import (
    DumpParforDiagnostics,
    InlineOverloads,
    NopythonRewrites,
)
from numba.core.untyped_passes import (
    InlineClosureLikes,
    InlineInlinables,
    LiteralPropagationSubPipelinePass,
    LiteralUnroll,
    MakeFunctionToJitFunction,
    WithLifting,
)


class _Linked(JITCodeLibrary):
    """Code that is neither optimised nor made executable by itself, only linked into the code of
    its callers.
    """

    def _optimize_final_module(self) -> None:
        """Leave that to the callers."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0, which stands for none."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> "_Linked":
        """Return what is asked to `set_env`, which needs an address."""
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Do nothing: the environment serves calls from Python."""


class _Shared(JITCodeLibrary):
    """Executable code that callers only declare."""

    def _get_module_for_linking(self) -> Any:
        self._ensure_finalized()
        return llvmlite.binding.parse_assembly("")


# What no kernel needs: it defines no function, and writes no expression of whole arrays.
_SUPERFLUOUS = {
    InlineClosureLikes,
    MakeFunctionToJitFunction,
    InlineInlinables,
    WithLifting,
    LiteralUnroll,
    LiteralPropagationSubPipelinePass,
    InlineOverloads,
    NopythonRewrites,
    DumpParforDiagnostics,
}


class _ShortCompiler(Compiler):
    """Numba's compiler without the passes that no kernel needs."""

    def define_pipelines(self) -> list[Any]:
        """Return the one way to compile."""
        (passes,) = super().define_pipelines()
        passes.passes = [entry for entry in passes.passes if entry[0] not in _SUPERFLUOUS]
        passes.finalize()
        return [passes]


OF_SHARDS = frozenset({"dw", "db", "du", "sums"})
"""What kernels call gradients of parameters (S, …): those of a shard are adjacent, but the next
shard's may lie apart, in its own row of flat memory.
"""


class KernelCompiler(_ShortCompiler):
    """Numba's compiler, which collects no garbage while it works: that takes a tenth of the time,
    and finds next to nothing.
    """

    def compile_extra(self, func: Any) -> Any:
        """Compile a function, for arrays of the one layout that kernels may be handed.

        Numba would take any: addresses of elements that are not adjacent lead elsewhere. (It does
        not tell aligned arrays from others.)
        """
        for name, of in zip(func.__code__.co_varnames, self.state.args, strict=False):
            if isinstance(of, types.Array) and not (
                of.mutable and (of.layout == "C" or (of.layout == "A" and name in OF_SHARDS))
            ):
                raise TypeError(
                    f"layers.kernels.{func.__qualname__}: arrays must be contiguous and writable;"
                    f" got {of} as {name}. Pass it through layers.engine.memory.contiguous, matrix"
                    " or flat."
                )
        enabled = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(func)
        finally:
            if enabled:
                gc.enable()


class HelperCompiler(_ShortCompiler):
    """Numba's compiler with another home for the code."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *others: Any) -> None:
        super().__init__(
            typingctx, targetctx, library or _Linked(targetctx.codegen(), "helper"), *others
        )

    def compile_extra(self, func: Any) -> Any:
        """Compile a function that returns no array: its references may not be counted."""
        compiled = super().compile_extra(func)
        if isinstance(compiled.signature.return_type, types.Array):
            raise TypeError(
                f"layers.kernels.{func.__qualname__}: a helper must return numbers, as references"
                " to arrays are not counted; got an array. Return an index, or write to an array."
            )
        return compiled


class SharedCompiler(HelperCompiler):
    """Numba's compiler for helpers that are called by name: the same in every process."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *others: Any) -> None:
        library = _Shared(targetctx.codegen(), "shared")
        library.enable_object_caching()
        super().__init__(typingctx, targetctx, library, *others)

    def _compile_bytecode(self) -> Any:
        # Numba counts functions, lest two of one name be taken for each other; no two of ours have
        # one name.
        self.state.func_id.unique_id = 0
        return super()._compile_bytecode()


_HELPERS: dict[str, Any] = {}
"""The shared helpers, by module and name."""
_SYMBOLS: dict[str, tuple[str, Any]] = {}
"""Which helper of these, for which types of arguments, a symbol of machine code is."""


def share(helper: Any) -> None:
    """Let callers refer to the code of a helper, once there is some."""
    key = f"{helper.py_func.__module__}.{helper.py_func.__qualname__}"
    add = helper.add_overload

    def add_overload(compiled: Any) -> None:
        _SYMBOLS[compiled.fndesc.llvm_func_name] = key, compiled.signature.args
        add(compiled)

    _HELPERS[key], helper.add_overload = helper, add_overload


def shared_by(library: Any) -> list[tuple[str, Any]]:
    """Return the shared helpers that compiled code refers to, and the types of their arguments."""
    return [
        _SYMBOLS[function.name]
        for function in library._final_module.functions
        if function.is_declaration and function.name in _SYMBOLS
    ]


def provide(shared: list[tuple[str, Any]]) -> None:
    """Make shared helpers ready, before code that refers to them is loaded: LLVM ends a process
    that loads a reference to nothing.
    """
    for key, arguments in shared:
        _HELPERS[key].compile(arguments)


def refuse(*arguments: Any, **named: Any) -> None:
    """Stand in for the compilation for a call from Python."""
    raise TypeError(
        "layers.kernels: a helper must be called by a kernel; got a call from Python. Call it in a"
        " @kernel function."
    )
