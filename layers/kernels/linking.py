"""How helpers are compiled, which only kernels call.

Numba optimises every compiled function and makes machine code of it, together with all that it
calls, and again as a part of each of its callers. Of a helper only the last is used: here it stays
in LLVM's intermediate language until it is linked into a kernel, and is optimised there. That
halves the time that kernels take to compile.
"""

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


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


class HelperCompiler(Compiler):
    """Numba's compiler with another home for the code."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *others: Any) -> None:
        super().__init__(
            typingctx, targetctx, library or _Linked(targetctx.codegen(), "helper"), *others
        )


def refuse(*arguments: Any, **named: Any) -> None:
    """Stand in for the compilation for a call from Python."""
    raise TypeError(
        "layers.kernels: a helper must be called by a kernel; got a call from Python. Call it in a"
        " @kernel function."
    )
