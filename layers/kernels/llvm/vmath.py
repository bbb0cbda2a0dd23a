"""Branch-free exp, tanh and sigmoid of numbers in kernels, for float32, float64 and complex128.

LLVM vectorises loops over these; calls into the C library it does not. `simd_math` has functions of
rows, which are faster. The complex versions serve the complex step of the gradient check.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from layers.kernels.jit import OPTIONS

from .formulas import FORMATS, Formulas, fused


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once."""
    return a(a, a, a), lambda context, builder, signature, arguments: fused(builder, *arguments)


@intrinsic(prefer_literal=True)
def constant(typingctx: Any, like: Any, name: Any) -> Any:
    """Return the constant of this name (of `_Format`) in the real format of `like`, a number or an
    array; of words of 16 bits, in float32.

    A literal such as 1 would turn float32 arithmetic into float64.
    """
    dtype = like.dtype if isinstance(like, types.Array) else like
    dtype = types.float64 if dtype == types.complex128 else dtype
    dtype = types.float32 if isinstance(dtype, types.Integer) else dtype
    value = getattr(FORMATS[dtype], name.literal_value)
    element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return dtype(like, name), lambda context, builder, signature, arguments: ir.Constant(
        element, value
    )


@intrinsic
def number(typingctx: Any, like: Any, value: Any) -> Any:
    """Return a value, such as a Python float that a kernel is given, rounded to the real format of
    `like`, a number or an array.
    """
    dtype = like.dtype if isinstance(like, types.Array) else like
    dtype = types.float64 if dtype == types.complex128 else dtype
    return dtype(like, value), lambda context, builder, signature, arguments: context.cast(
        builder, arguments[1], value, dtype
    )


@intrinsic
def bits_of(typingctx: Any, x: Any) -> Any:
    """Return the 64 bits of a float64 as an integer."""
    return types.int64(x), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], ir.IntType(64)
    )


@intrinsic
def of_bits(typingctx: Any, bits: Any) -> Any:
    """Return the float64 of these 64 bits."""
    return types.float64(bits), lambda context, builder, signature, arguments: builder.bitcast(
        arguments[0], ir.DoubleType()
    )


@intrinsic(prefer_literal=True)
def _formula(typingctx: Any, x: Any, name: Any) -> Any:
    """Return the function of this name (of `Formulas`) of a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(Formulas(builder, x), name.literal_value)([arguments[0]])[0]

    return x(x, name), generate


def exp(x: Any) -> Any:
    """Return e^x: 0 where that is no normal number, inf where it is too large."""
    raise NotImplementedError("for kernels only")


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent: with m = e^(2x) - 1, m / (m + 2)."""
    raise NotImplementedError("for kernels only")


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + e^-x)."""
    raise NotImplementedError("for kernels only")


def not_minus_infinity(x: Any) -> Any:
    """Return x, or the least finite number in place of -inf; a complex number as it is."""
    raise NotImplementedError("for kernels only")


def lower_tail(x: Any) -> Any:
    """Return the normal distribution function Phi(x) of a real number."""
    raise NotImplementedError("for kernels only")


@overload(exp, jit_options=OPTIONS)
def _exp(x):
    return (lambda x: np.exp(x)) if isinstance(x, types.Complex) else lambda x: _formula(x, "exp")


@overload(tanh, jit_options=OPTIONS)
def _tanh(x):
    return (lambda x: np.tanh(x)) if isinstance(x, types.Complex) else lambda x: _formula(x, "tanh")


@overload(sigmoid, jit_options=OPTIONS)
def _sigmoid(x):
    return (
        (lambda x: 1 / (1 + np.exp(-x)))
        if isinstance(x, types.Complex)
        else lambda x: _formula(x, "sigmoid")
    )


@overload(not_minus_infinity, jit_options=OPTIONS)
def _not_minus_infinity(x):
    def real(x):
        least = -constant(x, "largest")
        return least if x < least else x

    return (lambda x: x) if isinstance(x, types.Complex) else real


@overload(lower_tail, jit_options=OPTIONS)
def _lower_tail(x):
    return lambda x: _formula(x, "lower_tail")
