"""Products in the order of TDPBF16PS by tiles: see `gemm_bf16`, whose bits these are.

Operands are rounded into tiles of 1 KiB, those of one panel, 16 rows of a or columns of b, one
after the other, filled up with zeros. So many panels of b as the second-level cache holds beside
those of a stay there while a passes, two panels at a time, of which so many tiles as the first
level holds. Sums go to blocks in adjacent memory, and from there, row by row, to c, whose rows may
lie a page apart.
"""

import numpy as np

from .jit import inlined, shared
from .llvm.memory import address_of
from .llvm.simd_tiles import (
    BLOCK_VECTORS,
    INNER,
    ROWS,
    SIDE,
    TILE,
    finish_sums,
    tile_kernels,
    write_tile,
)
from .machine import CACHE_LINE, VECTOR_BYTES

HALF_CACHE = 1024
"""Tiles that fill half of the second-level cache of processors that have AMX."""
MOST_PANELS = 32
"""Panels of b at a time: 512 columns, whose sums for 32 rows are 64 KiB."""
NEAR, WHOLE = 8, 12
"""Tiles of two panels of a that stay in the first-level cache beside what passes; so many, if there
are not more.
"""
_LANES = VECTOR_BYTES // 4
_BLOCK_BYTES = 4 * SIDE * SIDE


@inlined
def _tiles_of(inner):
    # One of zeros, at least: the sums of nothing are zero.
    return max(1, (inner + INNER - 1) // INNER)


@inlined
def _panels_of(size):
    return (size + ROWS - 1) // ROWS


@inlined
def _panels_at_once(tiles):
    """Return how many panels of so many tiles stay in the cache, two at least."""
    return max(2, HALF_CACHE // tiles // 2 * 2)


@inlined
def _write_rows(out, x, first, panels, tiles, turned):
    """Write panels of the rows of x (N, K), whose pairs stand in a row."""
    row = x.strides[0]
    for p in range(panels):
        i = ROWS * (first + p)
        for q in range(tiles):
            to, of = out + (p * tiles + q) * TILE, address_of(x) + i * row + x.itemsize * INNER * q
            down, across = x.shape[0] - i, x.shape[1] - INNER * q
            if turned:
                write_tile(x, to, of, row, down, across, 0, 1)
            else:
                write_tile(x, to, of, row, down, across, 0, 0)


@inlined
def _write_columns(out, x, first, panels, begin, end, tiles, turned):
    """Write tiles begin..end of panels of the columns of x (K, N), whose pairs stand in a
    column.
    """
    row = x.strides[0]
    for q in range(begin, end):
        for p in range(panels):
            j = ROWS * (first + p)
            to, of = out + (p * tiles + q) * TILE, address_of(x) + INNER * q * row + x.itemsize * j
            down, across = x.shape[0] - INNER * q, x.shape[1] - j
            if turned:
                write_tile(x, to, of, row, down, across, 1, 1)
            else:
                write_tile(x, to, of, row, down, across, 1, 0)


@shared
def _write_left(out, a, transposed, first, panels, tiles):
    """Write to an address so many panels of a, or of its transpose."""
    if transposed:
        _write_columns(out, a, first, panels, 0, tiles, tiles, True)
    else:
        _write_rows(out, a, first, panels, tiles, False)


@shared
def _write_right(out, b, transposed, first, panels, tiles):
    """Write to an address so many panels of b, or of its transpose."""
    if transposed:
        _write_rows(out, b, first, panels, tiles, True)
    else:
        _write_columns(out, b, first, panels, 0, tiles, tiles, False)


@shared
def pack_panels(packed, b, transpose_b):
    """Write all panels of b, or of its transpose, to words."""
    inner, n = (b.shape[1], b.shape[0]) if transpose_b else b.shape
    _write_right(address_of(packed), b, transpose_b, 0, _panels_of(n), _tiles_of(inner))


@shared
def pack_both(packed, of_transpose, b):
    """Write all panels of b and of its transpose: what is read for one is near for the other."""
    rows, columns = b.shape
    tiles, tiles_of_rows, panels = _tiles_of(columns), _tiles_of(rows), _panels_of(rows)
    to, to_transpose = address_of(packed), address_of(of_transpose)
    for q in range(tiles_of_rows):
        i = INNER // ROWS * q
        at = to_transpose + i * tiles * TILE
        _write_rows(at, b, i, min(INNER // ROWS, panels - i), tiles, True)
        _write_columns(to, b, 0, _panels_of(columns), q, q + 1, tiles_of_rows, False)


@inlined
def _finish(c, sums, i, j, columns, bias, accumulate):
    """Write blocks of sums to rows i.. and columns j.. of c."""
    on, add = address_of(bias) + 4 * j if bias.size else 0, 1 if accumulate else 0
    for r in range(min(SIDE, c.shape[0] - i)):
        to, of = address_of(c) + (i + r) * c.strides[0] + 4 * j, sums + 4 * SIDE * r
        at, left = on, columns
        while left > 0:
            if left >= SIDE:
                finish_sums(c, to, of, _LANES, at, add, BLOCK_VECTORS)
            else:
                for v in range(0, left, _LANES):
                    lanes, next_ = min(_LANES, left - v), at + 4 * v if at else 0
                    finish_sums(c, to + 4 * v, of + 4 * v, lanes, next_, add, 1)
            to, of, left = to + 4 * SIDE, of + _BLOCK_BYTES, left - SIDE
            at += 4 * SIDE if at else 0


def products(machine):
    """Return the shared helpers `product` and `packed_product` of a machine of tiles."""
    state_bytes, configure, release, multiply = tile_kernels(machine)

    @inlined
    def multiply_rows(state, sums, a, height, b, width, tiles):
        """Write the blocks of sums of one or two panels of a, and so many of b."""
        step = tiles
        if tiles > WHOLE:
            passes = (tiles + NEAR - 1) // NEAR
            step = (tiles + passes - 1) // passes
        panel = tiles * TILE
        for q in range(0, tiles, step):
            count, begun, left = min(step, tiles - q), 1 if q > 0 else 0, a + q * TILE
            for p in range(0, width, 2):
                block, right = sums + p // 2 * _BLOCK_BYTES, b + p * panel + q * TILE
                two = p + 1 < width
                if height == 2 and two:
                    multiply(state, block, begun, left, panel, right, panel, count, 2, 2)
                elif height == 2:
                    multiply(state, block, begun, left, panel, right, panel, count, 2, 1)
                elif two:
                    multiply(state, block, begun, left, panel, right, panel, count, 1, 2)
                else:
                    multiply(state, block, begun, left, panel, right, panel, count, 1, 1)

    @inlined
    def multiply_panels(c, state, sums, a, i, rows, b, j, columns, tiles, bias, accumulate):
        """Multiply panels of a, from panel i of c on, with those of b, from panel j on."""
        panel = tiles * TILE
        for p in range(0, rows, 2):
            multiply_rows(state, sums, a + p * panel, min(2, rows - p), b, columns, tiles)
            n = min(ROWS * columns, c.shape[1] - ROWS * j)
            _finish(c, sums, ROWS * (i + p), ROWS * j, n, bias, accumulate)

    @inlined
    def multiply_all(c, a, transpose_a, b, transpose_b, packed, bias, accumulate):
        """Multiply a with b, or, unless `packed` is 0, with the panels at that address."""
        tiles = _tiles_of(a.shape[0] if transpose_a else a.shape[1])
        panels_of_a, panels_of_b = _panels_of(c.shape[0]), _panels_of(c.shape[1])
        most = _panels_at_once(tiles)
        rows, columns = min(most, panels_of_a), min(most, MOST_PANELS, panels_of_b)
        size_of_a, size_of_b = rows * tiles * TILE, 0 if packed else columns * tiles * TILE
        size_of_sums = (columns + 1) // 2 * _BLOCK_BYTES
        size = CACHE_LINE + size_of_a + size_of_b + size_of_sums + state_bytes
        room = np.empty(size, np.uint8)
        left = (address_of(room) + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
        right = left + size_of_a
        sums = right + size_of_b
        state = sums + size_of_sums
        configure(state)
        for i in range(0, panels_of_a, max(rows, 1)):
            height = min(rows, panels_of_a - i)
            _write_left(left, a, transpose_a, i, height, tiles)
            for j in range(0, panels_of_b, max(columns, 1)):
                width = min(columns, panels_of_b - j)
                if packed:
                    right = packed + j * tiles * TILE
                else:
                    _write_right(right, b, transpose_b, j, width, tiles)
                multiply_panels(
                    c, state, sums, left, i, height, right, j, width, tiles, bias, accumulate
                )
        release(state)

    @shared
    def product(c, a, transpose_a, b, transpose_b, bias, accumulate):
        multiply_all(c, a, transpose_a, b, transpose_b, 0, bias, accumulate)

    @shared
    def packed_product(c, a, packed, bias, accumulate):
        multiply_all(c, a, False, a, False, address_of(packed), bias, accumulate)

    return product, packed_product
