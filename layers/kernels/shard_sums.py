"""Products of a batch's rows that are summed over shards, by the fixed binary tree over shard
numbers, while they are in the caches.

The bits are those of `gemm.product` for each shard and `reduce.tree_sum` of what comes out. Shards
are of samples; rows may be those of several steps in time, all samples of a step together: (T N,),
and those of a shard are then its samples of the first step, of the second, and so on.
"""

import numpy as np

from .gemm import BLOCK_K, BLOCK_M, PACK_COLUMNS, pack_block, pack_panel, panel_vectors
from .jit import inlined, shared
from .llvm.memory import address_of
from .llvm.simd import TILE_ROWS, TILE_VECTORS
from .llvm.simd_shards import tile_sum
from .machine import VECTOR_BYTES
from .reduce import add_columns

# Elements of a sum that are made at a time, so that those that wait are in the caches.
_WAITING = 2**18


def _tiles_of(vectors):
    """Return the helper that multiplies all tiles of a block of a with one panel of `vectors`
    vectors.
    """

    @inlined
    def tiles(like, c, c_row, a, a_row, a_k, m, panel, sizes, count, stack, lanes, accumulate):
        i = 0
        while i + TILE_ROWS <= m:
            tile_sum(
                like,
                c + i * c_row,
                c_row,
                a + i * a_row,
                a_row,
                a_k,
                panel,
                sizes,
                count,
                stack,
                lanes,
                accumulate,
                TILE_ROWS,
                vectors,
            )
            i += TILE_ROWS
        while i < m:
            tile_sum(
                like,
                c + i * c_row,
                c_row,
                a + i * a_row,
                a_row,
                a_k,
                panel,
                sizes,
                count,
                stack,
                lanes,
                accumulate,
                1,
                vectors,
            )
            i += 1

    return tiles


_tiles_1, _tiles_2, _tiles_3 = (_tiles_of(vectors) for vectors in (1, 2, 3))


@inlined
def steps_of(rows, bounds):
    """Return how many steps in time the rows are of, of samples with these bounds of shards."""
    return max(1, rows // max(1, bounds[len(bounds) - 1]))


@inlined
def _together(bounds, steps):
    """Return of how many neighbouring shards, a power of two, a product is made at a time: so many
    as have BLOCK_K rows at most, or one.
    """
    shards = len(bounds) - 1
    widest = 1
    for s in range(shards):
        widest = max(widest, (bounds[s + 1] - bounds[s]) * steps)
    together = 1
    while 2 * together <= shards and 2 * together * widest <= BLOCK_K:
        together *= 2
    return together


@inlined
def _levels(count):
    """Return the binary logarithm of a power of two: so many nodes wait for their siblings."""
    levels = 0
    while 1 << levels < count:
        levels += 1
    return levels


@inlined
def _add_to(c, x):
    """Add x to c, both (M, N)."""
    for i in range(len(c)):
        to, of = c[i], x[i]
        for j in range(to.size):
            to[j] += of[j]


@inlined
def sum_of_columns(total, x, bounds, steps):
    """Write the sum over shards, a power of two of them, of the column sums of x (R, C)."""
    shards, top, samples = len(bounds) - 1, 0, len(x) // steps
    waiting = np.empty((_levels(shards) + 1, 1, total.size), total.dtype)
    for s in range(shards):
        for t in range(steps):
            first = t * samples
            add_columns(waiting[top, 0], x[first + bounds[s] : first + bounds[s + 1]], t > 0)
        ended = s + 1
        while ended % 2 == 0:
            _add_to(waiting[top - 1], waiting[top])
            top -= 1
            ended //= 2
        top += 1
    of = waiting[0, 0]
    for j in range(total.size):
        total[j] = of[j]


def by_shard(product):
    """Return a helper that does what `sum_of_products` does by another product, a shard at a
    time, and of that BLOCK_K rows.
    """

    @inlined
    def multiply_rows(c, a, b):
        for k in range(0, max(1, len(a)), BLOCK_K):
            stop = min(k + BLOCK_K, len(a))
            product(c, a[k:stop], True, b[k:stop], False, c[0, :0], k > 0)

    @inlined
    def summed(c, a, b, bounds, steps):
        shards, top = len(bounds) - 1, 0
        waiting = np.empty((_levels(shards), *c.shape), c.dtype)
        samples, most = len(a) // steps, 0
        for s in range(shards if steps > 1 else 0):
            most = max(most, (bounds[s + 1] - bounds[s]) * steps)
        near_a, near_b = np.empty(most * a.shape[1], a.dtype), np.empty(most * b.shape[1], b.dtype)
        for s in range(shards):
            begin, count = bounds[s], bounds[s + 1] - bounds[s]
            into, rows = waiting[top - 1] if top else c, count * steps
            if steps > 1:
                _gather(near_a, a, 0, a.shape[1], begin, count, samples, 0, rows)
                _gather(near_b, b, 0, b.shape[1], begin, count, samples, 0, rows)
                x = near_a[: rows * a.shape[1]].reshape((rows, a.shape[1]))
                y = near_b[: rows * b.shape[1]].reshape((rows, b.shape[1]))
                multiply_rows(into, x, y)
            else:
                multiply_rows(into, a[begin : begin + count], b[begin : begin + count])
            ended = s + 1
            while ended % 2 == 0:
                top -= 1
                _add_to(waiting[top - 1] if top else c, waiting[top])
                ended //= 2
            top += 1

    return summed


@inlined
def _gather(out, x, j, columns, first, count, samples, row, rows):
    """Write `columns` columns from j on of so many rows of a shard, from one on, one after the
    other: the shard has `count` samples of each step's, from `first` on.
    """
    for r in range(rows):
        of = x[(row + r) // count * samples + first + (row + r) % count, j : j + columns]
        to = out[r * columns : (r + 1) * columns]
        for q in range(columns):
            to[q] = of[q]


@inlined
def _pack_steps(panel, b, first, count, samples, row, rows, j, columns, vectors):
    """Do what `pack_panel` does with so many rows of a shard, from one on: it has `count` samples
    of each step's, from `first` on.
    """
    done, width = 0, vectors * (VECTOR_BYTES // b.itemsize)
    while done < rows:
        step, sample = (row + done) // count, (row + done) % count
        k = min(count - sample, rows - done)
        of = step * samples + first + sample
        pack_panel(panel[done * width :], b, False, of, k, j, columns, vectors)
        done += k


@inlined
def _multiply(
    c,
    c_row,
    a,
    i0,
    rows,
    b,
    k0,
    k,
    bounds,
    steps,
    samples,
    done,
    block,
    panel,
    sizes,
    count,
    stack,
    accumulate,
):
    """Write (add) the sum over `count` shards, of k rows from k0 on, to rows [i0, i0 + rows) of c,
    which begin at an address. Rows of several steps are those of a one after the other, and of b
    those of these shards from number `done` on.
    """
    size, n = b.itemsize, b.shape[1]
    lanes = VECTOR_BYTES // size
    if block.size:
        pack_block(block, a, True, i0, rows, k0, k)
        source, a_row, a_k = address_of(block), k * size, size
    else:
        source, a_row, a_k = address_of(a) + k0 * a.strides[0] + i0 * size, size, a.strides[0]
    j = 0
    while j < n:
        vectors = panel_vectors((n - j + lanes - 1) // lanes)
        columns = min(n - j, vectors * lanes)
        if steps == 1:
            pack_panel(panel, b, False, k0, k, j, columns, vectors)
        else:
            at = 0
            for s in range(count):
                first, own = bounds[s], bounds[s + 1] - bounds[s]
                near = panel[at * vectors * lanes :]
                _pack_steps(near, b, first, own, samples, done, sizes[s], j, columns, vectors)
                at += sizes[s]
        last = columns - (vectors - 1) * lanes
        to, of, room = c + j * size, address_of(panel), address_of(stack)
        each = address_of(sizes)
        if vectors == 3:
            _tiles_3(
                b, to, c_row, source, a_row, a_k, rows, of, each, count, room, last, accumulate
            )
        elif vectors == 2:
            _tiles_2(
                b, to, c_row, source, a_row, a_k, rows, of, each, count, room, last, accumulate
            )
        else:
            _tiles_1(
                b, to, c_row, source, a_row, a_k, rows, of, each, count, room, last, accumulate
            )
        j += columns


@shared
def sum_of_products(c, a, b, bounds, steps):
    """Write to c (M, N) the sum of aᵀ b over shards, a power of two of them, of a (R, M) and b
    (R, N), whose samples bounds[s] to bounds[s + 1] are those of shard s.
    """
    (m, n), shards, samples = c.shape, len(bounds) - 1, len(a) // steps
    together = _together(bounds, steps)
    units, lanes = shards // together, VECTOR_BYTES // c.itemsize
    most = min(BLOCK_K, (bounds[shards] - bounds[0]) * steps)
    pack = n >= PACK_COLUMNS
    panel = np.empty(most * TILE_VECTORS * lanes, c.dtype)
    block = np.empty(min(m, BLOCK_M) * most if pack else 0, c.dtype)
    sizes = np.empty(together, np.int64)
    tiles = np.empty(_levels(together) * TILE_ROWS * TILE_VECTORS * lanes, c.dtype)
    # So many rows of c at a time that what waits for its sibling, c itself at the bottom, fits.
    height = min(m, max(1, _WAITING // (BLOCK_M * n)) * BLOCK_M)
    waiting = np.empty((_levels(units), height, n), c.dtype)
    # The rows of a shard of several steps, brought together.
    near_a = np.empty((most if steps > 1 else 0) * min(m, BLOCK_M), c.dtype)
    for m0 in range(0, m, height):
        m1, top = min(m, m0 + height), 0
        for unit in range(units):
            base = unit * together
            first, last = bounds[base] * steps, bounds[base + together] * steps
            part = bounds[base : base + together + 1]
            # What is one chain of multiply-adds is added where its sibling is.
            joins = unit % 2 == 1 and last - first <= BLOCK_K
            if joins:
                top -= 1
            top += 1
            for i0 in range(m0, m1, BLOCK_M):
                rows = min(BLOCK_M, m1 - i0)
                into, row = address_of(c) + i0 * c.strides[0], c.strides[0]
                if top > 1:
                    into, row = address_of(waiting[top - 2, i0 - m0 :]), n * c.itemsize
                for k0 in range(first, max(last, first + 1), BLOCK_K):
                    k, done = min(BLOCK_K, last - k0), k0 - first
                    more = 1 if joins or done else 0
                    at = 0
                    for s in range(together):
                        own = part[s + 1] - part[s]
                        of = sizes[s] = k if together == 1 else own * steps
                        if steps > 1:
                            to = near_a[at * rows :]
                            _gather(to, a, i0, rows, part[s], own, samples, done, of)
                        at += of
                    if steps > 1:
                        x = near_a[: k * rows].reshape((k, rows))
                        _multiply(
                            into,
                            row,
                            x,
                            0,
                            rows,
                            b,
                            0,
                            k,
                            part,
                            steps,
                            samples,
                            done,
                            block,
                            panel,
                            sizes,
                            together,
                            tiles,
                            more,
                        )
                    else:
                        _multiply(
                            into,
                            row,
                            a,
                            i0,
                            rows,
                            b,
                            k0,
                            k,
                            part,
                            1,
                            samples,
                            done,
                            block,
                            panel,
                            sizes,
                            together,
                            tiles,
                            more,
                        )
            ended = (unit + 1) // 2 if joins else unit + 1
            while ended % 2 == 0:
                top -= 1
                left = c[m0:m1] if top == 1 else waiting[top - 2, : m1 - m0]
                _add_to(left, waiting[top - 1, : m1 - m0])
                ended //= 2
