"""The dense layer: y = x wᵀ + b, rectified or not. x (R, D), w (O, D), b (O,) or empty, y (R, O)."""

from .gemm import product
from .jit import inlined, kernel
from .reduce import sum_columns
from .vmath import constant


@kernel
def forward(y, x, w, b, rectified):
    """Writes y = x wᵀ + b, and max(y, 0) in its place if `rectified`; NaN stays NaN."""
    product(y, x, False, w, True, b, False)
    if rectified:
        zero = constant(y, "zero")
        flat = y.reshape(y.size)
        for i in range(flat.size):
            # The sum makes 0 of -0. Without it LLVM would see that positive elements stay, and store under a mask, which is slow.
            flat[i] = zero + (zero if flat[i] < zero else flat[i])


@inlined
def _rectifier_gradient(dz, dy, y):
    """Write dz = dy where y > 0, else 0."""
    zero = constant(dz, "zero")
    to, of, gate = dz.reshape(dz.size), dy.reshape(dz.size), y.reshape(dz.size)
    for i in range(to.size):
        to[i] = of[i] if gate[i] > zero else zero


@kernel
def backward(dx, dw, db, dz, dy, y, x, w, bounds, add_weight, add_bias):
    """Writes dx = dz w and writes (adds, if so said) for each shard dw = dzᵀ x and db = the sum of dz over its rows.

    Rectified: dz becomes dy where y > 0, else 0. Not rectified: dz is empty, and dy stands for it. dw (S, O, D); db (S, O), or
    (S, 0) without a bias; bounds (S + 1,); dx (R, D), or empty if it is not wanted.
    """
    gradient = dy
    if dz.size:
        _rectifier_gradient(dz, dy, y)
        gradient = dz
    if db.shape[1]:
        sum_columns(db, gradient, bounds, add_bias)
    none = w[0, :0]
    shards = len(dw)
    # One place that multiplies, as every further one would be compiled again.
    for task in range(shards + 1 if dx.size else shards):
        of_weight = task < shards
        start, stop = (bounds[task], bounds[task + 1]) if of_weight else (0, len(x))
        into, right = (dw[task], x[start:stop]) if of_weight else (dx, w)
        product(into, gradient[start:stop], of_weight, right, False, none, of_weight and add_weight)
