"""The dense layer."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import boolean, positive_int, require_input
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import empty, matrix
from .engine.parameter import Parameter
from .engine.rules import KeptGradients
from .init import Initializer, he_uniform, zeros
from .initial import drawn
from .kernels import dense, sparse
from .kernels.gemm import BLOCK_K, BLOCK_M
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
    replayable = True

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
        precision = self.precision
        rows, saved = precision.keep_operand(call, matrix(x), 0)
        result, y = call.matrix_buffer("y", (*x.shape[:-1], self.out_features), x.dtype)
        bias = empty(y, 1) if bias is None else bias
        weight, back = precision.operands(call, weight, both=call.wants(0))
        if activation == dense.GELU:
            kept = precision.room(call, "slope", y.shape, y.dtype) if call.recorded else empty(y, 2)
            (part,) = call.scratch(y.dtype, (BLOCK_M if kept.dtype != y.dtype else 0, y.shape[1]))
            call.run(dense.forward_gelu, y, kept, part, rows, weight, bias)
        else:
            call.run(dense.forward, y, rows, weight, bias, activation)
            kept = precision.keep(call, y) if activation == dense.RECTIFIED else empty(y, 2)
        call.save(saved, kept, back)
        return result

    def backward(
        self, call: "Call", dy: Array, activation: int = dense.IDENTITY
    ) -> tuple[Array | None, ...]:
        x, kept, back = call.saved
        x = self.precision.saved_operand(call, "x", x)
        nothing = empty(dy, 2)
        groups, gradients = call.summed_gradients(nothing, self.weight, self.bias)
        (dw, add_weight), (db, add_bias) = gradients
        bounds = call.bounds(len(x))
        result, dx, wanted = None, nothing, call.wants(0)
        weight = back
        if wanted:
            feedback = call.feedback(self.weight)
            if feedback is not self.weight.value:
                # A rule's, in place of the weight.
                weight = self.precision.operand(call, "feedback", feedback, False)
            result, dx = call.matrix_buffer("dx", (*dy.shape[:-1], self.in_features), dy.dtype)
        rest = bounds, groups, add_weight, add_bias
        dy, top = matrix(dy), call.top_k(self.out_features)
        if top is not None:
            columns, values = largest(call, top, dy, kept, bounds, activation)
            if self.precision.words is None and sparse.FEW * top.k <= self.out_features:
                room = self._by_column(call, columns, values)
                call.run(sparse.backward, dx, dw, db, *room, columns, values, x, weight, *rest)
                return (result,)
            # Of words there are whole products only.
            (dy,) = call.scratch(dy.dtype, dy.shape)
            call.run(sparse.spread, dy, columns, values)
            activation, kept = dense.IDENTITY, nothing
        dz = nothing
        if activation:
            rows = len(x) if len(bounds) > 2 else min(len(x), BLOCK_K)
            (dz,) = call.scratch(dy.dtype, (rows, self.out_features))
        call.run(dense.backward, dx, dw, db, dz, dy, kept, x, weight, *rest, activation)
        return (result,)

    def _by_column(self, call: "Call", columns: Array, values: Array) -> tuple[Array, Array, Array]:
        """Return room for what is kept, column by column: where each begins, rows and values."""
        return (
            call.buffer("starts", (self.out_features + 1,), np.int32),
            call.buffer("rows", (columns.size,), np.int32),
            call.buffer("factors", (values.size,), values.dtype),
        )


def largest(
    call: "Call", top: KeptGradients, dy: Array, kept: Array, bounds: Array, activation: int
) -> tuple[Array, Array]:
    """Return the columns (R, k) of the gradients before the activation that are kept of each row,
    and these, given dy (R, O) and what forward has kept for the activation.
    """
    shape = len(dy), top.k
    columns, values = (
        call.buffer(name, shape, dtype)
        for name, dtype in (("columns", np.int32), ("values", dy.dtype))
    )
    (dz,) = call.scratch(dy.dtype, dy.shape if activation else (0, dy.shape[1]))
    shards = bounds if top.unified else bounds[:0]
    call.run(sparse.choose, columns, values, dz, dy, kept, shards, activation)
    return columns, values
