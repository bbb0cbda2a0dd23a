"""The dense layer."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import message
from .init import Initializer, he_uniform, zeros
from .kernels import gemm, reduce
from .layer import Layer
from .parameter import Parameter
from .types import Array

if TYPE_CHECKING:
    from .tape import Call


class Linear(Layer):
    """Affine map of the last axis: y = x Wᵀ + b.

    Backward: dx = dy W, dW = dyᵀ x, db = sum of dy over rows.

    Parameters
    ----------
    in_features, out_features
        Sizes D and O. The weight has shape (O, D), as in PyTorch.
    rng
        Draws the initial weights.
    bias
        Whether there is a bias b, shape (O,).
    weight_init, bias_init
        See `layers.init`.

    Inputs are (…, D), outputs (…, O); the first axis is the batch.
    """

    analytic = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rng: np.random.Generator,
        bias: bool = True,
        weight_init: Initializer = he_uniform,
        bias_init: Initializer = zeros,
        dtype: Any = np.float32,
    ) -> None:
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(size, int | np.integer) or size < 1:
                raise ValueError(message("Linear", f"{name} must be a positive integer", repr(size), "Pass the size of the axis."))
        self.in_features, self.out_features = int(in_features), int(out_features)
        self.weight = Parameter(weight_init(rng, (self.out_features, self.in_features)).astype(dtype))
        self.bias = Parameter(bias_init(rng, (self.out_features,)).astype(dtype), regularized=False) if bias else None

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features}{'' if self.bias else ', bias=False'})"

    def forward(self, call: "Call", x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            fix = "A single sample needs a batch axis: x[np.newaxis]." if x.ndim < 2 else "Flatten() turns (N, H, W) into (N, D)."
            raise ValueError(message(self, f"the input must have shape (N, …, {self.in_features})", x.shape, fix))
        self.check_dtype(x, self.weight)
        rows = matrix(x)
        y = call.buffer("y", (len(rows), self.out_features), x.dtype)
        bias = no_bias(y) if self.bias is None else self.bias.value
        gemm.multiply(y, rows, False, self.weight.value, True, bias, False)
        call.save(rows)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.out_features)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (rows,) = call.saved
        dy_rows = matrix(dy)
        none = no_bias(rows)
        bounds = call.bounds(len(rows))
        dw, accumulate = call.gradient_into(self.weight)
        if len(dw) == 1:
            gemm.multiply(dw[0], dy_rows, True, rows, False, none, accumulate)
        else:
            for s, (start, stop) in enumerate(pairwise(bounds)):
                gemm.multiply(dw[s], dy_rows[start:stop], True, rows[start:stop], False, none, accumulate)
        if self.bias is not None:
            db, accumulate = call.gradient_into(self.bias)
            reduce.column_sums(db, dy_rows, bounds, accumulate)
        if not call.wants(0):
            return (None,)
        dx = call.buffer("dx", rows.shape, dy.dtype)
        gemm.multiply(dx, dy_rows, False, call.feedback(self.weight), False, none, False)
        return (dx if dy.ndim == 2 else dx.reshape(*dy.shape[:-1], self.in_features),)


def matrix(x: Array) -> Array:
    """Return x (…, D) as adjacent, writable rows (R, D): the one memory layout that kernels are compiled for."""
    if not x.flags.carray:
        x = np.array(x, order="C")
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


_EMPTY = {np.dtype(dtype): np.empty(0, dtype) for dtype in (np.float32, np.float64)}


def no_bias(like: Array) -> Array:
    """Return the empty vector that tells the matrix product to add no bias."""
    return _EMPTY[like.dtype]
