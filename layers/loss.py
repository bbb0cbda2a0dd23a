"""Losses. A loss is the sum over samples divided once by the number of samples of the global
batch.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import fraction, require_floating
from .engine.fixed_tree import tree_sum
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import empty, flat, matrix
from .errors import message
from .kernels import reduce, regression, softmax
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


_TOTALS = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}
"""The types that losses are summed in, for floating and complex ones."""


class Loss(Layer):
    """Base of losses. A sample may have several positions (N, …); its loss is their mean.

    The kernel of a loss writes the gradient of the prediction too, for a gradient 1 of the loss.
    The recorded `Value` has, besides the loss, `shard_sums` (S,): the sum over each shard's samples
    before division, in float64, of which the loss of the global batch is made.
    """

    analytic = True

    def buffers(
        self, call: ForwardCall, positions: int, samples: int, x: Array, terms: int = 1
    ) -> tuple[Array, Array, float, Array]:
        """Return what all kernels of losses take: sums (S,), dx like x, the scale of dx, and bounds
        (S + 1,).

        The scale is 1 over the samples of the global batch, the positions of each, and the `terms`
        that the kernel averages.
        """
        bounds = call.bounds(positions)
        sums = call.buffer("sums", (len(bounds) - 1,), _TOTALS[x.dtype.kind])
        per_sample = positions // samples if samples else 1
        scale = 1 / ((call.samples(samples) or 1) * per_sample * terms)
        return sums, call.buffer("dx", x.shape, x.dtype), scale, bounds

    def mean(self, call: ForwardCall, sums: Array, positions: int, samples: int) -> Any:
        """Report the sums over all positions of each shard's samples, and return the loss."""
        if positions > samples:
            sums *= samples / positions
        call.report(sums)
        total = sums.item() if len(sums) == 1 else tree_sum(sums).item()
        return total / (call.samples(samples) or 1)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (dx,) = call.saved
        if any(map(call.wants, range(1, len(call.inputs)))):
            fix = "Pass an array, or call .detach() on it."
            raise ValueError(
                message(
                    self, "the targets must be constants", "a value that is differentiated", fix
                )
            )
        return self.scaled(call, dx, dy), *[None] * (len(call.inputs) - 1)

    def scaled(self, call: "Call", dx: Array, dy: Array) -> Array:
        """Return dx times the gradient dy of the loss."""
        return (
            dx
            if dy.item() == 1
            else np.multiply(dx, dy, out=call.buffer("scaled", dx.shape, dx.dtype))
        )


class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(logits): -Σ_j t_j log softmax(x)_j. Backward: dx = softmax(x) - t,
    over the samples.

    Parameters
    ----------
    label_smoothing
        ε in [0, 1): the targets become (1 - ε) t + ε / C (Szegedy et al. 2016, section 7).
    ignore
        A label, such as -1, of positions that count for nothing.

    Notes
    -----
    Called with logits (N, …, C) and either integer labels (N, …) or target probabilities (N, …, C),
    and, if wanted, with `weights` (N, …) of the positions, at least 0. Targets and weights are
    constants.

    With `ignore` or `weights` the loss is Σ w_i loss_i / Σ w_i over all positions of the *global*
    batch (w is 0 where ignored, 1 unless given), and dx = w (softmax(x) - t) / Σ w: a mean over
    what counts, however that is spread over samples, shards and ranks. The ranks exchange the sums
    of their shards' weights for this. It is 0 if nothing counts.
    """

    def __init__(self, label_smoothing: float = 0.0, ignore: int | None = None) -> None:
        name = "SoftmaxCrossEntropy"
        if ignore is not None and not isinstance(ignore, int | np.integer):
            raise ValueError(
                message(name, "ignore must be a label or None", repr(ignore), "-1 is usual.")
            )
        self.label_smoothing = fraction(name, "label_smoothing", label_smoothing, "0.1 is usual.")
        self.ignore = None if ignore is None else int(ignore)

    def __repr__(self) -> str:
        smoothing = [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        ignore = [] if self.ignore is None else [f"ignore={self.ignore}"]
        return f"SoftmaxCrossEntropy({', '.join(smoothing + ignore)})"

    def forward(self, call: ForwardCall, logits: Array, targets: Any, weights: Any = None) -> Array:
        require_floating(self, logits)
        targets = np.asarray(targets)
        soft = targets.shape == logits.shape
        if logits.ndim < 2 or not (soft or targets.shape == logits.shape[:-1]):
            must = (
                f"targets must be labels {logits.shape[:-1]} or probabilities {logits.shape} for"
                f" logits {logits.shape}"
            )
            raise ValueError(
                message(self, must, targets.shape, "Flatten labels of shape (N, 1) with y[:, 0].")
            )
        x = matrix(logits)
        samples = len(logits)
        sums, dx, scale, bounds = self.buffers(call, len(x), samples, x)
        labels = None if soft else self._labels(targets)
        counts = self._weights(call, weights, labels, logits)
        # Asked of the options, not of the rows: a rank without samples takes part in the exchange,
        # too.
        weighted = weights is not None or self.ignore is not None
        if weighted:
            total = self._total(call, counts, bounds)
            scale = 1 / total if total else 0.0
        if labels is None:
            softmax.soft_cross_entropy(
                sums, dx, x, self._probabilities(targets, x), counts, scale, bounds
            )
        else:
            softmax.cross_entropy(sums, dx, x, labels, counts, self.label_smoothing, scale, bounds)
        if weighted:
            # In units of the mean over samples, as which the sums of shards are read.
            sums *= scale * call.samples(samples)
            loss = self.mean(call, sums, samples, samples)
            call.report(sums, total)
        else:
            loss = self.mean(call, sums, len(x), samples)
        if loss != loss and labels is not None:
            # NaN: the logits may hold it, or the kernel met a label that is no class.
            self._require_classes(labels, counts, x.shape[1])
        call.save(dx if logits.ndim == 2 else dx.reshape(logits.shape))
        return np.array(loss, x.dtype)

    def _weights(
        self, call: ForwardCall, weights: Any, labels: Array | None, logits: Array
    ) -> Array:
        """Return the weight of each row, empty if all are 1."""
        if weights is None and self.ignore is None:
            return empty(logits.real, 1)
        real = logits.real.dtype
        if weights is None:
            counts = call.buffer(
                "weights", (logits.size // logits.shape[-1] if logits.shape[-1] else 0,), real
            )
            counts[:] = 1
        else:
            weights = np.asarray(weights)
            if weights.shape != logits.shape[:-1] or not np.all(weights >= 0):
                got = weights.shape if weights.shape != logits.shape[:-1] else f"{weights.min()}"
                fix = "Give each label a weight; 0 leaves it out."
                raise ValueError(
                    message(
                        self,
                        f"weights must be of shape {logits.shape[:-1]} and at least 0",
                        got,
                        fix,
                    )
                )
            counts = np.array(weights, real).reshape(-1)
        if self.ignore is not None:
            if labels is None:
                fix = "Give positions that shall not count the weight 0."
                raise ValueError(
                    message(
                        self, "targets must be labels where one is ignored", "probabilities", fix
                    )
                )
            counts[labels == self.ignore] = 0
        return counts

    def _total(self, call: ForwardCall, counts: Array, bounds: Array) -> float:
        """Return the sum of the weights over the global batch."""
        of_shards = np.empty((len(bounds) - 1, 1))
        reduce.column_sums(of_shards, counts[:, np.newaxis], bounds, False)
        return float(tree_sum(call.gather(of_shards)).item())

    def _labels(self, labels: Array) -> Array:
        if labels.dtype.kind not in "iu":
            fix = "Convert them with y.astype(np.int64)."
            raise TypeError(
                message(
                    self,
                    "labels must be integers (probabilities have one more axis)",
                    labels.dtype,
                    fix,
                )
            )
        return flat(labels if labels.dtype == np.int64 else labels.astype(np.int64))

    def _require_classes(self, labels: Array, counts: Array, classes: int) -> None:
        outside = np.flatnonzero(
            ((labels < 0) | (labels >= classes)) & ((counts > 0) if counts.size else True)
        )
        if outside.size:
            fix = "Number the classes from 0, and give the last layer one output per class."
            got = f"{labels[outside[0]]} in row {outside[0]}"
            raise ValueError(
                message(self, f"labels must be in 0..{classes - 1} for {classes} logits", got, fix)
            )

    def _probabilities(self, targets: Array, x: Array) -> Array:
        targets = matrix(targets.astype(x.real.dtype, copy=False))
        if self.label_smoothing:
            targets = (
                (1 - self.label_smoothing) * targets + self.label_smoothing / x.shape[1]
            ).astype(targets.dtype)
        return targets


class _Regression(Loss):
    """A loss that compares predictions with targets of the same shape, element by element; a
    sample's loss is their mean.
    """

    kernel: Any

    def forward(self, call: ForwardCall, prediction: Array, target: Any) -> Array:
        require_floating(self, prediction)
        target = np.asarray(target)
        if target.shape != prediction.shape or prediction.ndim < 1:
            fix = (
                "Give both a trailing axis: y[:, np.newaxis]."
                if target.ndim + 1 == prediction.ndim
                else "Reshape one of them."
            )
            raise ValueError(
                message(
                    self,
                    f"targets must have the shape of the predictions, {prediction.shape}",
                    target.shape,
                    fix,
                )
            )
        samples = len(prediction)
        x = flat(prediction)
        t = flat(target.astype(x.dtype, copy=False))
        terms = x.size // samples if samples else 1
        sums, dx, scale, bounds = self.buffers(call, samples, samples, x, terms)
        self.kernel(sums, dx, x, t, scale, bounds)
        call.save(dx.reshape(prediction.shape), x.reshape(prediction.shape), scale)
        return np.array(self.mean(call, sums, samples, samples), x.dtype)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        dx, x, scale = call.saved
        dx = self.scaled(call, dx, dy)
        return dx, self.target_gradient(dx, dy * scale * x) if call.wants(1) else None

    def target_gradient(self, dx: Array, scaled_prediction: Array) -> Array:
        """Return the gradient of the targets, given that of the prediction and the prediction over
        the elements.
        """
        raise NotImplementedError


class MeanSquaredError(_Regression):
    """Mean over elements of (x - t)². Backward: dx = 2 (x - t) / elements, dt = -dx."""

    kernel = staticmethod(regression.squared_error)

    def target_gradient(self, dx: Array, scaled_prediction: Array) -> Array:
        return -dx


class BinaryCrossEntropy(_Regression):
    """Mean over elements of -t log s(x) - (1 - t) log(1 - s(x)), s the logistic function, from
    logits x and targets t in [0, 1].

    Computed as max(x, 0) - x t + log(1 + e^-|x|), which does not overflow. Backward: dx = (s(x) -
    t) / elements, dt = -x / elements.
    """

    kernel = staticmethod(regression.binary_cross_entropy)

    def forward(self, call: ForwardCall, prediction: Array, target: Any) -> Array:
        target = np.asarray(target)
        if (
            target.size
            and target.dtype.kind != "c"
            and not (target.min() >= 0 and target.max() <= 1)
        ):
            fix = "Encode the two classes as 0 and 1."
            raise ValueError(
                message(self, "targets must be in [0, 1]", f"{target.min()} to {target.max()}", fix)
            )
        return super().forward(call, prediction, target)

    def target_gradient(self, dx: Array, scaled_prediction: Array) -> Array:
        return -scaled_prediction
