"""Normalisation of groups of channels over the positions of a sample."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import boolean, positive, positive_int, require_input
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import empty, flat
from .engine.parameter import Parameter
from .errors import message
from .initial import filled
from .kernels import batch_norm, group_norm, reduce
from .types import Array, Integers

if TYPE_CHECKING:
    from .engine.call import Call


class GroupNorm(Layer):
    """Normalise groups of channels of each sample: y = g (x - μ) / √(v + ε) + b (Wu and He 2018,
    arXiv 1803.08494).

    μ and v are the mean and the (biased) variance over all positions of a sample and the C / groups
    channels of a group; training and evaluation are alike. Backward, with x̂ = (x - μ) / √(v + ε), u
    = g dy and means over the group: dx = (u - mean u - x̂ mean(u x̂)) / √(v + ε), db = Σ dy, dg = Σ
    dy x̂.

    Parameters
    ----------
    groups, features
        Number of groups, and size C of the last axis, a multiple of it.
    epsilon
        ε, added to the variance.
    affine
        Whether there are a gain g (`weight`, ones at first) and a bias b (`bias`, zeros), both
        (C,).

    Raises
    ------
    ValueError
        A group has a single value, which has no variance.

    Notes
    -----
    Inputs are (N, …, C). With a ReLU after it in a Sequential, both run as one call.
    """

    analytic = True
    replayable = True
    counts_padding = "always"
    _axes: tuple[str, ...] = ("N", "…")
    _fix = "Channels are the last axis."

    def __init__(
        self,
        groups: int,
        features: int,
        epsilon: float = 1e-5,
        affine: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        self.features = positive_int(name, "the number of channels", features)
        self.groups = positive_int(name, "groups", groups, "32 are usual.")
        if self.features % self.groups:
            must, fix = f"groups must divide the {features} channels", "Choose a divisor."
            raise ValueError(message(name, must, groups, fix))
        self.epsilon = positive(name, "epsilon", epsilon, "1e-5 is usual.")
        self.weight = (
            Parameter(filled(type(self).__name__, 1.0, (features,), dtype), regularized=False)
            if boolean(type(self).__name__, "affine", affine)
            else None
        )
        self.bias = (
            Parameter(filled(type(self).__name__, 0.0, (features,), dtype), regularized=False)
            if affine
            else None
        )

    def __repr__(self) -> str:
        options = "" if self.weight else ", affine=False"
        return f"{type(self).__name__}({self.groups}, {self.features}{options})"

    def forward(self, call: ForwardCall, x: Array, rectified: bool = False) -> Array:
        dtype = None if self.weight is None else self.weight.dtype
        require_input(self, x, (*self._axes, self.features), dtype, self._fix)
        positions = int(np.prod(x.shape[1:-1]))
        if positions * self.features == self.groups:
            must = "a group must hold more than one value of each sample"
            fix = "Use fewer groups, or LayerNorm."
            raise ValueError(message(self, must, f"shape {x.shape}", fix))
        if x.dtype.kind == "c":
            return self._complex(x)
        values, samples = flat(x), self._samples(call, len(x), positions)
        moments = call.buffer("moments", (len(x), 1 + 2 * self.features), np.float64)
        call.run(batch_norm.statistics, moments, values, samples)
        call.run(group_norm.share_moments, moments, self.features // self.groups)
        y = call.output_buffer("y", x.shape, x.dtype)
        gain, bias = self._gain_and_bias(y)
        call.run(
            batch_norm.normalize,
            y.reshape(-1),
            values,
            empty(y, 1),
            moments,
            gain,
            bias,
            samples,
            self.epsilon,
            rectified,
        )
        precision = self.precision
        gate = precision.keep(call, y.reshape(-1)) if rectified else empty(y, 1)
        call.save(precision.keep(call, values, 0), gate, moments, samples)
        return y

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False
    ) -> tuple[Array | None, ...]:
        x, gate, moments, samples = call.saved
        nothing, given, (gain, bias) = empty(dy, 1), flat(dy), self._gain_and_bias(dy)
        sums = call.buffer("sums", (len(moments), 2 * self.features), np.float64)
        shape = (0 if self.weight is None else len(moments), self.features)
        dw, db = (call.buffer(name, shape, dy.dtype) for name in ("dw", "db"))
        dz = nothing
        if rectified and gate.dtype != dy.dtype:
            # See `BatchNorm`.
            dz, rectified = call.pooled("dz", (x.size,), dy.dtype), False
        else:
            gate = nothing
        about = (x, moments, gain, bias, samples, self.epsilon, rectified)
        arrays = (sums, dw, db, dz, given, gate)
        call.run(batch_norm.backward_sums, *arrays, *about, False, False)
        if self.weight is not None and self.bias is not None:
            for parameter, of_samples in ((self.weight, dw), (self.bias, db)):
                gradient, add = call.gradient_buffer(parameter)
                call.run(reduce.column_sums, gradient, of_samples, call.bounds(len(moments)), add)
        if not call.wants(0):
            return (None,)
        feedback = nothing if self.weight is None else call.feedback(self.weight)
        call.run(group_norm.share_sums, sums, feedback, self.features // self.groups)
        dx = dz.reshape(dy.shape) if dz.size else call.pooled("dx", dy.shape, dy.dtype)
        call.run(
            batch_norm.backward,
            dx.reshape(-1),
            dz if dz.size else given,
            x,
            moments,
            sums,
            gain,
            bias,
            feedback,
            nothing,
            samples,
            self.epsilon,
            rectified,
        )
        return (dx,)

    def _samples(self, call: ForwardCall, count: int, positions: int) -> Integers:
        """Return where the rows of each sample begin, and end (N + 1,)."""
        bounds = call.buffer("samples", (count + 1,), np.int64)
        call.run(_cut, bounds, positions)
        return bounds

    def _gain_and_bias(self, like: Array) -> tuple[Array, Array]:
        nothing = empty(like, 1)
        return (
            nothing if self.weight is None else self.weight.value,
            nothing if self.bias is None else self.bias.value,
        )

    def _complex(self, x: Array) -> Array:
        """Return y for a complex x: the complex step of the gradient check."""
        parts = x.reshape(len(x), -1, self.groups, self.features // self.groups)
        d = parts - parts.mean(axis=(1, 3), keepdims=True)
        h = d / np.sqrt((d * d).mean(axis=(1, 3), keepdims=True) + self.epsilon)
        y = h.reshape(x.shape)
        if self.weight is None or self.bias is None:
            return np.asarray(y)
        return np.asarray(y * self.weight.value + self.bias.value)


def _cut(bounds: Integers, positions: int) -> None:
    """Write 0, positions, 2 positions, …"""
    np.multiply(np.arange(len(bounds)), positions, out=bounds)


class InstanceNorm(GroupNorm):
    """Normalise every channel of each sample over its positions: `GroupNorm` with a group for each
    channel (Ulyanov et al. 2016, arXiv 1607.08022).

    Parameters
    ----------
    features
        Size C of the last axis.
    epsilon
        ε, added to the variance.
    affine
        Whether there are a gain and a bias, (C,) each; as in PyTorch, not unless said.

    Notes
    -----
    Inputs are (N, …, C), with more than one position.
    """

    def __init__(
        self,
        features: int,
        epsilon: float = 1e-5,
        affine: bool = False,
        *,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(features, features, epsilon, affine, dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.features}{', affine=True' if self.weight else ''})"


class InstanceNorm1d(InstanceNorm):
    """Instance normalisation of sequences (N, T, C); see `InstanceNorm`."""

    _axes = ("N", "T")


class InstanceNorm2d(InstanceNorm):
    """Instance normalisation of images (N, H, W, C); see `InstanceNorm`."""

    _axes = ("N", "H", "W")
