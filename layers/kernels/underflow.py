"""Underflow: while layers and optimizers compute, what is below the normal numbers counts as 0.

Between 0 and the least normal number (1.2e-38 in float32, 2.2e-308 in float64) lie the subnormal
ones. Many processors take a hundred times as long for an operation on one of them, and training
needs none: they come of saturated functions, of gradients that have vanished, of averages that
decay. So a thread is put into a mode in which the processor takes them for 0, and makes 0 of a
result that would be one; NumPy's operations then do so, too. In that mode sums and products round
to nearest and raise nothing, whatever the mode was before, to which the thread returns.

It is part of the bits of a result. x86-64 (MXCSR, FTZ and DAZ: Intel's manual, volume 1, sections
10.2.3.3 and 10.2.3.4) judges a result when it has been rounded, aarch64 (FPCR, FZ: Arm's
Architecture Reference Manual, A1.5.4) before: a result that lies within half a unit in the last
place below the least normal number is that number on the one and 0 on the other. Other processors
are left as they are.
"""

from functools import partial
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import kernel

_ARCHITECTURE = llvmlite.binding.get_process_triple().partition("-")[0]
_I32, _I64 = ir.IntType(32), ir.IntType(64)
# All exceptions masked, to nearest, and: subnormal results and operands are 0.
_MODES = {"x86_64": 0x1F80 | 1 << 15 | 1 << 6, "aarch64": 1 << 24, "arm64": 1 << 24}


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    of = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, of, name), arguments)


def emit_exchange(builder: Any, mode: Any, architecture: str = _ARCHITECTURE) -> Any:
    """Emit the change of the thread's floating-point mode, a 64-bit integer; return the one
    before.
    """
    if architecture == "x86_64":
        place = cgutils.alloca_once(builder, _I32)
        _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), place)
        before = builder.zext(builder.load(place), _I64)
        builder.store(builder.trunc(mode, _I32), place)
        _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), place)
        return before
    if architecture in _MODES:
        before = _call(builder, "llvm.aarch64.get.fpcr", _I64)
        _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), mode)
        return before
    return mode


@intrinsic
def _exchange(typingctx: Any, mode: Any) -> Any:
    """Set the mode of this thread, and return the one before."""
    return types.int64(types.int64), lambda context, builder, signature, arguments: emit_exchange(
        builder, *arguments
    )


_FLUSHING = _MODES.get(_ARCHITECTURE, 0)


@partial(kernel, nogil=False)
def _flush():
    """Returns the mode of this thread, and sets the one that flushes."""
    return _exchange(_FLUSHING)


@partial(kernel, nogil=False)
def _restore(mode):
    """Writes the mode of this thread."""
    _exchange(mode)


def flush() -> int:
    """Take what is below the normal numbers for 0 on this thread; return what `restore` takes.

    >>> mode = flush()
    >>> try:
    ...     compute()
    ... finally:
    ...     restore(mode)
    """
    _bind()
    return flush()


def restore(mode: int) -> None:
    """Go back to the mode that `flush` returned."""
    _bind()
    restore(mode)


def _bind() -> None:
    """Have `flush` and `restore` be the machine code itself: a dispatcher takes as long again."""
    global flush, restore
    _flush.compile(())
    _restore.compile((types.int64,))
    flush = _flush.overloads[()].entry_point
    restore = _restore.overloads[(types.int64,)].entry_point
