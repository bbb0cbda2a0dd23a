"""Meeting of processes that share memory.

Each process counts its meetings in a cell of its own. It stores the count with *release* order
after all that it wrote before; the others load it with *acquire* order before they read what it
wrote (the C11 and LLVM memory model, which holds between processes as it does between threads). So
no process reads too early, on weakly ordered processors either.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .jit import inlined, kernel
from .llvm.memory import address_of
from .machine import CACHE_LINE
from .reduce import add_step

COUNT_CELLS = 2 * CACHE_LINE // 8
"""64-bit cells from one process's count to the next, at least: two cache lines, which processors
may fetch together.
"""
ALIKE, LATE = -1, -2
"""What `gather` returns besides the numbers of processes."""


def _pause_instruction() -> tuple[str, tuple[int, ...]] | None:
    """Return the LLVM intrinsic, and its arguments, that tells the processor that a loop only
    waits.
    """
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
        return builder.load_atomic(
            builder.inttoptr(arguments[0], ir.PointerType()), "acquire", 8, typ=_INT64
        )

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
def store_in_order(typingctx: Any, address: Any, value: Any) -> Any:
    """Store a 64-bit integer at an address, after all that was written before and before all that
    is written afterwards, as others find it when this process has been killed.

    What a killed process has stored in the order of its code is seen by all; so what follows only
    has to be kept from the compiler, which may not move it over an instruction that may write
    anywhere.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, value = arguments
        builder.store_atomic(value, builder.inttoptr(address, ir.PointerType(_INT64)), "release", 8)
        builder.asm(ir.FunctionType(_VOID, []), "", "~{memory}", (), side_effect=True)
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
                function = ir.Function(
                    builder.module, ir.FunctionType(_VOID, [c.type for c in constants]), name
                )
            builder.call(function, constants)
        return context.get_dummy_value()

    return types.void(), generate


def fence_code(triple: str) -> llvmlite.binding.ModuleRef:
    """Return the code of a fence for processors of a kind."""
    text = "define void @fence() {\n fence acq_rel\n ret void\n}"
    return llvmlite.binding.parse_assembly(f'target triple = "{triple}"\n{text}')


@cache
def _fence() -> tuple[Callable[[], None], object]:
    """Return the function, and what holds its machine code."""
    binding = llvmlite.binding
    code = fence_code(binding.get_process_triple())
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(code, machine)
    engine.finalize_object()
    return ctypes.PYFUNCTYPE(None)(engine.get_function_address("fence")), engine


def fence() -> None:
    """Order what Python reads and writes in shared memory, where no kernels are compiled yet: a
    number that is stored after it is seen by nobody before what was written ahead of it, and what
    is read after it is at least as new as a number that was loaded ahead of it.
    """
    _fence()[0]()


@inlined
def _all_come(cells, members, mine, number, looks):
    """Store `number` as the count of member `mine`; return whether all others have counted so far
    within so many looks.
    """
    first, step = address_of(cells), 8 * cells.shape[1]
    _store_release(first + members[mine] * step, number)
    for member in range(len(members)):
        while _load_acquire(first + members[member] * step) < number:
            if looks == 0:
                return False
            looks -= 1
            _pause()
    return True


@kernel
def meet(cells, members, mine, number, looks):
    """Writes `number` as the count of member `mine`; returns whether all members have counted so
    far within so many looks.

    If not, call it again. cells (P, at least COUNT_CELLS) are shared int64, the first of each row a
    count; members (M,) int64 are the rows of those that meet.
    """
    return _all_come(cells, members, mine, number, looks)


@inlined
def _gather(rows, board, members, mine, number, same, looks):
    """Do what `gather` does."""
    width = rows.shape[1]
    start = COUNT_CELLS + number % 2 * ((board.shape[1] - COUNT_CELLS) // 2)
    own, shown = rows[mine], board[:, start : start + width]
    for i in range(width):
        shown[members[mine], i] = own[i]
    if not _all_come(board, members, mine, number, looks):
        return LATE
    strange = ALIKE
    for member in range(len(rows) - 1, -1, -1):
        to, of = rows[member], shown[members[member]]
        for i in range(width):
            to[i] = of[i]
        for i in range(same):
            if to[i] != own[i]:
                strange = member
    return strange


@kernel
def gather(rows, board, members, mine, number, same, looks):
    """Writes the rows of all members to rows (M, w), in which that of member `mine` is, when they
    have met, as `meet` does.

    Returns the first member whose first `same` words are not those of `mine`, or ALIKE; but LATE if
    not all have come. Then call it again. board (P, COUNT_CELLS + 2 W), W >= w, is shared: cells
    for meeting, then what a process shows. Meetings use its halves in turn, so that none overwrites
    what another still reads. All are int64.
    """
    return _gather(rows, board, members, mine, number, same, looks)


@kernel
def gather_and_add(
    rows,
    board,
    members,
    mine,
    number,
    same,
    looks,
    sums,
    numbers,
    requests,
    losses,
    terms,
    total,
    parts,
    sizes,
    start,
):
    """Writes what `gather` does and, if all rows are alike, what `reduce.step_sums` does."""
    strange = _gather(rows, board, members, mine, number, same, looks)
    if strange == ALIKE:
        add_step(sums, numbers, requests, losses, terms, total, parts, sizes, start)
    return strange
