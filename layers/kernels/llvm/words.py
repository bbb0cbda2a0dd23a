"""The bits of a float32, as a number."""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


@intrinsic
def word_of(typingctx: Any, x: Any) -> Any:
    """Return the 32 bits of a float32 as an integer."""
    return types.uint32(
        types.float32
    ), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], ir.IntType(32))


@intrinsic
def of_word(typingctx: Any, bits: Any) -> Any:
    """Return the float32 of these 32 bits."""
    return types.float32(
        types.uint32
    ), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], ir.FloatType())
