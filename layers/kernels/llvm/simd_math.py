"""Elementary functions of rows, several vectors at a time; the bits of an element do not depend on
where in the row it stands.
"""

from typing import Any

from numba.core import types
from numba.extending import intrinsic, overload

from layers.kernels.jit import OPTIONS, inlined

from .emitter import VECTOR_BYTES, Emitter
from .formulas import Formulas
from .memory import address_of
from .vmath import exp, sigmoid, tanh

# Vectors that are computed together: one alone would leave the processor waiting for each of its
# twenty steps.
TOGETHER = 4


@intrinsic(prefer_literal=True)
def _row_function(
    typingctx: Any, like: Any, to: Any, second: Any, of: Any, n: Any, name: Any
) -> Any:
    """Write the function of this name (of `Formulas`) of n elements, and its second result, unless
    that address is 0.
    """
    two_results = name.literal_value == "gelu_and_slope"

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        function = getattr(Formulas(builder, like.dtype, emit.lanes), name.literal_value)
        _, to, second, of, n, _ = arguments

        def results(xs: list[Any]) -> list[list[Any]]:
            return list(function(xs)) if two_results else [function(xs)]

        def vectors(count: int) -> Any:
            def body(_: Any, pointers: list[Any]) -> list[Any]:
                *into, source = (
                    [emit.offset(start, k * VECTOR_BYTES) for k in range(count)]
                    for start in pointers
                )
                for ys, places in zip(results([emit.load(x) for x in source]), into, strict=True):
                    for y, place in zip(ys, places, strict=True):
                        emit.store(y, place)
                return [emit.offset(start, count * VECTOR_BYTES) for start in pointers]

            return body

        whole = builder.sdiv(n, emit.integer(emit.lanes))
        groups = builder.sdiv(whole, emit.integer(TOGETHER))
        pointers = [
            emit.pointer(address) for address in ((to, second, of) if two_results else (to, of))
        ]
        pointers = emit.loop(groups, pointers, vectors(TOGETHER))
        singles = builder.sub(whole, builder.mul(groups, emit.integer(TOGETHER)))
        *into, source = emit.loop(singles, pointers, vectors(1))
        rest = builder.sub(n, builder.mul(whole, emit.integer(emit.lanes)))
        with builder.if_then(builder.icmp_signed(">", rest, emit.integer(0))):
            ys = [y for (y,) in results([emit.masked_load(source, emit.first_lanes(rest))])]
            emit.store_first(ys, into, rest)
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 4), name), generate


_OF_NUMBERS = {"exp": exp, "exp_of_nonpositive": exp, "tanh": tanh, "sigmoid": sigmoid}


def _apply(to: Any, of: Any, name: Any) -> None:
    """Write the function of this name of each element, complex ones too."""
    raise NotImplementedError("for kernels only")


@overload(_apply, prefer_literal=True, jit_options=OPTIONS)
def _apply_of(to, of, name):
    function = _OF_NUMBERS[name.literal_value]

    def complex_row(to, of, name):
        for j in range(of.size):
            to[j] = function(of[j])

    def real_row(to, of, name):
        _row_function(of, address_of(to), 0, address_of(of), of.size, name)

    return complex_row if isinstance(of.dtype, types.Complex) else real_row


@inlined
def exp_row(to, of):
    """Write e^x of each element x; both (n,), and perhaps the same array."""
    _apply(to, of, "exp")


@inlined
def exp_of_nonpositive_row(to, of):
    """Write e^x of each element x <= 0, with the bits of `exp_row`, which is slower; both (n,), and
    perhaps the same array.
    """
    _apply(to, of, "exp_of_nonpositive")


@inlined
def tanh_row(to, of):
    """Write the hyperbolic tangent of each element; both (n,), and perhaps the same array."""
    _apply(to, of, "tanh")


@inlined
def sigmoid_row(to, of):
    """Write 1 / (1 + e^-x) of each element x; both (n,), and perhaps the same array."""
    _apply(to, of, "sigmoid")


@inlined
def gelu_row(to, of):
    """Write x Phi(x) of each element x, Phi being the normal distribution function; both (n,), and
    perhaps the same array.
    """
    _row_function(of, address_of(to), 0, address_of(of), of.size, "gelu")


@inlined
def gelu_slope_row(to, of):
    """Write Phi(x) + x e^(-x^2/2) / sqrt(2 pi), the derivative of GELU, of each element x; both
    (n,).
    """
    _row_function(of, address_of(to), 0, address_of(of), of.size, "gelu_slope")


@inlined
def gelu_and_slope_rows(to, slope, of):
    """Write GELU of each element, and its derivative; all (n,), `to` and `of` perhaps the same
    array.
    """
    _row_function(of, address_of(to), address_of(slope), address_of(of), of.size, "gelu_and_slope")
