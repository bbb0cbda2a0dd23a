"""What a precision costs or saves on the processor at hand."""

from statistics import median
from time import perf_counter

import numpy as np

from ddbp.comm.base import Communicator
from layers.engine.precision import BF16, BF16X3
from layers.errors import message
from layers.kernels import amx, gemm, gemm_bf16, gemm_bf16x3, underflow
from layers.kernels.llvm.simd_bf16 import HAS_DOTS
from layers.precision import PRECISIONS

_ROUNDS = 9
_SIZE = 256
_MEASURED = f"{_SIZE} x {_SIZE} matrices"


def without_amx(precision: str) -> str:
    """Return the sentence about products that could use the AMX of this processor and do not, or
    nothing.
    """
    if not amx.REFUSAL or precision not in (BF16.name, BF16X3.name):
        return ""
    return f"Products in {precision} are made without AMX, to the same bits: {amx.REFUSAL}."


def slower(precision: str) -> str:
    """Return the sentence about a precision whose products take longer than in float32, nothing
    where they do not.
    """
    times = times_float32(precision)
    if times <= 1:
        return ""
    text = f"A dense product of {_MEASURED} in {precision} takes {times:.2f} times as long as in"
    text += " float32 here"
    if HAS_DOTS:
        text += f", and {times_float32('bf16-dot'):.2f} times in bf16-dot"
    return f"{text}; see docs/precision.md."


def require_gain(precision: str, comm: Communicator) -> None:
    """Refuse what stands in for float32 alone to be faster, where it is slower on the processor of
    any rank; collective.
    """
    if precision != BF16X3.name:
        return
    # One rank of a host measures for the others.
    here = times_float32(precision) if comm.of_host.rank == 0 else 0.0
    times = float(comm.all_gather(np.array([here])).max())
    if times > 1:
        must = f"a dense product in {precision} must take less time than in float32"
        got = f"{times:.2f} times as much, of {_MEASURED}"
        fix = 'Pass precision="float32": it is more exact, too.'
        raise ValueError(message("Trainer", must, got, fix))


def times_float32(precision: str) -> float:
    """Return how many times as long a product of dense matrices takes as in float32, here and
    now.
    """
    if PRECISIONS[precision].words is None:
        return 1.0
    multiply = {
        "bf16": gemm_bf16.multiply,
        "bf16-dot": gemm_bf16.dot_multiply,
        "bf16x3": gemm_bf16x3.multiply,
    }
    contestants = (multiply[precision], gemm.multiply)
    a, b, c = (np.ones((_SIZE, _SIZE), np.float32) for _ in range(3))
    bias = a[0, :0]
    seconds: tuple[list[float], list[float]] = ([], [])
    mode = underflow.flush()
    try:
        for _ in range(_ROUNDS):
            for product, taken in zip(contestants, seconds, strict=True):
                started = perf_counter()
                product(c, a, False, b, True, bias, False)
                taken.append(perf_counter() - started)
    finally:
        underflow.restore(mode)
    return median(ours / theirs for ours, theirs in zip(*seconds, strict=True))
