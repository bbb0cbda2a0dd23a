"""The dense layer: y = x wᵀ + b, and an activation of it. x (R, D), w (O, D), b (O,) or empty, y
(R, O).
"""

from .gemm import BLOCK_K, BLOCK_M, product
from .jit import inlined, kernel
from .llvm.simd_math import gelu_and_slope_rows, gelu_row
from .llvm.vmath import constant
from .reduce import add_columns

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
def _gelu(y, slope):
    """Write y Phi(y) in place of y, and its derivative to `slope` unless that is empty: see
    `Formulas.gelu_and_slope`.
    """
    flat = y.reshape(y.size)
    if slope.size:
        gelu_and_slope_rows(flat, slope.reshape(slope.size), flat)
    else:
        gelu_row(flat, flat)


@kernel
def forward(y, x, w, b, activation):
    """Writes y = f(x wᵀ + b), f being the identity or max(z, 0) (NaN stays NaN)."""
    for start in range(0, len(x), BLOCK_M):
        # What is still in the second-level cache.
        rows = y[start : start + BLOCK_M]
        product(rows, x[start : start + BLOCK_M], False, w, True, b, False)
        if activation == RECTIFIED:
            _rectify(rows)


@kernel
def forward_gelu(y, slope, x, w, b):
    """Writes y = f(x wᵀ + b), f being z Phi(z), and its derivative to slope (R, O), unless that is
    empty.
    """
    for start in range(0, len(x), BLOCK_M):
        rows = y[start : start + BLOCK_M]
        product(rows, x[start : start + BLOCK_M], False, w, True, b, False)
        _gelu(rows, slope[start : start + BLOCK_M])


@inlined
def _through(dz, dy, kept, activation):
    """Write dz = dy f'(z), given y of RECTIFIED, or the slope of GELU."""
    zero = constant(dz, "zero")
    to, of, gate = dz.reshape(dz.size), dy.reshape(dz.size), kept.reshape(dz.size)
    if activation == GELU:
        for i in range(to.size):
            to[i] = of[i] * gate[i]
    else:
        for i in range(to.size):
            to[i] = zero if gate[i] <= zero else of[i]


@inlined
def _gradients(
    dx, dw, du, db, dz, dy, kept, x, h, w, bounds, add_weight, add_second, add_bias, activation
):
    """See `backward` and `backward_of_two`."""
    none = w[0, :0]
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
                _through(gradient, dy[start:stop], kept[start:stop], activation)
            if db.shape[1]:
                add_columns(db[s], gradient, begun or add_bias)
            for task in range(0 if dx.size and not apart else 1, 3 if du.size else 2):
                into, right, add = dx[start:stop], w, False
                if task == 1:
                    if not dw.size:
                        continue
                    into, right, add = dw[s], x[start:stop], begun or add_weight
                elif task == 2:
                    into, right, add = du[s], h[start:stop], begun or add_second
                product(into, gradient, task > 0, right, False, none, add)
            start = stop
            if start >= end:
                break
    if apart and dx.size:
        product(dx, dy if activation == IDENTITY else dz, False, w, False, none, False)


@kernel
def backward(dx, dw, db, dz, dy, kept, x, w, bounds, add_weight, add_bias, activation):
    """Writes dx = dz w and writes (adds, if so said) for each shard dw = dzᵀ x and db = the sum of
    dz over its rows.

    dz = dy f'(z), for which `kept` is y if rectified, the slope of GELU; the array dz is room for
    it, (R, O) with several shards, else for a block of it (BLOCK_K or R, O), and empty without an
    activation. dw (S, O, D), db (S, O) and dx (R, D) are empty if they are not wanted; bounds
    (S + 1,).
    """
    _gradients(
        dx, dw, dw[:0], db, dz, dy, kept, x, x, w, bounds, add_weight, False, add_bias, activation
    )


@kernel
def backward_of_two(dx, dw, du, db, dy, x, h, w, bounds, add_weight, add_second, add_bias):
    """Writes for y = x wᵀ + h uᵀ + b what `backward` does, and for each shard du = dyᵀ h."""
    _gradients(
        dx, dw, du, db, dy, dy, dy, x, h, w, bounds, add_weight, add_second, add_bias, IDENTITY
    )
