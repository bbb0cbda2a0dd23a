"""The dense layer."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .activation import ReLU
from .errors import message
from .init import Initializer, he_uniform, zeros
from .kernels import elementwise, gemm, reduce
from .layer import Layer
from .memory import matrix, no_bias
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

    def fused_with(self, following: Layer) -> Layer | None:
        return _RectifiedLinear(self) if type(following) is ReLU else None

    def forward(self, call: "Call", x: Array) -> Array:
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            fix = "A single sample needs a batch axis: x[np.newaxis]." if x.ndim < 2 else "Flatten() turns (N, H, W) into (N, D)."
            raise ValueError(message(self, f"the input must have shape (N, …, {self.in_features})", x.shape, fix))
        self.check_dtype(x, self.weight)
        rows = matrix(x)
        y = call.buffer("y", (len(rows), self.out_features), rows.dtype)
        bias = no_bias(y) if self.bias is None else self.bias.value
        gemm.multiply(y, rows, False, self.weight.value, True, bias, False)
        call.save(rows)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.out_features)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        rows = matrix(dy)
        if self.bias is not None:
            db, accumulate = call.gradient_into(self.bias)
            reduce.column_sums(db, rows, call.bounds(len(rows)), accumulate)
        return self.backward_product(call, rows, dy.shape)

    def backward_product(self, call: "Call", dy: Array, shape: tuple[int, ...]) -> tuple[Array | None, ...]:
        """Do backward but for the bias, given dy as rows (R, O); `shape` is that of the output."""
        (x,) = call.saved
        none = no_bias(x)
        dw, accumulate = call.gradient_into(self.weight)
        if len(dw) == 1:
            gemm.multiply(dw[0], dy, True, x, False, none, accumulate)
        else:
            for s, (start, stop) in enumerate(pairwise(call.bounds(len(x)))):
                gemm.multiply(dw[s], dy[start:stop], True, x[start:stop], False, none, accumulate)
        if not call.wants(0):
            return (None,)
        dx = call.buffer("dx", x.shape, dy.dtype)
        gemm.multiply(dx, dy, False, call.feedback(self.weight), False, none, False)
        return (dx if len(shape) == 2 else dx.reshape(*shape[:-1], self.in_features),)


class _RectifiedLinear(Linear):
    """A Linear and the ReLU after it in one call: y = max(x Wᵀ + b, 0). Backward: as Linear, with dy only where y > 0."""

    analytic = False

    def __init__(self, linear: Linear) -> None:
        vars(self).update(vars(linear))

    def __repr__(self) -> str:
        return f"{super().__repr__()} + ReLU()"

    def fused_with(self, following: Layer) -> Layer | None:
        return None

    def forward(self, call: "Call", x: Array) -> Array:
        y = super().forward(call, x)
        elementwise.rectify(y.reshape(-1))
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        rows, y = matrix(dy), matrix(call.output.array)
        dz = call.buffer("dz", y.shape, y.dtype)
        if self.bias is None:
            elementwise.relu_backward(dz.reshape(-1), rows.reshape(-1), y.reshape(-1))
        else:
            db, accumulate = call.gradient_into(self.bias)
            reduce.rectified_column_sums(dz, db, rows, y, call.bounds(len(rows)), accumulate)
        return self.backward_product(call, dz, dy.shape)
