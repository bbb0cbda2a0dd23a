"""Meeting of processes that share memory.

Each process counts its meetings in a cell of its own. It stores the count with *release* order after all that it wrote
before; the others load it with *acquire* order before they read what it wrote (the C11 and LLVM memory model, which holds
between processes as it does between threads). So no process reads too early, on weakly ordered processors either.
"""

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .jit import inlined, kernel

LINE = 16
"""64-bit cells from one process's counter to the next: two cache lines, which processors may fetch together."""


def _pause_instruction() -> tuple[str, tuple[int, ...]] | None:
    """Return the LLVM intrinsic, and its arguments, that tells the processor that a loop only waits."""
    triple = llvmlite.binding.get_process_triple()
    if triple.startswith(("x86", "i386", "i686")):
        return "llvm.x86.sse2.pause", ()
    if triple.startswith(("aarch64", "arm64")):
        return "llvm.aarch64.hint", (1,)
    return None


_PAUSE = _pause_instruction()
_INT32, _INT64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()


@intrinsic
def _load_acquire(typingctx: Any, address: Any) -> Any:
    """Return the 64-bit integer at an address; what is read afterwards is at least as new."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], ir.PointerType()), "acquire", 8, typ=_INT64)

    return types.int64(types.int64), generate


@intrinsic
def _store_release(typingctx: Any, address: Any, value: Any) -> Any:
    """Store a 64-bit integer at an address, after all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, value = arguments
        builder.store_atomic(value, builder.inttoptr(address, ir.PointerType(_INT64)), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Let the processor rest for a moment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _PAUSE is not None:
            name, numbers = _PAUSE
            constants = [ir.Constant(_INT32, number) for number in numbers]
            function = builder.module.globals.get(name)
            if function is None:
                function = ir.Function(builder.module, ir.FunctionType(_VOID, [c.type for c in constants]), name)
            builder.call(function, constants)
        return context.get_dummy_value()

    return types.void(), generate


@inlined
def _cell(counts, process):
    return counts.ctypes.data + 8 * LINE * process


@kernel
def meet(late, counts, mine, number, polls):
    """Writes `number` as the count of process `mine`, and -1 to late[0] once all processes have counted so far.

    After `polls` looks in vain it writes to late[0] the first process that has not; then call it again. counts (P * LINE,)
    is shared int64, late (1,).
    """
    _store_release(_cell(counts, mine), number)
    late[0] = -1
    for process in range(counts.size // LINE):
        while _load_acquire(_cell(counts, process)) < number:
            polls -= 1
            if polls < 0:
                late[0] = process
                return
            _pause()


@kernel
def gather(rows, late, board, counts, row, same, mine, number, polls):
    """Writes the rows of all processes to rows (P, w) when they have met, as `meet` does; row (w,) is that of process `mine`.

    board (2, P, W >= w) is shared: meetings use its halves in turn, so that none overwrites what another still reads. All
    are int64. late (2,): the second is the first process whose first `same` words are not those of `row`, or -1.
    """
    half = board[number % 2]
    own = half[mine]
    for i in range(row.size):
        own[i] = row[i]
    meet(late, counts, mine, number, polls)
    late[1] = -1
    if late[0] < 0:
        for process in range(len(rows) - 1, -1, -1):
            to, of = rows[process], half[process]
            for i in range(row.size):
                to[i] = of[i]
            for i in range(same):
                if to[i] != row[i]:
                    late[1] = process
