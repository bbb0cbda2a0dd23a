"""What one core can do at most: the rate of multiply-adds in registers, and how many of them a
workload's matrix products take.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic
from workloads.workload import Workload

from layers import Embedding, LearnedPositions, Module, Parameter
from layers.kernels.jit import kernel
from layers.kernels.llvm.emitter import Emitter
from layers.kernels.machine import VECTOR_BYTES

# Independent sums: enough to hide the latency of a multiply-add, and few enough for the registers.
SUMS, ROUNDS = 12, 20_000
OPERATIONS = 2 * SUMS * ROUNDS * (VECTOR_BYTES // 4)


@intrinsic
def _chains(typingctx: Any, out: Any, rounds: Any) -> Any:
    """Store what so many multiply-adds in each of SUMS vectors give."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, types.float32)
        address, rounds = arguments
        factor, term = emit.constant(1 + 2.0**-23), emit.constant(2.0**-20)

        def body(_: Any, sums: list[Any]) -> list[Any]:
            return [emit.multiply_add(value, factor, term) for value in sums]

        sums = emit.loop(rounds, [emit.constant(i) for i in range(SUMS)], body)
        for i, value in enumerate(sums):
            emit.store(value, emit.offset(emit.pointer(address), i * VECTOR_BYTES))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


def _multiply_add(out: Any, rounds: int) -> None:
    """Writes the sums to out (SUMS vectors,)."""
    _chains(np.int64(out.ctypes.data), rounds)


def contestant() -> Callable[[], None]:
    """Return a function that takes OPERATIONS floating-point operations of single precision, and
    nothing else.
    """
    run, out = kernel(_multiply_add, cache=False), np.zeros(SUMS * VECTOR_BYTES // 4, np.float32)
    return lambda: run(out, ROUNDS)


def operations(workload: Workload) -> int | None:
    """Return the floating-point operations of the matrix products with weights in a step, None for
    networks with convolutions.

    Each weight meets each position once forward, and twice backward, for its own gradient and that
    of what it met; the gradient of the data themselves is not computed. Products within attention
    are not counted.
    """
    (x, y), model = workload.batches()[0], workload.start()
    if workload.images:
        return None
    weights = [parameter.size for layer in _layers(model) for parameter in _weights(layer)]
    untrained = weights[0] if x.dtype.kind == "f" else 0
    return 2 * y.size * (3 * sum(weights) - untrained)


def _layers(layer: Module) -> Iterator[Module]:
    yield layer
    for name, attribute in vars(layer).items():
        for item in attribute if isinstance(attribute, list | tuple) else [attribute]:
            if isinstance(item, Module) and not name.startswith("_"):
                yield from _layers(item)


def _weights(layer: Module) -> list[Parameter]:
    looked_up = isinstance(layer, Embedding | LearnedPositions)
    return (
        []
        if looked_up
        else [parameter for parameter in layer.own_parameters() if len(parameter.shape) == 2]
    )
