"""Products of float32 matrices whose elements are split into two bfloat16 numbers each.

x = hi + lo but for 2^-16 of it, hi being x rounded to bfloat16, and lo what is left, rounded. Of a
product of two such sums hi hi + hi lo + lo hi is taken.

That is a product of `gemm_bf16`, in the order of TDPBF16PS, of matrices with three times the inner
length: for every INNER indices the left one has its hi, hi and lo, the right one its hi, lo and hi,
filled up with zeros. So there is one contract of bits, kept by tiles and multiply-adds as they are.

Called in the mode that takes subnormal numbers for 0: see `underflow`. Numbers that bfloat16 rounds
to infinity give NaN.
"""

import numpy as np

from . import gemm_bf16
from .gemm import BLOCK_M
from .jit import inlined, kernel, shared
from .llvm.memory import address_of
from .llvm.numbers_bf16 import write_parts
from .llvm.simd_tiles import INNER

PARTS = 3
"""Times the inner length."""
_LEFT, _RIGHT = 1, 2
"""Where hi stands once more: beside itself in the left operand, behind lo in the right one."""
_PART_BYTES = 2 * INNER
_multiply, _multiply_packed = gemm_bf16.product, gemm_bf16.packed_product
_pack = gemm_bf16.pack_panels


@inlined
def _length(inner):
    """Return the inner length of a split matrix."""
    return PARTS * INNER * max(1, (inner + INNER - 1) // INNER)


@inlined
def _split_rows(out, x, again):
    """Write the parts of x (N, K), whose inner index goes along rows, to out (N, _length(K))."""
    inner, length = x.shape[1], out.shape[1]
    for i in range(len(x)):
        to, of = address_of(out) + i * out.strides[0], address_of(x) + i * x.strides[0]
        if inner % INNER or not inner:
            last = out[i, length - PARTS * INNER :]
            for j in range(last.size):
                last[j] = 0
        for k in range(0, inner, INNER):
            n = min(INNER, inner - k)
            write_parts(to, to + again * _PART_BYTES, to + (3 - again) * _PART_BYTES, of, n)
            to, of = to + PARTS * _PART_BYTES, of + 4 * INNER


@inlined
def _split_columns(out, x, again):
    """Write the parts of x (K, N), whose inner index goes down columns, to out (_length(K), N)."""
    inner, n = x.shape
    for k in range(len(out) // PARTS):
        row = PARTS * INNER * (k // INNER) + k % INNER
        if k < inner:
            to, step = address_of(out) + row * out.strides[0], INNER * out.strides[0]
            of = address_of(x) + k * x.strides[0]
            write_parts(to, to + again * step, to + (3 - again) * step, of, n)
        else:
            for part in range(PARTS):
                nothing = out[row + part * INNER]
                for j in range(n):
                    nothing[j] = 0


@shared
def product(c, a, transpose_a, b, transpose_b, bias, accumulate):
    """Write (add, if `accumulate`) a b + bias to c."""
    (m, n), length = c.shape, _length(a.shape[0] if transpose_a else a.shape[1])
    right = np.empty(length * n, np.uint16)
    if transpose_b:
        _split_rows(right.reshape((n, length)), b, _RIGHT)
    else:
        _split_columns(right.reshape((length, n)), b, _RIGHT)
    left = np.empty(length * min(m, BLOCK_M), np.uint16)
    for i in range(0, m, BLOCK_M):
        rows = min(BLOCK_M, m - i)
        of, into = left[: length * rows], c[i : i + rows]
        if transpose_a:
            _split_columns(of.reshape((length, rows)), a[:, i : i + rows], _LEFT)
        else:
            _split_rows(of.reshape((rows, length)), a[i : i + rows], _LEFT)
        shape_a = (length, rows) if transpose_a else (rows, length)
        shape_b = (n, length) if transpose_b else (length, n)
        words_a, words_b = of.reshape(shape_a), right.reshape(shape_b)
        _multiply(into, words_a, transpose_a, words_b, transpose_b, bias, accumulate)


@shared
def packed_product(c, a, packed, bias, accumulate):
    """Write (add, if `accumulate`) a b + bias to c, for what `pack_panels` has made of b."""
    length = _length(a.shape[1])
    most = min(len(a), max(gemm_bf16.BLOCK_BYTES // (2 * length), 16))
    left, panels = np.empty(length * most, np.uint16), packed.view(np.uint32)
    for i in range(0, len(a), max(most, 1)):
        rows = min(most, len(a) - i)
        words = left[: length * rows].reshape((rows, length))
        _split_rows(words, a[i : i + rows], _LEFT)
        _multiply_packed(c[i : i + rows], words, panels, bias, accumulate)


@shared
def pack_panels(packed, b, transpose_b):
    """Write the panels of b, or of its transpose, to double words."""
    inner, n = (b.shape[1], b.shape[0]) if transpose_b else b.shape
    length, panels = _length(inner), packed.view(np.uint32)
    words = np.empty(length * n, np.uint16)
    if transpose_b:
        _split_rows(words.reshape((n, length)), b, _RIGHT)
        _pack(panels, words.reshape((n, length)), True)
    else:
        _split_columns(words.reshape((length, n)), b, _RIGHT)
        _pack(panels, words.reshape((length, n)), False)


@kernel
def pack(packed, b, transpose_b):
    """Writes the panels of b, or of its transpose, to packed."""
    pack_panels(packed, b, transpose_b)


@kernel
def pack_both(packed, of_transpose, b):
    """Writes what `pack` writes of b and of its transpose."""
    pack_panels(packed, b, False)
    pack_panels(of_transpose, b, True)


@kernel
def multiply(c, a, transpose_a, b, transpose_b, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c."""
    product(c, a, transpose_a, b, transpose_b, bias, accumulate)


@kernel
def multiply_packed(c, a, packed, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c, for what `pack` has made of b."""
    packed_product(c, a, packed, bias, accumulate)
