"""The dense layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import boolean, positive_int, require_input
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import empty, matrix
from .engine.parameter import Parameter
from .init import Initializer, he_uniform, zeros
from .initial import drawn
from .kernels import dense
from .kernels.gemm import BLOCK_K
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


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

    Notes
    -----
    Inputs are (…, D), outputs (…, O); the first axis is the batch. An `activation` (a ReLU or GELU
    that follows in a Sequential) is applied while the output is still near: y = f(z), z = x Wᵀ + b,
    and backward begins with dz = dy f'(z).
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
        self.in_features = positive_int("Linear", "in_features", in_features)
        self.out_features = positive_int("Linear", "out_features", out_features)
        self.weight = Parameter(
            drawn("Linear", weight_init, rng, (self.out_features, self.in_features), dtype)
        )
        self.bias = (
            Parameter(
                drawn("Linear", bias_init, rng, (self.out_features,), dtype), regularized=False
            )
            if boolean("Linear", "bias", bias)
            else None
        )

    def __repr__(self) -> str:
        return (
            f"Linear({self.in_features}, {self.out_features}{'' if self.bias else ', bias=False'})"
        )

    def flops(self, y: Array, *inputs: Array) -> int:
        return 2 * y.size * self.in_features

    def forward(self, call: ForwardCall, x: Array, activation: int = dense.IDENTITY) -> Array:
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        fix = "Flatten() turns (N, H, W) into (N, D)."
        require_input(self, x, ("N", "…", self.in_features), weight.dtype, fix)
        if x.dtype.kind == "c":
            # The complex step of the gradient check.
            return np.asarray(x @ weight.T + (0 if bias is None else bias))
        rows = matrix(x)
        result, y = call.matrix_buffer("y", (*x.shape[:-1], self.out_features), x.dtype)
        kept = y if activation == dense.RECTIFIED else empty(y, 2)
        bias = empty(y, 1) if bias is None else bias
        if activation == dense.GELU:
            if call.recorded:
                kept = call.buffer("slope", y.shape, y.dtype)
            dense.forward_gelu(y, kept, rows, weight, bias)
        else:
            dense.forward(y, rows, weight, bias, activation)
        call.save(rows, kept)
        return result

    def backward(
        self, call: "Call", dy: Array, activation: int = dense.IDENTITY
    ) -> tuple[Array | None, ...]:
        x, kept = call.saved
        nothing = empty(x, 2)
        dw, add_weight = call.wanted_gradient(self.weight, nothing)
        db, add_bias = call.wanted_gradient(self.bias, nothing)
        bounds = call.bounds(len(x))
        dz = nothing
        if activation:
            rows = len(x) if len(bounds) > 2 else min(len(x), BLOCK_K)
            (dz,) = call.scratch(x.dtype, (rows, self.out_features))
        result, dx = None, nothing
        if call.wants(0):
            result, dx = call.matrix_buffer("dx", (*dy.shape[:-1], self.in_features), x.dtype)
        dense.backward(
            dx,
            dw,
            db,
            dz,
            matrix(dy),
            kept,
            x,
            call.feedback(self.weight),
            bounds,
            add_weight,
            add_bias,
            activation,
        )
        return (result,)
