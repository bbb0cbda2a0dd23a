"""The matrix product under every dense, recurrent, attention and Winograd kernel.

The contract: an element's bits depend on its row of a, its column of b and the inner length alone.
They do not depend on the number of rows or columns, on alignment, on the vector width, or on how an
operand is stored, because every element is the same expression: for each block of BLOCK_K inner
indices one chain of fused multiply-adds from zero, the blocks added in order.

The loops are those of Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
ACM TOMS 34(3), 2008: a panel of b, a few vectors wide, is packed into the first-level cache and
multiplied with all tiles of a block of a.
"""

import numpy as np

from .jit import inlined, kernel, shared
from .llvm.memory import address_of, fetch_lines
from .llvm.simd import (
    TILE_ROWS,
    TILE_VECTORS,
    copy_panel,
    tile_product,
    transpose_block,
    transpose_rows,
)
from .machine import CACHE_LINE, VECTOR_BYTES

# Part of the contract (it decides where sums are split), hence the same for every processor. A
# panel of 256 rows of three vectors fills 24 KiB with 32-byte vectors.
BLOCK_K = 256
# Rows of a that stay in the second-level cache while the panels of b pass: 256 x 256 floats are 256
# KiB.
BLOCK_M = 256
# From this many columns of c on, copying a block of a into adjacent rows pays: it is read once per
# panel of b.
PACK_COLUMNS = 200
# Rows of a that are multiplied while the following as many are brought near: 16 floats are a cache
# line.
FETCHED_ROWS = 16


@inlined
def panel_vectors(remaining):
    """Return the width of the next panel: wide ones, and two of two rather than three and one."""
    if remaining >= TILE_VECTORS and remaining != TILE_VECTORS + 1:
        return TILE_VECTORS
    return min(remaining, 2)


@shared
def pack_panel(out, b, transposed, k0, k, j, n, vectors):
    """Write rows k0..k0+k of columns j..j+n of b (of its transpose, if so) as k rows of `vectors`
    vectors, padded with zeros.
    """
    size = out.itemsize
    lanes = VECTOR_BYTES // size
    width = vectors * lanes
    last = n - (vectors - 1) * lanes
    row = b.strides[0]
    to = address_of(out)
    if not transposed:
        source = address_of(b) + k0 * row + j * size
        if vectors == 3:
            copy_panel(out, to, source, row, k, last, 3)
        elif vectors == 2:
            copy_panel(out, to, source, row, k, last, 2)
        else:
            copy_panel(out, to, source, row, k, last, 1)
        return
    if k < lanes:
        for q in range(k):
            for i in range(width):
                out[q * width + i] = b[j + i, k0 + q] if i < n else 0
        return
    for v in range(vectors):
        source = address_of(b) + (j + v * lanes) * row + k0 * size
        columns = min(lanes, n - v * lanes)
        for q in range(0, k, lanes):
            # The last block overlaps the one before it where k is no multiple of the lanes.
            q = min(q, k - lanes)
            transpose_rows(
                out,
                to + (q * width + v * lanes) * size,
                width * size,
                source + q * size,
                row,
                columns,
            )


@inlined
def transpose_plane(out, source):
    """Write the transpose of a matrix whose sizes are multiples of the vector's lanes."""
    size = out.itemsize
    lanes = VECTOR_BYTES // size
    row, out_row = source.shape[1] * size, out.shape[1] * size
    for i in range(0, source.shape[0], lanes):
        for j in range(0, source.shape[1], lanes):
            to = address_of(out) + j * out_row + i * size
            transpose_block(out, to, out_row, address_of(source) + i * row + j * size, row)


@inlined
def pack_block(out, a, transposed, i0, m, k0, k):
    """Write rows i0..i0+m, columns k0..k0+k of a (of its transpose, if so) as m rows of k elements,
    one after the other.
    """
    size = out.itemsize
    lanes = VECTOR_BYTES // size
    if not transposed:
        for i in range(m):
            to, of = out[i * k : (i + 1) * k], a[i0 + i, k0 : k0 + k]
            for q in range(k):
                to[q] = of[q]
        return
    row = a.strides[0]
    if m < lanes or k < lanes:
        for q in range(k):
            for i in range(m):
                out[i * k + q] = a[k0 + q, i0 + i]
        return
    # The last blocks overlap those before them where m or k is no multiple of the lanes.
    for q in range(0, k, lanes):
        q = min(q, k - lanes)
        source = address_of(a) + (k0 + q) * row + i0 * size
        for i in range(0, m, lanes):
            i = min(i, m - lanes)
            transpose_block(
                out, address_of(out) + (i * k + q) * size, k * size, source + i * size, row
            )


def _tiles_of(vectors):
    """Return the helper that multiplies all tiles of a block of a with one panel of `vectors`
    vectors.
    """

    @inlined
    def tiles(like, c, c_row, a, a_row, a_k, m, panel, k, lanes, bias, accumulate):
        i = 0
        if TILE_ROWS == 8:
            while i + 8 <= m:
                tile_product(
                    like,
                    c + i * c_row,
                    c_row,
                    a + i * a_row,
                    a_row,
                    a_k,
                    panel,
                    k,
                    lanes,
                    bias,
                    accumulate,
                    8,
                    vectors,
                )
                i += 8
        if TILE_ROWS == 4 and vectors == 2:
            # Two tiles of four rows are faster than one of six and one of two.
            while m - i >= 6 and m - i != 8:
                tile_product(
                    like,
                    c + i * c_row,
                    c_row,
                    a + i * a_row,
                    a_row,
                    a_k,
                    panel,
                    k,
                    lanes,
                    bias,
                    accumulate,
                    6,
                    vectors,
                )
                i += 6
        while i + 4 <= m:
            tile_product(
                like,
                c + i * c_row,
                c_row,
                a + i * a_row,
                a_row,
                a_k,
                panel,
                k,
                lanes,
                bias,
                accumulate,
                4,
                vectors,
            )
            i += 4
        if i + 2 <= m:
            tile_product(
                like,
                c + i * c_row,
                c_row,
                a + i * a_row,
                a_row,
                a_k,
                panel,
                k,
                lanes,
                bias,
                accumulate,
                2,
                vectors,
            )
            i += 2
        if i < m:
            tile_product(
                like,
                c + i * c_row,
                c_row,
                a + i * a_row,
                a_row,
                a_k,
                panel,
                k,
                lanes,
                bias,
                accumulate,
                1,
                vectors,
            )

    return tiles


_tiles_1, _tiles_2, _tiles_3 = (_tiles_of(vectors) for vectors in (1, 2, 3))


@shared
def tiles(like, c, c_row, a, a_row, a_k, m, panel, k, vectors, lanes, bias, accumulate):
    """Write (add) the product of a (m, k) and one packed panel; addresses and strides in bytes: see
    `simd.tile_product`.
    """
    if vectors == 3:
        _tiles_3(like, c, c_row, a, a_row, a_k, m, panel, k, lanes, bias, accumulate)
    elif vectors == 2:
        _tiles_2(like, c, c_row, a, a_row, a_k, m, panel, k, lanes, bias, accumulate)
    else:
        _tiles_1(like, c, c_row, a, a_row, a_k, m, panel, k, lanes, bias, accumulate)


@inlined
def _block_product(
    c, a, transpose_a, i0, rows, k0, k, block, panel, j, columns, vectors, bias, accumulate, last
):
    """Multiply one block of a with one packed panel of b (columns j..j+columns)."""
    size = c.itemsize
    lanes = VECTOR_BYTES // size
    if block.size:
        source, a_row, a_k = address_of(block), k * size, size
    elif transpose_a:
        source, a_row, a_k = address_of(a) + k0 * a.strides[0] + i0 * size, size, a.strides[0]
    else:
        source, a_row, a_k = address_of(a) + i0 * a.strides[0] + k0 * size, a.strides[0], size
    # The first panel meets a large a where it lies: what comes next is asked for while some rows
    # are multiplied.
    step = (
        FETCHED_ROWS if j == 0 and not block.size and a.size >= BLOCK_M * BLOCK_K else max(rows, 1)
    )
    for i in range(0, rows, step):
        if i + step < rows:
            following = source + (i + step) * a_row
            if transpose_a:
                fetch_lines(c, following, a_k, k)
            else:
                for r in range(step):
                    fetch_lines(
                        c,
                        following + r * a_row,
                        CACHE_LINE,
                        (k * size + CACHE_LINE - 1) // CACHE_LINE,
                    )
        tiles(
            c,
            address_of(c) + (i0 + i) * c.strides[0] + j * size,
            c.strides[0],
            source + i * a_row,
            a_row,
            a_k,
            min(step, rows - i),
            panel,
            k,
            vectors,
            columns - (vectors - 1) * lanes,
            address_of(bias) + j * size if last and bias.size else 0,
            1 if accumulate or k0 > 0 else 0,
        )


@inlined
def _empty_product(c, bias, accumulate):
    """Do what a product of inner length 0 does."""
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            c[i, j] = (c[i, j] if accumulate else 0) + (bias[j] if bias.size else 0)


@shared
def product(c, a, transpose_a, b, transpose_b, bias, accumulate):
    """Write (or add, if `accumulate`) a b + bias to c, where a and b are transposed first if so
    asked.

    c (M, N); a (M, K) or, transposed, (K, M); b (K, N) or, transposed, (N, K); bias (N,) or empty
    for none. Rows may be any distance apart, the elements of a row must be adjacent.
    """
    m, n = c.shape
    inner = a.shape[0] if transpose_a else a.shape[1]
    lanes = VECTOR_BYTES // c.itemsize
    if inner == 0:
        _empty_product(c, bias, accumulate)
    pack_a = n >= PACK_COLUMNS
    panel = np.empty(min(inner, BLOCK_K) * TILE_VECTORS * lanes, c.dtype)
    block = np.empty(min(m, BLOCK_M) * min(inner, BLOCK_K) if pack_a else 0, c.dtype)
    for k0 in range(0, inner, BLOCK_K):
        k = min(BLOCK_K, inner - k0)
        last = k0 + k == inner
        for i0 in range(0, m, BLOCK_M):
            rows = min(BLOCK_M, m - i0)
            if pack_a:
                pack_block(block, a, transpose_a, i0, rows, k0, k)
            j = 0
            while j < n:
                vectors = panel_vectors((n - j + lanes - 1) // lanes)
                columns = min(n - j, vectors * lanes)
                pack_panel(panel, b, transpose_b, k0, k, j, columns, vectors)
                _block_product(
                    c,
                    a,
                    transpose_a,
                    i0,
                    rows,
                    k0,
                    k,
                    block,
                    address_of(panel),
                    j,
                    columns,
                    vectors,
                    bias,
                    accumulate,
                    last,
                )
                j += columns


@inlined
def pack_panels(packed, b, transpose_b):
    """Write all panels of b (K, N) (or of its transpose) to packed (at least K times N rounded up
    to whole vectors,).
    """
    inner, n = (b.shape[1], b.shape[0]) if transpose_b else b.shape
    lanes = VECTOR_BYTES // packed.itemsize
    at = 0
    for k0 in range(0, inner, BLOCK_K):
        k = min(BLOCK_K, inner - k0)
        j = 0
        while j < n:
            vectors = panel_vectors((n - j + lanes - 1) // lanes)
            columns = min(n - j, vectors * lanes)
            pack_panel(
                packed[at : at + k * vectors * lanes], b, transpose_b, k0, k, j, columns, vectors
            )
            at += k * vectors * lanes
            j += columns


@shared
def packed_product(c, a, packed, bias, accumulate):
    """Write (or add) a b + bias to c (M, N), for a (M, K) and the panels that `pack_panels` made of
    b: the bits of `product`.
    """
    m, n = c.shape
    inner = a.shape[1]
    size = c.itemsize
    lanes = VECTOR_BYTES // size
    if inner == 0:
        _empty_product(c, bias, accumulate)
    unpacked = packed[:0]
    at = address_of(packed)
    for k0 in range(0, inner, BLOCK_K):
        k = min(BLOCK_K, inner - k0)
        last = k0 + k == inner
        j = 0
        while j < n:
            vectors = panel_vectors((n - j + lanes - 1) // lanes)
            columns = min(n - j, vectors * lanes)
            _block_product(
                c, a, False, 0, m, k0, k, unpacked, at, j, columns, vectors, bias, accumulate, last
            )
            at += k * vectors * lanes * size
            j += columns


@kernel
def multiply(c, a, transpose_a, b, transpose_b, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c: see `product`."""
    product(c, a, transpose_a, b, transpose_b, bias, accumulate)


@kernel
def pack(packed, b, transpose_b):
    """Writes the panels of b to packed: see `pack_panels`."""
    pack_panels(packed, b, transpose_b)


@kernel
def multiply_packed(c, a, packed, bias, accumulate):
    """Writes (adds, if `accumulate`) a b + bias to c, b packed: see `packed_product`."""
    packed_product(c, a, packed, bias, accumulate)


def packed_size(inner: int, n: int, itemsize: int) -> int:
    """Return how many elements the panels of a (inner, n) matrix take."""
    lanes = VECTOR_BYTES // itemsize
    return inner * -(-n // lanes) * lanes
