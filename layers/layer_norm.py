"""Normalisation of the features of every position."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import positive, positive_int, require_input
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import empty, matrix
from .engine.parameter import Parameter
from .kernels import layer_norm
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class LayerNorm(Layer):
    """Normalise the last axis: y = g h + b with h = (x - mean) / sqrt(variance + ε) (Ba et al.
    2016, eq. 4).

    Mean and variance (the biased one) are those of the C features of one position. Backward, with u
    = g dy and means over the features: dx = (u - mean(u) - h mean(u h)) / sqrt(variance + ε), dg =
    sum of dy h over positions, db = sum of dy.

    Parameters
    ----------
    features
        Size C. The gain `weight` begins as ones, the `bias` as zeros, both (C,).
    epsilon
        ε, added to the variance.
    bias
        Whether there is a bias b.

    Notes
    -----
    Inputs are (N, …, C), outputs the same.
    """

    analytic = True
    _centred = True

    def __init__(
        self, features: int, epsilon: float = 1e-5, *, bias: bool = True, dtype: Any = np.float32
    ) -> None:
        name = type(self).__name__
        self.features = positive_int(name, "features", features)
        self.epsilon = positive(name, "epsilon", epsilon, "1e-5 is usual.")
        self.weight = Parameter(np.ones(self.features, dtype), regularized=False)
        self.bias = Parameter(np.zeros(self.features, dtype), regularized=False) if bias else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.features}, {self.epsilon:g})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        weight, bias = self.weight.value, None if self.bias is None else self.bias.value
        require_input(self, x, ("N", "…", self.features), weight.dtype)
        if x.dtype.kind == "c":
            # The complex step of the gradient check.
            d = x - x.mean(axis=-1, keepdims=True) if self._centred else x
            h = d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + self.epsilon)
            return np.asarray(h * weight + (0 if bias is None else bias))
        rows = matrix(x)
        result, y = call.matrix_buffer("y", x.shape, x.dtype)
        saved = call.buffer("saved", (2, len(rows)), rows.dtype)
        layer_norm.normalize_rows(
            y,
            saved,
            rows,
            weight,
            empty(y, 1) if bias is None else bias,
            self.epsilon,
            self._centred,
        )
        call.save(rows, saved)
        return result

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, saved = call.saved
        dw, add_weight = call.gradient_buffer(self.weight)
        db, add_bias = (empty(x, 2), True) if self.bias is None else call.gradient_buffer(self.bias)
        if self.bias is None:
            db = np.empty((len(dw), 0), x.dtype)
        result, dx, held = None, empty(x, 2), empty(x, 2)
        if call.wants(0):
            result = call.pooled("dx", dy.shape, x.dtype)
            taken = call.take_gradient(0)
            dx, held = matrix(result), held if taken is None else matrix(taken)
        work = call.buffer("work", (2, self.features), x.dtype)
        bounds, feedback = call.bounds(len(x)), call.feedback(self.weight)
        layer_norm.normalize_rows_backward(
            dx,
            dw,
            db,
            work,
            held,
            matrix(dy),
            x,
            saved,
            feedback,
            bounds,
            self._centred,
            add_weight,
            add_bias,
        )
        return (result,)


class RMSNorm(LayerNorm):
    """Divide by the root mean square of the last axis: y = g x / sqrt(mean(x²) + ε) (Zhang and
    Sennrich 2019, eq. 4).

    Backward: as `LayerNorm` without mean(u), and without a bias.
    """

    _centred = False

    def __init__(self, features: int, epsilon: float = 1e-6, *, dtype: Any = np.float32) -> None:
        super().__init__(features, epsilon, bias=False, dtype=dtype)
