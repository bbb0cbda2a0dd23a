"""The backward pass of the dense layer where only some of the gradients of its outputs are kept:
what belongs to the others is not computed.

The bits are those of `dense.backward` for a dz whose others are 0: an element is the same chain of
fused multiply-adds without the terms that are 0, in the same blocks (see `gemm`), and shards are
added by the fixed tree.
"""

import numpy as np

from .dense import IDENTITY, through
from .gemm import BLOCK_K
from .jit import inlined, kernel
from .llvm.simd_sparse import count_from, number_of_bits, row_chain
from .llvm.vmath import constant, number

# Products of what is kept pay if it is at most one in so many; else whole ones, with zeros.
FEW = 4


@inlined
def _bound(sizes, k):
    """Return a bound that the k largest of some numbers reach, which are not negative, and how many
    of those equal to it are not among them.

    The bits of such numbers are in their order: one after the other is found, from the first on.
    """
    reach, bits = sizes.size, 0
    for i in range(8 * sizes.itemsize - 2, -1, -1):
        if reach == k:
            break
        count = count_from(sizes, number_of_bits(sizes, bits | 1 << i))
        if count >= k:
            bits, reach = bits | 1 << i, count
    return number_of_bits(sizes, bits), reach - k


@inlined
def choose_columns(columns, sizes, k):
    """Write which k of some sizes are the largest, in ascending order, to columns (k + 1,), whose
    last place is room: of equal ones the first.
    """
    bound, left_out = _bound(sizes, k)
    found = 0
    if left_out == 0:
        # What is not chosen is written over, which is faster than a branch.
        for j in range(sizes.size):
            columns[found] = j
            found += 1 if sizes[j] >= bound else 0
        return
    equal = -left_out
    for j in range(sizes.size):
        equal += 1 if sizes[j] == bound else 0
    for j in range(sizes.size):
        taken = sizes[j] > bound or (sizes[j] == bound and equal > 0)
        columns[found] = j
        equal -= 1 if taken and sizes[j] == bound else 0
        found += 1 if taken else 0


@kernel
def choose(columns, values, dz, dy, kept, bounds, activation):
    """Writes dz = dy f'(z), and of each row the columns (R, k) of the k numbers of largest
    magnitude, ascending, with these numbers, values (R, k).

    With bounds (S + 1,) the rows of a shard have the same columns, those of the largest sums of
    magnitudes over its rows; (0,) for none. Of equal ones the lower column is kept; NaN counts as
    infinity. For `activation`, `kept` and dz see `dense.backward`; without one dz is (0, O).
    """
    gradient = dy if activation == IDENTITY else dz
    if activation != IDENTITY:
        through(dz, dy, kept, activation)
    k, infinity = columns.shape[1], number(values, np.inf)
    sizes, chosen = np.empty(dy.shape[1], values.dtype), np.empty(k + 1, columns.dtype)
    apart = bounds.size == 0
    for s in range(len(dy) if apart else bounds.size - 1):
        first, last = (s, s + 1) if apart else (bounds[s], bounds[s + 1])
        for j in range(sizes.size):
            sizes[j] = 0
        for r in range(first, last):
            row = gradient[r]
            for j in range(sizes.size):
                sizes[j] += abs(row[j])
        for j in range(sizes.size):
            sizes[j] = sizes[j] if sizes[j] < infinity else infinity
        if first < last:
            choose_columns(chosen, sizes, k)
        for r in range(first, last):
            row, to, of = columns[r], values[r], gradient[r]
            for q in range(k):
                row[q] = chosen[q]
                to[q] = of[chosen[q]]


@inlined
def _add_to(to, of):
    """Add a row to another."""
    for j in range(to.size):
        to[j] += of[j]


@inlined
def _chains(to, part, factors, source, places, first, last, start, add):
    """Write (add) the sum of factors[e] source[places[e]] over e in [first, last): a chain for each
    block of BLOCK_K places from `start` on, added in order; `part` is room for one.
    """
    e = first
    while e < last or not add:
        block = (places[e] - start) // BLOCK_K if e < last else 0
        end = e
        while end < last and (places[end] - start) // BLOCK_K == block:
            end += 1
        if add:
            row_chain(part, factors[e:end], source, places[e:end])
            _add_to(to, part)
        else:
            row_chain(to, factors[e:end], source, places[e:end])
        e, add = end, True


@inlined
def _by_column(starts, rows, factors, columns, values):
    """Write where the entries of each column begin, to starts (O + 1,), and row and value of each
    entry, those of a column in the order of rows.
    """
    for j in range(starts.size):
        starts[j] = 0
    of, numbers, k = columns.reshape(columns.size), values.reshape(values.size), columns.shape[1]
    for e in range(of.size):
        starts[of[e]] += 1
    total = 0
    for j in range(starts.size):
        total, starts[j] = total + starts[j], total
    for r in range(len(columns)):
        for e in range(r * k, (r + 1) * k):
            at = starts[of[e]]
            rows[at], factors[at] = r, numbers[e]
            starts[of[e]] = at + 1
    # Each has become the end of its column.
    for j in range(starts.size - 1, 0, -1):
        starts[j] = starts[j - 1]
    starts[0] = 0


@inlined
def _sum_over_shards(
    to, total, waiting, last_shard, sums, factors, x, rows, first, last, bounds, s, add, add_total
):
    """Write the sum over shards, from s on, of what the entries [first, last) of a column are times
    their rows of x, and the sum of the entries to total[0] unless it is empty: by the fixed tree,
    in which shards without entries add nothing. Of a single shard they are added, if so asked.

    waiting (L + 1, D), last_shard and sums (L + 1,): what waits for its sibling, of 2^L shards.
    """
    part, top, e, start = waiting[0], 0, first, s
    while e < last or top == 0:
        while e < last and rows[e] >= bounds[s + 1]:
            s += 1
        end, entries = e, total[0] if add_total and total.size else constant(sums, "zero")
        while end < last and rows[end] < bounds[s + 1]:
            entries += factors[end]
            end += 1
        # Two neighbours that wait are siblings below the node where the new one joins them.
        shard = s - start
        while top > 1 and last_shard[top - 2] ^ last_shard[top - 1] < last_shard[top - 1] ^ shard:
            top -= 1
            _join(to, waiting, last_shard, sums, top)
        _chains(
            waiting[top] if top else to, part, factors, x, rows, e, end, bounds[s], add and top == 0
        )
        last_shard[top], sums[top] = shard, entries
        top, e = top + 1, end
    while top > 1:
        top -= 1
        _join(to, waiting, last_shard, sums, top)
    if total.size:
        total[0] = sums[0]


@inlined
def _join(to, waiting, last_shard, sums, top):
    """Add what waits in place `top` to what waits before it."""
    _add_to(to if top == 1 else waiting[top - 1], waiting[top])
    last_shard[top - 1] = last_shard[top]
    sums[top - 1] += sums[top]


@kernel
def backward(
    dx, dw, db, starts, rows, factors, columns, values, x, w, bounds, groups, add_weight, add_bias
):
    """Writes what `dense.backward` does for a dz that is 0 but in some columns of each row.

    columns (R, k), ascending, and values (R, k): these, see `choose`. starts (O + 1,), rows and
    factors (R k,) are room. dw (P, O, D), db (P, O) and dx (R, D) are empty if they are not wanted;
    x (R, D), w (O, D), bounds (S + 1,), groups (P + 1,).
    """
    if dx.size:
        part = np.empty(dx.shape[1], dx.dtype)
        for r in range(len(dx)):
            _chains(dx[r], part, values[r], w, columns[r], 0, columns.shape[1], 0, False)
    if not dw.size and not db.shape[1]:
        return
    _by_column(starts, rows, factors, columns, values)
    levels = 1
    while 1 << levels - 1 < len(bounds):
        levels += 1
    waiting = np.empty((levels, x.shape[1] if dw.size else 0), values.dtype)
    last_shard, sums = np.empty(levels, np.int64), np.empty(levels, values.dtype)
    for j in range(starts.size - 1):
        first = starts[j]
        for p in range(len(groups) - 1):
            last, stop = first, bounds[groups[p + 1]]
            while last < starts[j + 1] and rows[last] < stop:
                last += 1
            _sum_over_shards(
                dw[p, j] if dw.size else waiting[0],
                db[p, j : j + 1] if db.shape[1] else sums[:0],
                waiting,
                last_shard,
                sums,
                factors,
                x,
                rows,
                first,
                last,
                bounds,
                groups[p],
                add_weight,
                add_bias,
            )
            first = last


@kernel
def spread(dz, columns, values):
    """Writes dz (R, O), 0 but for the values (R, k) in the columns (R, k) of each row."""
    for r in range(len(dz)):
        row, at, of = dz[r], columns[r], values[r]
        for j in range(row.size):
            row[j] = 0
        for q in range(at.size):
            row[at[q]] = of[q]
