"""The dense layer: y = x wᵀ + b, and an activation of it. x (R, D), w (O, D), b (O,) or empty, y
(R, O). In place of w there may be words, for what is multiplied with it: see `products`. What was
kept of forward (x, y, a slope) may be words, too: see `halves`.
"""

from .gemm import BLOCK_K, BLOCK_M
from .jit import inlined, kernel
from .llvm.halves import narrowed, wide
from .llvm.simd_math import gelu_and_slope_rows, gelu_row
from .llvm.vmath import constant
from .products import product, product_with, sum_of_products
from .reduce import add_columns
from .shard_sums import steps_of, sum_of_columns

IDENTITY, RECTIFIED, GELU = range(3)


@inlined
def _rectify(y):
    """Write max(y, 0) in place of y; NaN stays NaN."""
    zero = constant(y, "zero")
    flat = y.reshape(y.size)
    for i in range(flat.size):
        # The sum makes 0 of -0. Without it LLVM would see that positive elements stay, and store
        # under a mask, which is slow.
        flat[i] = zero + (zero if flat[i] < zero else flat[i])


@inlined
def _gelu(y, slope, part):
    """Write y Phi(y) in place of y, and its derivative to `slope` unless that is empty: see
    `Formulas.gelu_and_slope`. `part` is room for it where slope is of words, else empty.
    """
    flat, kept = y.reshape(y.size), slope.reshape(slope.size)
    if part.size:
        room = part.reshape(part.size)[: flat.size]
        gelu_and_slope_rows(flat, room, flat)
        for i in range(kept.size):
            kept[i] = narrowed(kept, room[i])
    elif slope.size:
        gelu_and_slope_rows(flat, kept, flat)
    else:
        gelu_row(flat, flat)


@kernel
def forward(y, x, w, b, activation):
    """Writes y = f(x wᵀ + b), f being the identity or max(z, 0) (NaN stays NaN)."""
    for start in range(0, len(x), BLOCK_M):
        # What is still in the second-level cache.
        rows = y[start : start + BLOCK_M]
        product_with(rows, x[start : start + BLOCK_M], w, True, b)
        if activation == RECTIFIED:
            _rectify(rows)


@kernel
def forward_gelu(y, slope, part, x, w, b):
    """Writes y = f(x wᵀ + b), f being z Phi(z), and its derivative to slope (R, O), unless that is
    empty. The array part (BLOCK_M, O) is room where slope is of words, else (0, O).
    """
    for start in range(0, len(x), BLOCK_M):
        rows = y[start : start + BLOCK_M]
        product_with(rows, x[start : start + BLOCK_M], w, True, b)
        _gelu(rows, slope[start : start + BLOCK_M], part)


@inlined
def through(dz, dy, kept, activation):
    """Write dz = dy f'(z), given y of RECTIFIED, or the slope of GELU."""
    zero = constant(dz, "zero")
    to, of, gate = dz.reshape(dz.size), dy.reshape(dz.size), kept.reshape(dz.size)
    if activation == GELU:
        for i in range(to.size):
            to[i] = narrowed(to, wide(of[i]) * wide(gate[i]))
    else:
        for i in range(to.size):
            to[i] = narrowed(to, zero if wide(gate[i]) <= zero else wide(of[i]))


@inlined
def _sums(dx, dw, du, db, dz, dy, kept, x, h, w, bounds, groups, activation):
    """Do what `_gradients` does, where shards are summed that are in one group."""
    gradient = dy if activation == IDENTITY else dz
    if activation != IDENTITY:
        through(dz, dy, kept, activation)
    steps = steps_of(len(dy), bounds)
    for p in range(len(groups) - 1):
        part = bounds[groups[p] : groups[p + 1] + 1]
        if db.shape[1]:
            sum_of_columns(db[p], gradient, part, steps)
        for task in range(0 if dw.size else 1, 2 if du.size else 1):
            into, right = (dw[p], x) if task == 0 else (du[p], h)
            sum_of_products(w, into, gradient, right, part, steps)
    if dx.size:
        product_with(dx, gradient, w, False, dy.reshape(dy.size)[:0])


@inlined
def _gradients(
    dx,
    dw,
    du,
    db,
    dz,
    dy,
    kept,
    x,
    h,
    w,
    bounds,
    groups,
    add_weight,
    add_second,
    add_bias,
    activation,
):
    """See `backward` and `backward_of_two`."""
    if len(groups) < len(bounds):
        _sums(dx, dw, du, db, dz, dy, kept, x, h, w, bounds, groups, activation)
        return
    none = dy.reshape(dy.size)[:0]
    # The input's gradient is computed with the rest of a block; but shards may be small, and w
    # would be packed for each.
    shards = len(bounds) - 1
    apart = shards > 1
    for s in range(shards):
        start, end = bounds[s], bounds[s + 1]
        while True:
            # A block of what carries the error is read once from afar; an empty shard has a block,
            # too, which writes zeros.
            stop = min(start + BLOCK_K, end)
            begun = start > bounds[s]
            gradient = dy[start:stop]
            if activation != IDENTITY:
                gradient = dz[start:stop] if apart else dz[: stop - start]
                through(gradient, dy[start:stop], kept[start:stop], activation)
            if db.shape[1]:
                add_columns(db[s], gradient, begun or add_bias)
            if dx.size and not apart:
                product_with(dx[start:stop], gradient, w, False, none)
            for task in range(0 if dw.size else 1, 2 if du.size else 1):
                into, right, add = dw[s], x[start:stop], begun or add_weight
                if task == 1:
                    into, right, add = du[s], h[start:stop], begun or add_second
                product(w, into, gradient, True, right, False, add)
            start = stop
            if start >= end:
                break
    if apart and dx.size:
        product_with(dx, dy if activation == IDENTITY else dz, w, False, none)


@kernel
def backward(dx, dw, db, dz, dy, kept, x, w, bounds, groups, add_weight, add_bias, activation):
    """Writes dx = dz w and writes (adds, if so said) for each shard dw = dzᵀ x and db = the sum of
    dz over its rows; or writes, for each group of shards, their sums by the fixed tree.

    dz = dy f'(z), for which `kept` is y if rectified, the slope of GELU; the array dz is room for
    it, (R, O) with several shards, else for a block of it (BLOCK_K or R, O), and empty without an
    activation. dw (P, O, D), db (P, O) and dx (R, D) are empty if they are not wanted; bounds
    (S + 1,), groups (P + 1,). Of several shards a group has a power of two; rows may then be those
    of several steps of the samples that bounds are of, a step after the other.
    """
    _gradients(
        dx,
        dw,
        dw[:0],
        db,
        dz,
        dy,
        kept,
        x,
        x,
        w,
        bounds,
        groups,
        add_weight,
        False,
        add_bias,
        activation,
    )


@kernel
def backward_of_two(dx, dw, du, db, dy, x, h, w, bounds, groups, add_weight, add_second, add_bias):
    """Writes for y = x wᵀ + h uᵀ + b what `backward` does, and for each shard, or group, du =
    dyᵀ h.
    """
    _gradients(
        dx,
        dw,
        du,
        db,
        dy,
        dy,
        dy,
        x,
        h,
        w,
        bounds,
        groups,
        add_weight,
        add_second,
        add_bias,
        IDENTITY,
    )


@kernel
def backward_of_input(dx, dy, w):
    """Writes dx = dy w."""
    product_with(dx, dy, w, False, dy.reshape(dy.size)[:0])
