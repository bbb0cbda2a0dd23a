"""Products of float32 matrices whose elements are rounded to bfloat16, with float32 sums.

Two contracts, both such that an element's bits depend on its row of a, its column of b and the
inner length alone:

- `product`: the order of TDPBF16PS, see `simd_bf16.chains_tile`; that instruction is used where
  `amx` says so, and any processor with fused multiply-adds makes the same bits.
- `dot_product`: the order of VDPBF16PS, see `simd_bf16.dots_tile`, for processors that have it:
  twice as many multiply-adds in a cycle as with float32 on AMD's Zen 4.

Called in the mode that takes subnormal numbers for 0: see `underflow`. The loops are those of
`gemm`, but for the inner length, which is not cut: panels of b come from the second-level cache.
"""

from typing import Any, NamedTuple

import numpy as np

from . import amx, gemm_tiles
from .jit import inlined, kernel, shared
from .llvm.memory import address_of
from .llvm.numbers_bf16 import write_numbers
from .llvm.simd_bf16 import (
    CHAIN_ROWS,
    CHAIN_VECTORS,
    DOT_ROWS,
    DOT_VECTORS,
    PAIRS,
    chains_tile,
    dots_tile,
    pair_of,
    transpose_words,
)
from .llvm.simd_tiles import Hardware, Software
from .machine import VECTOR_BYTES, WIDEST_VECTOR

BLOCK_BYTES = 256 * 1024
"""Size of the rows of a that stay in the second-level cache while the panels of b pass."""
LANES = VECTOR_BYTES // 4
MACHINES = {amx.HARDWARE: Hardware, amx.SOFTWARE: Software}
"""What multiplies tiles: see `amx`."""


@inlined
def _pairs_of_rows(words, x, j, n, width, pairs):
    """Write columns j..j+n of x (K, N) as (pairs, width): word p, i holds rows 2p and 2p+1 of
    column j+i. What is not there is zero.
    """
    zero = np.float32(0)
    for p in range(pairs):
        to = words[p * width : (p + 1) * width]
        there = n if 2 * p < len(x) else 0
        if 2 * p + 1 < len(x):
            first, second = x[2 * p, j : j + n], x[2 * p + 1, j : j + n]
            for i in range(n):
                to[i] = pair_of(first[i], second[i])
        else:
            for i in range(there):
                to[i] = pair_of(x[2 * p, j + i], zero)
        for i in range(there, width):
            to[i] = 0


@inlined
def _pairs_of_columns(words, x, i0, m, height, pairs):
    """Write rows i0..i0+m of x (M, K) as (height, pairs): word i, p holds columns 2p and 2p+1 of
    row i0+i. What is not there is zero.
    """
    inner = x.shape[1]
    for i in range(m):
        to = words[i * pairs : (i + 1) * pairs]
        for p in range(inner // 2, pairs):
            to[p] = 0
        write_numbers(x, address_of(to), address_of(x) + (i0 + i) * x.strides[0], inner)
    for p in range(m * pairs, height * pairs):
        words[p] = 0


@inlined
def turn(out, x, x_row, rows, columns):
    """Write the transpose of a matrix of words, or of float32 numbers, (rows, columns), whose rows
    are `x_row` elements apart.
    """
    if rows < LANES or columns < LANES:
        for i in range(rows):
            for q in range(columns):
                out[q * rows + i] = x[i * x_row + q]
        return
    # The last blocks overlap those before them where a size is no multiple of the lanes.
    for i in range(0, rows, LANES):
        i = min(i, rows - LANES)
        for q in range(0, columns, LANES):
            q = min(q, columns - LANES)
            to = address_of(out) + (q * rows + i) * 4
            of = address_of(x) + (i * x_row + q) * 4
            transpose_words(to, rows * 4, of, x_row * 4)


@shared
def pack_rows(words, room, x, transposed, i0, m, pairs):
    """Write rows i0..i0+m of x (of its transpose, if so) as (m, pairs) words; `room` for as many is
    used if it is transposed.
    """
    if transposed:
        _pairs_of_rows(room, x, i0, m, m, pairs)
        turn(words, room, m, pairs, m)
    else:
        _pairs_of_columns(words, x, i0, m, m, pairs)


@shared
def pack_columns(words, room, x, transposed, j, n, width, pairs):
    """Write columns j..j+n of x (of its transpose, if so) as (pairs, width) words; `room` for as
    many is used if it is transposed.
    """
    if transposed:
        _pairs_of_columns(room, x, j, n, width, pairs)
        turn(words, room, pairs, width, pairs)
    else:
        _pairs_of_rows(words, x, j, n, width, pairs)


def _strip(tile, height, vectors):
    """Return the helper that multiplies rows from i on with a panel, so many at a time, and returns
    the first row that is left.
    """

    @inlined
    def strip(c, to, to_row, block, row, i, rows, panel, count, lanes, bias, accumulate):
        while i + height <= rows:
            tile(
                c,
                to + i * to_row,
                to_row,
                block + i * row,
                row,
                panel,
                count,
                lanes,
                bias,
                accumulate,
                height,
                vectors,
            )
            i += height
        return i

    return strip


def _strips(tile, height, vectors):
    """Return the helper that multiplies a block of a with one panel of so many vectors."""
    tall, low, single = (_strip(tile, rows, vectors) for rows in (height, 2, 1))

    @inlined
    def strips(c, to, to_row, block, row, rows, *rest):
        i = tall(c, to, to_row, block, row, 0, rows, *rest)
        i = low(c, to, to_row, block, row, i, rows, *rest)
        single(c, to, to_row, block, row, i, rows, *rest)

    return strips


class _Order(NamedTuple):
    """How pairs are summed.

    Attributes
    ----------
    tile
        The microkernel.
    rows, vectors
        The size of its tiles.
    together
        Pairs that it takes at a time: rows are filled up with zeros.
    words
        Words for each pair of a row of a: one, or two that hold a float32 number each.
    """

    tile: Any
    rows: int
    vectors: int
    together: int
    words: int


def _products(order):
    """Return the shared helpers `product`, `packed_product`, `pack_panels`, `pack_both` and
    `strip_product` of an order.
    """
    one, two, three = (_strips(order.tile, order.rows, vectors) for vectors in (1, 2, 3))
    most_vectors, together, words_of_pair = order.vectors, order.together, order.words

    @inlined
    def pairs_of(inner):
        return (inner + 2 * together - 1) // (2 * together) * together

    @inlined
    def vectors_of(columns):
        # Wide ones, and two of two rather than three and one.
        remaining = (columns + LANES - 1) // LANES
        return 2 if most_vectors == 3 and remaining == 4 else min(remaining, most_vectors)

    @inlined
    def rows_at_once(m, pairs):
        return min(m, max(BLOCK_BYTES // max(4 * words_of_pair * pairs, 1), 16))

    @inlined
    def widen(block, words, count):
        for p in range(count):
            block[2 * p] = words[p] << np.uint32(16)
            block[2 * p + 1] = words[p] & np.uint32(0xFFFF0000)

    @inlined
    def take(block, words, room, a, transpose_a, i0, rows, pairs):
        """Write the words of rows of a to the block, apart if there are two for each pair; return
        where they are, which is in a if that has them already.
        """
        if words_of_pair == 1:
            whole = a.shape[1] == 2 * pairs and a.strides[0] == 4 * pairs
            if a.itemsize == 2 and not transpose_a and whole:
                return address_of(a) + i0 * 4 * pairs
            pack_rows(block, room, a, transpose_a, i0, rows, pairs)
        else:
            pack_rows(words, room, a, transpose_a, i0, rows, pairs)
            widen(block, words, rows * pairs)
        return address_of(block)

    @inlined
    def multiply_panel(c, i0, rows, of, pairs, panel, j, columns, vectors, bias, accumulate):
        to = address_of(c) + i0 * c.strides[0] + j * 4
        to_row, row, count = c.strides[0], 4 * words_of_pair * pairs, pairs // together
        lanes = columns - (vectors - 1) * LANES
        on, add = address_of(bias) + j * 4 if bias.size else 0, 1 if accumulate else 0
        if vectors == 3:
            three(c, to, to_row, of, row, rows, panel, count, lanes, on, add)
        elif vectors == 2:
            two(c, to, to_row, of, row, rows, panel, count, lanes, on, add)
        else:
            one(c, to, to_row, of, row, rows, panel, count, lanes, on, add)

    @shared
    def product(c, a, transpose_a, b, transpose_b, bias, accumulate):
        m, n = c.shape
        pairs = pairs_of(a.shape[0] if transpose_a else a.shape[1])
        most = rows_at_once(m, pairs)
        panel = np.empty(pairs * most_vectors * LANES, np.uint32)
        room = np.empty(max(panel.size, most * pairs), np.uint32)
        words = np.empty(most * pairs if words_of_pair > 1 else 0, np.uint32)
        block = np.empty(most * words_of_pair * pairs, np.uint32)
        for i0 in range(0, m, max(most, 1)):
            rows = min(most, m - i0)
            of = take(block, words, room, a, transpose_a, i0, rows, pairs)
            j = 0
            while j < n:
                vectors = vectors_of(n - j)
                columns = min(n - j, vectors * LANES)
                pack_columns(panel, room, b, transpose_b, j, columns, vectors * LANES, pairs)
                at = address_of(panel)
                multiply_panel(c, i0, rows, of, pairs, at, j, columns, vectors, bias, accumulate)
                j += columns

    @shared
    def pack_panels(packed, b, transpose_b):
        inner, n = (b.shape[1], b.shape[0]) if transpose_b else b.shape
        pairs = pairs_of(inner)
        room = np.empty(pairs * most_vectors * LANES if transpose_b else 0, np.uint32)
        at = j = 0
        while j < n:
            vectors = vectors_of(n - j)
            width = vectors * LANES
            columns = min(n - j, width)
            panel = packed[at : at + pairs * width]
            pack_columns(panel, room, b, transpose_b, j, columns, width, pairs)
            at += pairs * width
            j += columns

    @shared
    def packed_product(c, a, packed, bias, accumulate):
        m, n = c.shape
        pairs = pairs_of(a.shape[1])
        most = rows_at_once(m, pairs)
        words = np.empty(most * pairs if words_of_pair > 1 else 0, np.uint32)
        block = np.empty(most * words_of_pair * pairs, np.uint32)
        for i0 in range(0, m, max(most, 1)):
            rows = min(most, m - i0)
            of = take(block, words, words, a, False, i0, rows, pairs)
            j, at = 0, address_of(packed)
            while j < n:
                vectors = vectors_of(n - j)
                columns = min(n - j, vectors * LANES)
                multiply_panel(c, i0, rows, of, pairs, at, j, columns, vectors, bias, accumulate)
                at += pairs * vectors * LANES * 4
                j += columns

    @inlined
    def multiply_two(like, to, to_row, block, row, rows, panel, pairs, accumulate):
        of, count = address_of(block), pairs // together
        two(like, to, to_row, of, row, rows, panel, count, LANES, 0, accumulate)

    @shared
    def pack_both(packed, of_transpose, b):
        """Write the panels of b, and those of its transpose: what is read for the one is near for
        the other.
        """
        rows, columns = b.shape
        pairs, pairs_of_rows = pairs_of(columns), pairs_of(rows)
        room = np.empty(pairs * most_vectors * LANES, np.uint32)
        at = i = 0
        while i < rows:
            height = vectors_of(rows - i) * LANES
            there = min(rows - i, height)
            panel = of_transpose[at : at + pairs * height]
            pack_columns(panel, room, b, True, i, there, height, pairs)
            at += pairs * height
            first, last = i // 2, pairs_of_rows if i + there == rows else (i + there) // 2
            to = j = 0
            while j < columns:
                width = vectors_of(columns - j) * LANES
                part = packed[to + first * width : to + last * width]
                n = min(columns - j, width)
                _pairs_of_rows(part, b[i : i + there], j, n, width, last - first)
                to += pairs_of_rows * width
                j += n
            i += there

    @shared
    def strip_product(like, to, to_row, words, words_row, pairs, rows, panel, accumulate):
        """Write (add, if that is 1) the product of so many rows of words, `words_row` words apart,
        and a panel of two vectors, to an address.
        """
        if words_of_pair == 1:
            multiply_two(like, to, to_row, words, 4 * words_row, rows, panel, pairs, accumulate)
            return
        block, row = np.empty(rows * words_of_pair * pairs, np.uint32), words_of_pair * pairs
        for i in range(rows):
            widen(block[i * row :], words[i * words_row :], pairs)
        multiply_two(like, to, to_row, block, 4 * row, rows, panel, pairs, accumulate)

    return product, packed_product, pack_panels, pack_both, strip_product


CHAINS = _Order(chains_tile, CHAIN_ROWS, CHAIN_VECTORS, PAIRS, 2)
DOTS = _Order(dots_tile, DOT_ROWS, DOT_VECTORS, 1, 1)
product, packed_product, pack_panels, pack_both_panels, strip_product = _products(CHAINS)
if amx.TILES:
    # The same bits; panels are those of tiles.
    product, packed_product = gemm_tiles.products(MACHINES[amx.TILES])
    pack_panels, pack_both_panels = gemm_tiles.pack_panels, gemm_tiles.pack_both
(
    dot_product,
    packed_dot_product,
    pack_dot_panels,
    pack_both_dot_panels,
    strip_dot_product,
) = _products(DOTS)


def packed_size(inner: int, n: int, order: _Order, parts: int = 1) -> int:
    """Return how many words the panels of an (inner, n) matrix take; of one whose elements are
    split so many times as much.
    """
    step, widest = 2 * order.together, WIDEST_VECTOR // 4
    return parts * max(1, -(-inner // step)) * order.together * -(-n // widest) * widest


@kernel
def pack(packed, b, transpose_b):
    """Writes the panels of b to packed, in the order of TDPBF16PS."""
    pack_panels(packed, b, transpose_b)


@kernel
def pack_dots(packed, b, transpose_b):
    """Writes the panels of b to packed, in the order of VDPBF16PS."""
    pack_dot_panels(packed, b, transpose_b)


@kernel
def pack_both(packed, of_transpose, b):
    """Writes what `pack` writes of b and of its transpose."""
    pack_both_panels(packed, of_transpose, b)


@kernel
def pack_both_dots(packed, of_transpose, b):
    """Writes what `pack_dots` writes of b and of its transpose."""
    pack_both_dot_panels(packed, of_transpose, b)


@kernel
def multiply(c, a, transpose_a, b, transpose_b, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c, in the order of TDPBF16PS."""
    product(c, a, transpose_a, b, transpose_b, bias, accumulate)


@kernel
def dot_multiply(c, a, transpose_a, b, transpose_b, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c, in the order of VDPBF16PS."""
    dot_product(c, a, transpose_a, b, transpose_b, bias, accumulate)


@kernel
def multiply_packed(c, a, packed, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c, for what `pack` has made of b."""
    packed_product(c, a, packed, bias, accumulate)


@kernel
def dot_multiply_packed(c, a, packed, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c, for what `pack_dots` has made of b."""
    packed_dot_product(c, a, packed, bias, accumulate)
