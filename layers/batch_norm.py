"""Batch normalisation over the shards of a batch, or over the whole of it."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import boolean, fraction, positive, positive_int, require_input
from .engine.fixed_tree import tree_sum
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import empty, flat, matrix
from .engine.parameter import Parameter
from .engine.state import State
from .errors import message
from .initial import filled
from .kernels import batch_norm
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class SingleValueError(ValueError):
    """There is but one value per channel, which has no variance."""


class BatchNorm(Layer):
    """Batch normalisation of the last axis, y = g (x - μ) / √(v + ε) + b (Ioffe and Szegedy 2015,
    arXiv 1502.03167, algorithm 1).

    In training, μ and v are the mean and the (biased) variance of each channel over all values of a
    shard of the batch; on a tape without shards, of the batch. In evaluation they are the running
    ones, which every step of training moves: running ← (1 - momentum) running + momentum
    (statistics of the global batch), with the unbiased variance.

    Backward, with x̂ = (x - μ) / √(v + ε) and means over the n values of the shard: db = Σ dy, dg =
    Σ dy x̂ and dx = g / √(v + ε) (dy - mean dy - x̂ mean(dy x̂)); in evaluation dx = g / √(v + ε)
    dy.

    Parameters
    ----------
    features
        Size C of the last axis.
    momentum
        Weight of the last step in the running statistics, from 0 to 1.
    epsilon
        ε, added to the variance.
    affine
        Whether there are a gain g (`weight`, ones at first) and a bias b (`bias`, zeros), both
        (C,).
    synchronized
        Whether training takes the statistics of the global batch over all shards and ranks, which
        costs two messages per call. The result then depends on the batch alone, not on how it is
        cut.

    Attributes
    ----------
    running_mean, running_variance
        States (C,): zeros and ones at first.

    Raises
    ------
    ValueError
        In training, a shard holds a single value per channel (`SingleValueError`), or the batch
        none.

    Notes
    -----
    Inputs are (N, …, C). The statistics that the running ones learn from are combined over all
    shards of the global batch, weighted by their size, in the fixed tree (for the variance: Chan,
    Golub and LeVeque 1983, eq. 2.1), so they are the same bits for any number of ranks. With a ReLU
    after it in a Sequential, both run as one call.
    """

    analytic = True
    replayable = True
    counts_padding = "in training"
    _axes: tuple[str, ...] = ("N", "…")
    _fix = "Channels are the last axis."

    def __init__(
        self,
        features: int,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        affine: bool = True,
        synchronized: bool = False,
        *,
        dtype: Any = np.float32,
    ) -> None:
        owner = type(self).__name__
        fix = "Pass the size of the last axis."
        self.features = positive_int(owner, "the number of channels", features, fix)
        self.momentum = momentum
        self.epsilon = positive(owner, "epsilon", epsilon, "1e-5 is usual.")
        self.synchronized = boolean(type(self).__name__, "synchronized", synchronized)
        self.weight = (
            Parameter(filled(type(self).__name__, 1.0, (self.features,), dtype), regularized=False)
            if boolean(type(self).__name__, "affine", affine)
            else None
        )
        self.bias = (
            Parameter(filled(type(self).__name__, 0.0, (self.features,), dtype), regularized=False)
            if affine
            else None
        )
        self.running_mean = State(np.zeros(self.features, dtype))
        self.running_variance = State(np.ones(self.features, dtype))

    def __repr__(self) -> str:
        options = "" if self.weight else ", affine=False"
        options += ", synchronized=True" if self.synchronized else ""
        return f"{type(self).__name__}({self.features}{options})"

    @property
    def momentum(self) -> float:
        """How much of each step the running statistics take; it may be changed between two
        steps.
        """
        return self._momentum

    @momentum.setter
    def momentum(self, momentum: float) -> None:
        owner = type(self).__name__
        self._momentum = fraction(owner, "momentum", momentum, "0.1 is usual.", closed=True)

    def forward(
        self, call: ForwardCall, x: Array, rectified: bool = False, shortcut: Array | None = None
    ) -> Array:
        dtype = None if self.weight is None else self.weight.dtype
        require_input(self, x, (*self._axes, self.features), dtype, self._fix)
        if x.dtype.kind == "c":
            return self._complex(call, x)
        rows = matrix(x)
        values, bounds = rows.reshape(-1), call.bounds(len(rows))
        moments = (
            self._batch_moments(call, values, bounds, len(x))
            if call.training
            else self._running_moments()
        )
        y = call.output_buffer("y", x.shape, x.dtype)
        more = empty(y, 1) if shortcut is None else flat(shortcut)
        call.run(
            batch_norm.normalize,
            y.reshape(-1),
            values,
            more,
            moments,
            *self._gain_and_bias(y),
            bounds,
            self.epsilon,
            rectified,
        )
        precision = self.precision
        # What the gate is read from: of x in 16 bits it would be that of other numbers near 0.
        gate = precision.keep(call, y.reshape(-1)) if rectified else empty(y, 1)
        call.save(precision.keep(call, values, 0), gate, moments)
        return y

    def backward(
        self, call: "Call", dy: Array, rectified: bool = False, joined: bool = False
    ) -> tuple[Array | None, ...]:
        """Return dx; if joined (a shortcut was added, and the sum rectified), also the gradient of
        the shortcut.
        """
        x, gate, moments = call.saved
        nothing, no_gradient = empty(dy, 1), empty(dy, 2)
        gain, bias = self._gain_and_bias(dy)
        bounds = call.bounds(x.size // self.features)
        dw, add_weight, db, add_bias = no_gradient, False, no_gradient, False
        # The kernel writes both or none.
        if (
            self.weight is not None
            and self.bias is not None
            and (call.trains(self.weight) or call.trains(self.bias))
        ):
            dw, add_weight = call.gradient_buffer(self.weight)
            db, add_bias = call.gradient_buffer(self.bias)
        sums = call.buffer("sums", (len(bounds) - 1, 2 * self.features), np.float64)
        apart = joined or (rectified and gate.dtype != dy.dtype)
        dz = call.pooled("dz", (x.size,), dy.dtype) if apart else nothing
        given = flat(dy)
        epsilon = self.epsilon
        call.run(
            batch_norm.backward_sums,
            sums,
            dw,
            db,
            dz,
            given,
            gate if apart else nothing,
            x,
            moments,
            gain,
            bias,
            bounds,
            epsilon,
            rectified and not apart,
            add_weight,
            add_bias,
        )
        dx = None
        if not call.training:
            # The running statistics do not depend on x.
            sums = np.zeros((1, 2 * self.features))
        elif self.synchronized:
            sums = tree_sum(call.gather(sums))[np.newaxis]
        if call.wants(0):
            dx = (
                dz.reshape(dy.shape)
                if apart and not joined
                else call.pooled("dx", dy.shape, dy.dtype)
            )
            feedback = nothing if self.weight is None else call.feedback(self.weight)
            call.run(
                batch_norm.backward,
                dx.reshape(-1),
                dz if apart else given,
                x,
                moments,
                sums,
                gain,
                bias,
                feedback,
                feedback,
                bounds,
                epsilon,
                rectified and not apart,
            )
        return (dx, dz.reshape(dy.shape) if call.wants(1) else None) if joined else (dx,)

    def _gain_and_bias(self, like: Array) -> tuple[Array, Array]:
        nothing = empty(like, 1)
        return (
            nothing if self.weight is None else self.weight.value,
            nothing if self.bias is None else self.bias.value,
        )

    def _running_moments(self) -> Array:
        """Return the running statistics as the moments of one value."""
        return np.concatenate(([1.0], self.running_mean.value, self.running_variance.value))[
            np.newaxis
        ]

    def _batch_moments(self, call: ForwardCall, x: Array, bounds: Array, samples: int) -> Array:
        """Return the moments of each shard, or of the global batch in one row; and have the running
        statistics learn from them.
        """
        if call.samples(samples) == 0:
            fix = "Pass samples, or use a tape that is not training."
            raise ValueError(
                message(
                    self, "training needs the statistics of a batch", "a batch of 0 samples", fix
                )
            )
        moments = call.buffer("moments", (len(bounds) - 1, 1 + 2 * self.features), np.float64)
        call.run(batch_norm.statistics, moments, x, bounds)
        if not self.synchronized:
            self._refuse_single(
                moments,
                "each shard of the batch",
                "Use fewer shards, larger batches or synchronized=True.",
            )
            call.on_gathered(moments, self._learn)
            return moments
        total = _combined(call.gather(moments))
        self._refuse_single(total, "the batch", "Use larger batches.")
        call.on_gathered(total, self._learn, gathered=True)
        return total

    def _refuse_single(self, moments: Array, owner: str, fix: str) -> None:
        if 1 in moments[:, 0].tolist():
            must = f"in training {owner} must hold more than one value per channel"
            raise SingleValueError(message(self, must, "1 value, which has no variance", fix))

    def _learn(self, everywhere: Array) -> None:
        """Move the running statistics towards those of the global batch, given the moments of its
        shards.
        """
        moments = _combined(everywhere)
        count, mean, squares = moments[0, 0], *moments[:, 1:].reshape(2, -1)
        if count == 0:
            # A part without rows, of a batch whose other parts this tape does not know.
            return
        for state, new in (
            (self.running_mean, mean),
            (self.running_variance, squares / (count - 1)),
        ):
            state.value = (1 - self.momentum) * state.value.astype(np.float64) + self.momentum * new

    def _complex(self, call: ForwardCall, x: Array) -> Array:
        """Return y for a complex x: the complex step of the gradient check. Nothing is learned from
        it.
        """
        y = np.empty_like(x)
        axes = tuple(range(x.ndim - 1))
        mean, variance = self._running_moments()[0, 1:].reshape(2, -1)
        for start, stop in [(0, len(x))] if self.synchronized else pairwise(call.bounds(len(x))):
            part = x[start:stop]
            if call.training:
                mean = part.mean(axis=axes)
                variance = ((part - mean) ** 2).mean(axis=axes)
            y[start:stop] = (part - mean) / np.sqrt(variance + self.epsilon)
        return (
            y
            if self.weight is None or self.bias is None
            else y * self.weight.value + self.bias.value
        )


class BatchNorm2d(BatchNorm):
    """Batch normalisation of the channels of images (N, H, W, C); see `BatchNorm`."""

    _axes = ("N", "H", "W")
    _fix = "Images are channels-last; BatchNorm takes any (N, …, C)."


def _combined(moments: Array) -> Array:
    """Return the moments (1, 1 + 2 C) of all shards together."""
    if len(moments) == 1:
        return np.array(moments)
    features = moments.shape[1] // 2
    counts, means = moments[:, :1], moments[:, 1 : 1 + features]
    count = counts.sum()
    mean = tree_sum(counts * means) / max(count, 1)
    squares = tree_sum(moments[:, 1 + features :] + counts * (means - mean) ** 2)
    return np.concatenate(([count], mean, squares))[np.newaxis]
