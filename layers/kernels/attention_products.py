"""The products of attention, of strips of queries with blocks of KEYS keys: of the numbers that are
given, or rounded to bfloat16, in the order that an array of words tells.

Operands are rows of `wide` elements, of which the first n count. In bfloat16 the operands of a
product are made of them: `round_rows` writes the words of rows in their place, from which
`pair_rows_of` and `turn_rows` make panels, and `turn_strip` the left operand of a product over
queries. Nothing of that is done for real numbers, which are multiplied where they are, but that
`turn_rows` transposes them.
"""

from typing import Any, NoReturn

import numpy as np
from numba.core import types
from numba.extending import overload

from .gemm import transpose_plane
from .gemm_bf16 import turn
from .jit import OPTIONS, inlined
from .llvm.memory import address_of
from .llvm.numbers_bf16 import pair_rows, write_numbers
from .llvm.planes import rows_of_1, rows_of_2
from .machine import VECTOR_BYTES
from .products import strip_product

KEYS = 96
"""Keys whose scores are computed at a time: a multiple of the lanes of the widest vector, of the
numbers that Philox gives at a time, and of the inner indices of a tile of TDPBF16PS. Part of the
contract of sums in bfloat16.
"""
INNER = 32
"""Inner lengths in bfloat16 are filled up with zeros to a multiple of this."""
LANES = VECTOR_BYTES // 4
PANEL = 2 * LANES


def _for_kernels_only() -> NoReturn:
    raise NotImplementedError("for kernels only")


def round_rows(order: Any, rows: Any, wide: Any, n: Any, count: Any) -> None:
    """Round the first n elements of so many rows, `wide` elements apart, in place."""
    _for_kernels_only()


def pair_rows_of(
    order: Any, to: Any, rows: Any, first: Any, wide: Any, count: Any, pairs: Any
) -> None:
    """Write the panels, of so many pairs, of `count` rounded rows from `first` on."""
    _for_kernels_only()


def turn_rows(order: Any, to: Any, rows: Any, wide: Any, count: Any) -> None:
    """Write the transpose of `count` rows, rounded ones in bfloat16, as (wide, KEYS)."""
    _for_kernels_only()


def turn_strip(order: Any, to: Any, room: Any, strip: Any, rows: Any, n: Any, pairs: Any) -> None:
    """Write the transpose of a rounded strip (rows, n), whose rows are KEYS apart, as words of so
    many pairs of queries.
    """
    _for_kernels_only()


def product_of_features(
    order: Any, c: Any, a: Any, first: Any, rows: Any, b: Any, wide: Any, n: Any, columns: Any
) -> None:
    """Write to a strip c (rows, KEYS) the product of rows of a from `first` on with b, which
    `turn_rows` has written, over n features.
    """
    _for_kernels_only()


def product_of_keys(
    order: Any,
    c: Any,
    first: Any,
    a: Any,
    rows: Any,
    b: Any,
    panels: Any,
    at: Any,
    wide: Any,
    keys: Any,
    n: Any,
    accumulate: Any,
) -> None:
    """Write (add) to n columns of rows of c from `first` on the product of a strip a and the rows
    of b from `at` on, or their panels, over so many keys.
    """
    _for_kernels_only()


def product_of_queries(
    order: Any,
    c: Any,
    a: Any,
    turned: Any,
    keys: Any,
    b: Any,
    panels: Any,
    first: Any,
    wide: Any,
    rows: Any,
    pairs: Any,
    n: Any,
    accumulate: Any,
) -> None:
    """Write (add) to n columns of `keys` rows of c the product of the transpose of a strip a, or
    what was `turned` of it, and rows of b from `first` on, or their panels.
    """
    _for_kernels_only()


@inlined
def _real_product(like, c, c_row, a, a_row, a_k, m, b, b_row, k, n, accumulate):
    """Write (add) a (m, k) times b (k, n), n rounded up to whole vectors; addresses and distances
    in bytes.
    """
    lanes = VECTOR_BYTES // like.itemsize
    vectors = (n + lanes - 1) // lanes
    for v in range(0, vectors - 1, 2):
        at = v * VECTOR_BYTES
        rows_of_2(like, m, c + at, c_row, a, a_row, a_k, b + at, b_row, k, accumulate)
    if vectors % 2:
        at = (vectors - 1) * VECTOR_BYTES
        rows_of_1(like, m, c + at, c_row, a, a_row, a_k, b + at, b_row, k, accumulate)


@inlined
def _real_transpose(to, rows, wide, count):
    # And what stands after them up to a whole vector.
    lanes = VECTOR_BYTES // rows.itemsize
    whole = (count + lanes - 1) // lanes * lanes
    transpose_plane(
        to[: wide * KEYS].reshape((wide, KEYS)), rows[: whole * wide].reshape((whole, wide))
    )


@inlined
def _real_of_features(c, a, first, rows, b, wide, n, columns):
    size = c.itemsize
    row, s_row = wide * size, KEYS * size
    of = address_of(a) + first * row
    to, right, write = address_of(c), address_of(b), np.int64(0)
    _real_product(c, to, s_row, of, row, size, rows, right, s_row, n, columns, write)


@inlined
def _real_of_keys(c, first, a, rows, b, at, wide, keys, n, accumulate):
    size = c.itemsize
    row = wide * size
    to, of, right = address_of(c) + first * row, address_of(a), address_of(b) + at * row
    _real_product(c, to, row, of, KEYS * size, size, rows, right, row, keys, n, accumulate)


@inlined
def _real_of_queries(c, a, keys, b, first, wide, rows, n, accumulate):
    size = c.itemsize
    row = wide * size
    to, of, right = address_of(c), address_of(a), address_of(b) + first * row
    _real_product(c, to, row, of, size, KEYS * size, keys, right, row, rows, n, accumulate)


@inlined
def _round_rows(rows, wide, n, count):
    """Write numbers in place of float32 ones, which lie behind them, and zeros up to `wide`, or to
    the next multiple of INNER.
    """
    numbers = rows.view(np.uint16)
    filled = min(wide, (n + INNER - 1) // INNER * INNER)
    for i in range(count):
        write_numbers(rows, address_of(rows) + i * wide * 2, address_of(rows) + i * wide * 4, n)
        row = numbers[i * wide + n : i * wide + filled]
        for j in range(row.size):
            row[j] = 0


@inlined
def _pair_rows_of(to, rows, first, wide, count, pairs):
    words = to.view(np.uint32)
    for j in range(0, wide, PANEL):
        panel = words[j * pairs : (j + PANEL) * pairs]
        of = address_of(rows) + (first * wide + j) * 2
        pair_rows(address_of(panel), of, wide * 2, count, 2)
        for i in range((count + 1) // 2 * PANEL, panel.size):
            panel[i] = 0


@inlined
def _turn_rows(to, rows, wide, count):
    """Write panels of PANEL keys."""
    words, of = to.view(np.uint32), rows.view(np.uint32)
    pairs = wide // 2
    for j in range(0, count, PANEL):
        turn(words[j * pairs :], of[j * pairs :], pairs, np.int64(PANEL), pairs)


@inlined
def _turn_strip(to, room, strip, rows, n, pairs):
    words, part = to.view(np.uint32), room.view(np.uint32)
    for j in range(0, n, LANES):
        pair_rows(address_of(part), address_of(strip) + 2 * j, KEYS * 2, rows, 1)
        for i in range((rows + 1) // 2 * LANES, pairs * LANES):
            part[i] = 0
        turn(words[j * pairs :], part, LANES, pairs, min(LANES, n - j))


@inlined
def _of_features(order, c, a, first, rows, b, wide, columns):
    pairs = wide // 2
    words, panels = a.view(np.uint32)[first * pairs :], b.view(np.uint32)
    for j in range(0, columns, PANEL):
        strip_product(
            order,
            c,
            address_of(c) + 4 * j,
            KEYS * 4,
            words,
            pairs,
            pairs,
            rows,
            address_of(panels) + 4 * j * pairs,
            np.int64(0),
        )


@inlined
def _over_panels(order, c, to, words, words_row, pairs, rows, panels, height, wide, accumulate):
    """Write (add) the product of words and panels of `height` pairs each, of which `pairs` are
    used, at addresses.
    """
    for j in range(0, wide, PANEL):
        strip_product(
            order,
            c,
            to + 4 * j,
            wide * 4,
            words,
            words_row,
            pairs,
            rows,
            panels + 4 * j * height,
            accumulate,
        )


@inlined
def _of_keys(order, c, first, a, rows, b, at, wide, keys, accumulate):
    pairs = (keys + INNER - 1) // INNER * INNER // 2
    to, panels = address_of(c) + first * wide * 4, address_of(b) + at * wide * 2
    half = np.int64(KEYS // 2)
    words = a.view(np.uint32)
    _over_panels(order, c, to, words, half, pairs, rows, panels, half, wide, accumulate)


@inlined
def _of_queries(order, c, turned, keys, panels, first, wide, pairs, accumulate):
    at = address_of(panels) + first * wide * 2
    to, words = address_of(c), turned.view(np.uint32)
    _over_panels(order, c, to, words, pairs, pairs, keys, at, pairs, wide, accumulate)


def _real(order):
    return order.dtype in (types.float32, types.float64)


@overload(round_rows, jit_options=OPTIONS)
def _round_rows_by(order, rows, wide, n, count):
    if _real(order):
        return lambda order, rows, wide, n, count: None
    return lambda order, rows, wide, n, count: _round_rows(rows, wide, n, count)


@overload(pair_rows_of, jit_options=OPTIONS)
def _pair_rows_by(order, to, rows, first, wide, count, pairs):
    if _real(order):
        return lambda order, to, rows, first, wide, count, pairs: None
    return lambda order, to, rows, first, wide, count, pairs: _pair_rows_of(
        to, rows, first, wide, count, pairs
    )


@overload(turn_rows, jit_options=OPTIONS)
def _turn_rows_by(order, to, rows, wide, count):
    if _real(order):
        return lambda order, to, rows, wide, count: _real_transpose(to, rows, wide, count)
    return lambda order, to, rows, wide, count: _turn_rows(to, rows, wide, count)


@overload(turn_strip, jit_options=OPTIONS)
def _turn_strip_by(order, to, room, strip, rows, n, pairs):
    if _real(order):
        return lambda order, to, room, strip, rows, n, pairs: None
    return lambda order, to, room, strip, rows, n, pairs: _turn_strip(
        to, room, strip, rows, n, pairs
    )


@overload(product_of_features, jit_options=OPTIONS)
def _product_of_features(order, c, a, first, rows, b, wide, n, columns):
    if _real(order):
        return lambda order, c, a, first, rows, b, wide, n, columns: _real_of_features(
            c, a, first, rows, b, wide, n, columns
        )
    return lambda order, c, a, first, rows, b, wide, n, columns: _of_features(
        order, c, a, first, rows, b, wide, columns
    )


@overload(product_of_keys, jit_options=OPTIONS)
def _product_of_keys(order, c, first, a, rows, b, panels, at, wide, keys, n, accumulate):
    if _real(order):
        return lambda order, c, first, a, rows, b, panels, at, wide, keys, n, accumulate: (
            _real_of_keys(c, first, a, rows, b, at, wide, keys, n, accumulate)
        )
    return lambda order, c, first, a, rows, b, panels, at, wide, keys, n, accumulate: _of_keys(
        order, c, first, a, rows, panels, at, wide, keys, accumulate
    )


@overload(product_of_queries, jit_options=OPTIONS)
def _product_of_queries(
    order, c, a, turned, keys, b, panels, first, wide, rows, pairs, n, accumulate
):
    if _real(order):
        return (
            lambda order, c, a, turned, keys, b, panels, first, wide, rows, pairs, n, accumulate: (
                _real_of_queries(c, a, keys, b, first, wide, rows, n, accumulate)
            )
        )
    return lambda order, c, a, turned, keys, b, panels, first, wide, rows, pairs, n, accumulate: (
        _of_queries(order, c, turned, keys, panels, first, wide, pairs, accumulate)
    )
