"""The product that a kernel makes, by the type of the weights that it is given: of real numbers as
in `gemm`, or of words that `gemm_bf16` has packed, unsigned ones for the order of TDPBF16PS, signed
ones for that of VDPBF16PS, or of double words of `gemm_bf16x3`.
"""

from typing import Any, NoReturn

from numba.core import types
from numba.extending import overload

from . import gemm, gemm_bf16, gemm_bf16x3, shard_sums
from .jit import OPTIONS

_real, _packed_real = gemm.product, gemm.packed_product
_chains, _packed_chains = gemm_bf16.product, gemm_bf16.packed_product
_dots, _packed_dots = gemm_bf16.dot_product, gemm_bf16.packed_dot_product
_split, _packed_split = gemm_bf16x3.product, gemm_bf16x3.packed_product
_real_sum = shard_sums.sum_of_products
_sum_of_chains, _sum_of_dots = shard_sums.by_shard(_chains), shard_sums.by_shard(_dots)
_sum_of_split = shard_sums.by_shard(_split)
_pack_real, _pack_split = gemm.pack_panels, gemm_bf16x3.pack_panels
_pack_chains, _pack_dots = gemm_bf16.pack_panels, gemm_bf16.pack_dot_panels
_strip_chains, _strip_dots = gemm_bf16.strip_product, gemm_bf16.strip_dot_product


def _for_kernels_only() -> NoReturn:
    raise NotImplementedError("for kernels only")


def product(w: Any, c: Any, a: Any, transpose_a: Any, b: Any, transpose_b: Any, add: Any) -> None:
    """Write (or add) a b to c in the way of the weights w: see `gemm.product`."""
    _for_kernels_only()


def product_with(c: Any, a: Any, w: Any, transposed: Any, bias: Any) -> None:
    """Write a w + bias (or a wᵀ + bias, which packed words are for, or not, already) to c."""
    _for_kernels_only()


def packed_product(c: Any, a: Any, packed: Any, bias: Any, accumulate: Any) -> None:
    """Write (or add, if `accumulate`) a b + bias to c, for what was packed of b."""
    _for_kernels_only()


def pack_panels(packed: Any, b: Any, transposed: Any) -> None:
    """Write the panels of b (or its transpose) in the way of `packed`: see `gemm.pack_panels`."""
    _for_kernels_only()


def strip_product(
    order: Any,
    like: Any,
    to: Any,
    to_row: Any,
    words: Any,
    words_row: Any,
    pairs: Any,
    rows: Any,
    panel: Any,
    accumulate: Any,
) -> None:
    """Write (or add) the product of rows of words and a panel in the way of `order`: see
    `gemm_bf16`.
    """
    _for_kernels_only()


def sum_of_products(w: Any, c: Any, a: Any, b: Any, bounds: Any, steps: Any) -> None:
    """Write the sum of aᵀ b over shards to c in the way of the weights w: see
    `shard_sums.sum_of_products`.
    """
    _for_kernels_only()


@overload(sum_of_products, jit_options=OPTIONS)
def _sum_of_products(w, c, a, b, bounds, steps):
    if w.dtype == types.uint32:
        return lambda w, c, a, b, bounds, steps: _sum_of_chains(c, a, b, bounds, steps)
    if w.dtype == types.int32:
        return lambda w, c, a, b, bounds, steps: _sum_of_dots(c, a, b, bounds, steps)
    if w.dtype == types.uint64:
        return lambda w, c, a, b, bounds, steps: _sum_of_split(c, a, b, bounds, steps)
    return lambda w, c, a, b, bounds, steps: _real_sum(c, a, b, bounds, steps)


@overload(product, jit_options=OPTIONS)
def _product(w, c, a, transpose_a, b, transpose_b, add):
    if w.dtype == types.uint32:
        return lambda w, c, a, transpose_a, b, transpose_b, add: _chains(
            c, a, transpose_a, b, transpose_b, c[0, :0], add
        )
    if w.dtype == types.int32:
        return lambda w, c, a, transpose_a, b, transpose_b, add: _dots(
            c, a, transpose_a, b, transpose_b, c[0, :0], add
        )
    if w.dtype == types.uint64:
        return lambda w, c, a, transpose_a, b, transpose_b, add: _split(
            c, a, transpose_a, b, transpose_b, c[0, :0], add
        )
    return lambda w, c, a, transpose_a, b, transpose_b, add: _real(
        c, a, transpose_a, b, transpose_b, c[0, :0], add
    )


@overload(product_with, jit_options=OPTIONS)
def _product_with(c, a, w, transposed, bias):
    if w.dtype == types.uint32:
        return lambda c, a, w, transposed, bias: _packed_chains(c, a, w, bias, False)
    if w.dtype == types.int32:
        return lambda c, a, w, transposed, bias: _packed_dots(c, a, w, bias, False)
    if w.dtype == types.uint64:
        return lambda c, a, w, transposed, bias: _packed_split(c, a, w, bias, False)
    return lambda c, a, w, transposed, bias: _real(c, a, False, w, transposed, bias, False)


@overload(packed_product, jit_options=OPTIONS)
def _packed_product(c, a, packed, bias, accumulate):
    if packed.dtype == types.uint32:
        return lambda c, a, packed, bias, accumulate: _packed_chains(c, a, packed, bias, accumulate)
    if packed.dtype == types.int32:
        return lambda c, a, packed, bias, accumulate: _packed_dots(c, a, packed, bias, accumulate)
    if packed.dtype == types.uint64:
        return lambda c, a, packed, bias, accumulate: _packed_split(c, a, packed, bias, accumulate)
    return lambda c, a, packed, bias, accumulate: _packed_real(c, a, packed, bias, accumulate)


@overload(pack_panels, jit_options=OPTIONS)
def _pack_panels(packed, b, transposed):
    if packed.dtype == types.uint32:
        return lambda packed, b, transposed: _pack_chains(packed, b, transposed)
    if packed.dtype == types.int32:
        return lambda packed, b, transposed: _pack_dots(packed, b, transposed)
    if packed.dtype == types.uint64:
        return lambda packed, b, transposed: _pack_split(packed, b, transposed)
    return lambda packed, b, transposed: _pack_real(packed, b, transposed)


@overload(strip_product, jit_options=OPTIONS)
def _strip_product(order, like, to, to_row, words, words_row, pairs, rows, panel, accumulate):
    if order.dtype == types.uint32:
        return lambda order, like, to, to_row, words, words_row, pairs, rows, panel, accumulate: (
            _strip_chains(like, to, to_row, words, words_row, pairs, rows, panel, accumulate)
        )
    return lambda order, like, to, to_row, words, words_row, pairs, rows, panel, accumulate: (
        _strip_dots(like, to, to_row, words, words_row, pairs, rows, panel, accumulate)
    )
