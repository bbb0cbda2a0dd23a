"""Numbers in 16 bits, one at a time: words of bfloat16 are uint16, those of float16 (IEEE's
binary16) int16.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from layers.kernels.machine import has

HAS_HALVES = has("f16c")
"""Whether an instruction rounds to float16. Elsewhere some more do, to the same bits."""
_I16, _I32 = ir.IntType(16), ir.IntType(32)


def rounded(builder: Any, x: Any) -> Any:
    """Return the bits of the bfloat16 nearest to a float32, or to each of a vector, ties to even;
    subnormal numbers count as 0, and NaN is made quiet, as VCVTNEPS2BF16 does.
    """
    many = x.type.count if isinstance(x.type, ir.VectorType) else 0
    words = ir.VectorType(_I32, many) if many else _I32

    def word(number: int) -> Any:
        return ir.Constant(words, [number] * many if many else number)

    bits = builder.bitcast(x, words)
    upper = builder.lshr(bits, word(16))
    even = builder.and_(upper, word(1))
    nearest = builder.lshr(builder.add(builder.add(bits, word(0x7FFF)), even), word(16))
    tiny = builder.icmp_unsigned("==", builder.and_(bits, word(0x7F800000)), word(0))
    size = builder.and_(bits, word(0x7FFFFFFF))
    is_nan = builder.icmp_unsigned(">", size, word(0x7F800000))
    number = builder.select(tiny, builder.and_(upper, word(0x8000)), nearest)
    return builder.select(is_nan, builder.or_(upper, word(0x40)), number)


def rounded_half(builder: Any, x: Any) -> Any:
    """Return the bits of the float16 nearest to a float32, ties to even, as VCVTPS2PH does: beyond
    65504 infinity, below 6e-8 zero, and NaN is made quiet.
    """

    def word(number: int) -> Any:
        return ir.Constant(_I32, number)

    if HAS_HALVES:
        return builder.zext(builder.bitcast(builder.fptrunc(x, ir.HalfType()), _I16), _I32)
    bits = builder.bitcast(x, _I32)
    sign = builder.and_(builder.lshr(bits, word(16)), word(0x8000))
    size = builder.and_(bits, word(0x7FFFFFFF))
    even = builder.and_(builder.lshr(size, word(13)), word(1))
    # Half a unit of the last place that is kept; the exponent's bias is 15, not 127.
    nearest = builder.add(builder.add(size, word(0xFFF)), even)
    normal = builder.sub(builder.lshr(nearest, word(13)), word(112 << 10))
    # The unit of the last place of a half is 2^-24, that of subnormal numbers.
    half = ir.Constant(ir.FloatType(), 0.5)
    shifted = builder.bitcast(builder.fadd(builder.bitcast(size, ir.FloatType()), half), _I32)
    subnormal = builder.sub(shifted, word(0x3F000000))
    payload = builder.or_(word(0x7E00), builder.and_(builder.lshr(size, word(13)), word(0x3FF)))
    small = builder.icmp_unsigned("<", size, word(113 << 23))
    large = builder.icmp_unsigned(">=", size, word(143 << 23))
    is_nan = builder.icmp_unsigned(">", size, word(0x7F800000))
    number = builder.select(small, subnormal, normal)
    number = builder.select(large, word(0x7C00), number)
    return builder.or_(sign, builder.select(is_nan, payload, number))


def widened_half(builder: Any, x: Any) -> Any:
    """Return the float32 of the bits of a float16, 32 of them."""

    def word(number: int) -> Any:
        return ir.Constant(_I32, number)

    size = builder.shl(builder.and_(x, word(0x7FFF)), word(13))
    sign = builder.shl(builder.and_(x, word(0x8000)), word(16))
    exponent = builder.and_(size, word(0x1F << 23))
    normal = builder.add(size, word(112 << 23))
    infinite = builder.add(size, word(224 << 23))
    # 2^-14 (1 + m) - 2^-14.
    least = ir.Constant(ir.FloatType(), 2.0**-14)
    above = builder.bitcast(builder.add(size, word(113 << 23)), ir.FloatType())
    subnormal = builder.bitcast(builder.fsub(above, least), _I32)
    number = builder.select(
        builder.icmp_unsigned("==", exponent, word(0x1F << 23)), infinite, normal
    )
    number = builder.select(builder.icmp_unsigned("==", exponent, word(0)), subnormal, number)
    return builder.bitcast(builder.or_(number, sign), ir.FloatType())


_NARROWED = {types.uint16: rounded, types.int16: rounded_half}


@intrinsic
def narrowed(typingctx: Any, like: Any, x: Any) -> Any:
    """Return a float32 as an array holds it: the word of it rounded to that format, see `rounded`
    and `rounded_half`, or itself in an array of floats.
    """
    round_it = _NARROWED.get(like.dtype)
    if round_it is None:
        return x(like, x), lambda context, builder, signature, arguments: arguments[1]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.trunc(round_it(builder, arguments[1]), _I16)

    return like.dtype(like, types.float32), generate


@intrinsic
def wide(typingctx: Any, x: Any) -> Any:
    """Return the float32 of a word of 16 bits, and a float as it is: what kernels read that take
    either.
    """
    if x not in _NARROWED:
        return x(x), lambda context, builder, signature, arguments: arguments[0]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.zext(arguments[0], _I32)
        if x == types.int16:
            return widened_half(builder, word)
        return builder.bitcast(builder.shl(word, ir.Constant(_I32, 16)), ir.FloatType())

    return types.float32(x), generate
