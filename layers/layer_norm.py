"""Normalisation of the features of every position."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import boolean, positive, positive_int, require_input
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous, empty
from .engine.parameter import Parameter
from .errors import message
from .initial import filled
from .kernels import layer_norm
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call

Features = int | tuple[int, ...]


class LayerNorm(Layer):
    """Normalise the last axis, or the last few: y = g h + b with h = (x - mean) / sqrt(variance +
    ε) (Ba et al. 2016, eq. 4).

    Mean and variance (the biased one) are those of the C features of one position. Backward, with u
    = g dy and means over the features: dx = (u - mean(u) - h mean(u h)) / sqrt(variance + ε), dg =
    sum of dy h over positions, db = sum of dy.

    Parameters
    ----------
    features
        Size C of the last axis, or a tuple with the sizes of the last axes. The gain `weight`
        begins as ones, the `bias` as zeros, both of that shape.
    epsilon
        ε, added to the variance.
    bias
        Whether there is a bias b.
    affine
        Whether there are a gain g, and a bias.

    Notes
    -----
    Inputs are (N, …, C), or (N, …, \\*features); outputs the same.
    """

    analytic = True
    replayable = True
    _centred = True

    def __init__(
        self,
        features: Features,
        epsilon: float = 1e-5,
        *,
        bias: bool = True,
        affine: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        sizes = features if isinstance(features, tuple | list) and features else (features,)
        shape = tuple(positive_int(name, "features", size) for size in sizes)
        self.features = shape if isinstance(features, tuple | list) else shape[0]
        self.epsilon = positive(name, "epsilon", epsilon, "1e-5 is usual.")
        self.weight = (
            Parameter(filled(type(self).__name__, 1.0, shape, dtype), regularized=False)
            if boolean(name, "affine", affine)
            else None
        )
        self.bias = (
            Parameter(filled(type(self).__name__, 0.0, shape, dtype), regularized=False)
            if boolean(name, "bias", bias) and affine
            else None
        )
        self.counts_padding = "always" if len(shape) > 1 else None
        self._shape = shape
        self._size = math.prod(shape)

    def __repr__(self) -> str:
        options = "" if self.weight else ", affine=False"
        return f"{type(self).__name__}({self.features}, {self.epsilon:g}{options})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        shape, dtype = self._shape, None if self.weight is None else self.weight.dtype
        require_input(self, x, ("N", "…", *shape), dtype)
        if x.shape[-len(shape) :] != shape:
            must = f"the input must have shape (N, …, {', '.join(map(str, shape))})"
            raise ValueError(message(self, must, x.shape, "Give the sizes of the last axes."))
        if x.dtype.kind == "c":
            return self._complex(x)
        rows = contiguous(x).reshape(-1, self._size)
        y = call.output_buffer("y", x.shape, x.dtype)
        saved = call.buffer("saved", (2, len(rows)), rows.dtype)
        gain, bias = self._flat(x, self.weight), self._flat(x, self.bias)
        call.run(
            layer_norm.normalize_rows,
            y.reshape(rows.shape),
            saved,
            rows,
            gain,
            bias,
            self.epsilon,
            self._centred,
        )
        call.save(self.precision.keep(call, rows, 0), saved)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, saved = call.saved
        dw, add_weight = self._gradient(call, self.weight, dy)
        db, add_bias = self._gradient(call, self.bias, dy)
        result, dx, held = None, empty(dy, 2), empty(dy, 2)
        if call.wants(0):
            result = call.pooled("dx", dy.shape, dy.dtype)
            taken = call.take_gradient(0)
            dx = result.reshape(x.shape)
            held = held if taken is None else contiguous(taken).reshape(x.shape)
        feedback = (
            empty(dy, 1) if self.weight is None else call.feedback(self.weight).reshape(self._size)
        )
        call.run(
            layer_norm.normalize_rows_backward,
            dx,
            dw,
            db,
            call.buffer("work", (2, self._size), dy.dtype),
            held,
            contiguous(dy).reshape(x.shape),
            x,
            saved,
            feedback,
            call.bounds(len(x)),
            self._centred,
            add_weight,
            add_bias,
        )
        return (result,)

    def _flat(self, like: Array, parameter: Parameter | None) -> Array:
        """Return the value of a parameter as (C,), or what stands for none."""
        return empty(like, 1) if parameter is None else parameter.value.reshape(self._size)

    def _gradient(
        self, call: "Call", parameter: Parameter | None, like: Array
    ) -> tuple[Array, bool]:
        """Return the gradients (S, C) of a parameter, (S, 0) for none, and whether to add."""
        if parameter is None:
            return call.buffer("no gradient", (call.tape.shards, 0), like.dtype), True
        gradients, add = call.gradient_buffer(parameter)
        return gradients.reshape(len(gradients), self._size), add

    def _complex(self, x: Array) -> Array:
        """Return y for a complex x: the complex step of the gradient check."""
        axes = tuple(range(-len(self._shape), 0))
        d = x - x.mean(axis=axes, keepdims=True) if self._centred else x
        h = d / np.sqrt((d * d).mean(axis=axes, keepdims=True) + self.epsilon)
        weight = 1 if self.weight is None else self.weight.value
        return np.asarray(h * weight + (0 if self.bias is None else self.bias.value))


class RMSNorm(LayerNorm):
    """Divide by the root mean square of the last axis, or the last few: y = g x / sqrt(mean(x²) +
    ε) (Zhang and Sennrich 2019, eq. 4).

    Backward: as `LayerNorm` without mean(u), and without a bias.
    """

    _centred = False

    def __init__(
        self,
        features: Features,
        epsilon: float = 1e-6,
        *,
        affine: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(features, epsilon, bias=False, affine=affine, dtype=dtype)
