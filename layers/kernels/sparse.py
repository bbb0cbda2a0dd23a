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
from .llvm.simd_sparse import count_from, number_of_bits, row_sums
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
def _sums(out, begins, ends, limits, factors, places, source, first, last, add):
    """Write (add) to row i of `out` the sum of factors[e] source[places[e]], e from begins[i]
    up to limits[i], whose places ascend in [first, last): a chain for each block of BLOCK_K places,
    added in order. begins becomes limits; ends is room.
    """
    while True:
        stop = first + BLOCK_K
        if stop < last:
            for i in range(len(out)):
                e = begins[i]
                while e < limits[i] and places[e] < stop:
                    e += 1
                ends[i] = e
        else:
            for i in range(len(out)):
                ends[i] = limits[i]
        row_sums(out, factors, places, begins, ends, source, add)
        for i in range(len(out)):
            begins[i] = ends[i]
        if stop >= last:
            break
        first, add = stop, True


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
def _end_of_chain(rows, e, last, bounds, s):
    """Return where the entries end that are summed with e: those below `last` of the same shard, s
    or a later one, and the same BLOCK_K of its rows; and the shard.
    """
    while rows[e] >= bounds[s + 1]:
        s += 1
    stop = min(bounds[s + 1], rows[e] + BLOCK_K - (rows[e] - bounds[s]) % BLOCK_K)
    while e < last and rows[e] < stop:
        e += 1
    return e, s


@inlined
def _sum_over_shards(
    to, total, waiting, last_shard, sums, factors, x, rows, begins, ends, last, bounds, s
):
    """Add to a row, which has the first chain of a column, what the others have, and write the sum
    of its entries to total[0] unless it is empty: by the fixed tree over shards, from s on, in
    which those without entries add nothing. The entries are those from begins[0] up to `last`.

    waiting (L + 1, D), last_shard and sums (L + 1,): what waits for its sibling, of 2^L shards.
    """
    top, start, first = 0, s, begins[0]
    e = first
    while e < last or top == 0:
        end = e
        if e < last:
            end, s = _end_of_chain(rows, e, last, bounds, s)
        shard = s - start
        same = top > 0 and last_shard[top - 1] == shard
        if not same:
            # Two neighbours that wait are siblings below the node where the new one joins them.
            while (
                top > 1 and last_shard[top - 2] ^ last_shard[top - 1] < last_shard[top - 1] ^ shard
            ):
                top -= 1
                _join(to, waiting, last_shard, sums, top)
            last_shard[top], sums[top] = shard, constant(sums, "zero")
            top += 1
        for i in range(e, end):
            sums[top - 1] += factors[i]
        if e > first:
            begins[0], ends[0] = e, end
            into = waiting[top - 1 : top] if top > 1 else to
            row_sums(into, factors, rows, begins, ends, x, same)
        e = end
    while top > 1:
        top -= 1
        _join(to, waiting, last_shard, sums, top)
    if total.size:
        total[0] = sums[0]


@inlined
def _join(to, waiting, last_shard, sums, top):
    """Add what waits in place `top` to what waits before it."""
    _add_to(to[0] if top == 1 else waiting[top - 1], waiting[top])
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
    outputs, k = starts.size - 1, columns.shape[1]
    room = np.empty((3, max(outputs, len(columns))), starts.dtype)
    begins, ends, limits = room[0], room[1], room[2]
    if dx.size:
        of, by = columns.reshape(columns.size), values.reshape(values.size)
        for r in range(len(dx)):
            begins[r], limits[r] = r * k, (r + 1) * k
        _sums(dx, begins, ends, limits, by, of, w, 0, outputs, False)
    if not dw.size and not db.shape[1]:
        return
    _by_column(starts, rows, factors, columns, values)
    levels = 1
    while 1 << levels - 1 < len(bounds):
        levels += 1
    waiting = np.empty((levels, x.shape[1] if dw.size else 0), values.dtype)
    last_shard, sums = np.empty(levels, np.int64), np.empty(levels, values.dtype)
    for j in range(outputs):
        begins[j] = starts[j]
    for p in range(len(groups) - 1):
        s, stop = groups[p], bounds[groups[p + 1]]
        for j in range(outputs):
            e = starts[j + 1]
            if stop < len(x):
                e = begins[j]
                while e < starts[j + 1] and rows[e] < stop:
                    e += 1
            limits[j] = e
        if groups[p + 1] > s + 1:
            for j in range(outputs):
                ends[j] = begins[j]
                if begins[j] < limits[j]:
                    ends[j], _ = _end_of_chain(rows, begins[j], limits[j], bounds, s)
            if dw.size:
                row_sums(dw[p], factors, rows, begins, ends, x, False)
            for j in range(outputs):
                one = slice(j, j + 1)
                _sum_over_shards(
                    dw[p, one] if dw.size else waiting[:1],
                    db[p, one] if db.shape[1] else sums[:0],
                    waiting,
                    last_shard,
                    sums,
                    factors,
                    x,
                    rows,
                    begins[one],
                    ends[one],
                    limits[j],
                    bounds,
                    s,
                )
                begins[j] = limits[j]
            continue
        for j in range(db.shape[1]):
            total = db[p, j] if add_bias else constant(sums, "zero")
            for e in range(begins[j], limits[j]):
                total += factors[e]
            db[p, j] = total
        if dw.size:
            _sums(dw[p], begins, ends, limits, factors, rows, x, bounds[s], stop, add_weight)
        else:
            for j in range(outputs):
                begins[j] = limits[j]


@kernel
def spread(dz, columns, values):
    """Writes dz (R, O), 0 but for the values (R, k) in the columns (R, k) of each row."""
    for r in range(len(dz)):
        row, at, of = dz[r], columns[r], values[r]
        for j in range(row.size):
            row[j] = 0
        for q in range(at.size):
            row[at[q]] = of[q]
