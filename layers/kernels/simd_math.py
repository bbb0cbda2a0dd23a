"""Elementary functions of rows, several vectors at a time; the bits of an element do not depend on where in the row it stands."""

from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .jit import inlined
from .simd import VECTOR_BYTES, Emitter
from .vmath import Formulas

# Vectors that are computed together: one alone would leave the processor waiting for each of its twenty steps.
TOGETHER = 4


@intrinsic(prefer_literal=True)
def _row_function(typingctx: Any, like: Any, to: Any, of: Any, n: Any, name: Any) -> Any:
    """Write the function of this name (of `Formulas`) of n elements; addresses."""
    signature = types.void(like, types.intp, types.intp, types.intp, name)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        function = getattr(Formulas(builder, like.dtype, emit.lanes), name.literal_value)
        _, to, of, n, _ = arguments

        def vectors(count: int) -> Any:
            def body(_: Any, pointers: list[Any]) -> list[Any]:
                into, source = ([emit.offset(start, k * VECTOR_BYTES) for k in range(count)] for start in pointers)
                for y, place in zip(function([emit.load(x) for x in source]), into, strict=True):
                    emit.store(y, place)
                return [emit.offset(start, count * VECTOR_BYTES) for start in pointers]

            return body

        whole = builder.sdiv(n, emit.integer(emit.lanes))
        groups = builder.sdiv(whole, emit.integer(TOGETHER))
        pointers = emit.loop(groups, [emit.pointer(to), emit.pointer(of)], vectors(TOGETHER))
        singles = builder.sub(whole, builder.mul(groups, emit.integer(TOGETHER)))
        into, source = emit.loop(singles, pointers, vectors(1))
        rest = builder.sub(n, builder.mul(whole, emit.integer(emit.lanes)))
        with builder.if_then(builder.icmp_signed(">", rest, emit.integer(0))):
            emit.store_first(function([emit.masked_load(source, emit.first_lanes(rest))]), [into], rest)
        return context.get_dummy_value()

    return signature, generate


@inlined
def exp_row(to, of):
    """Write e^x of each element x; both (n,), and perhaps the same array."""
    _row_function(of, to.ctypes.data, of.ctypes.data, of.size, "exp")


@inlined
def tanh_row(to, of):
    """Write the hyperbolic tangent of each element; both (n,), and perhaps the same array."""
    _row_function(of, to.ctypes.data, of.ctypes.data, of.size, "tanh")


@inlined
def sigmoid_row(to, of):
    """Write 1 / (1 + e^-x) of each element x; both (n,), and perhaps the same array."""
    _row_function(of, to.ctypes.data, of.ctypes.data, of.size, "sigmoid")
