"""Losses. A loss is the sum over samples divided once by the number of samples of the global batch."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import message, require_floating
from .kernels import regression, softmax
from .layer import Layer
from .memory import flat, matrix
from .types import Array

if TYPE_CHECKING:
    from .tape import Call


class Loss(Layer):
    """Base of losses. A sample may have several positions (N, …); its loss is their mean.

    The recorded `Value` has, besides the loss, `shard_sums` (S,): the sum over each shard's samples before division, in float64,
    of which the loss of the global batch is made.
    """

    analytic = True

    def shard_buffer(self, call: "Call", positions: int, dtype: Any) -> tuple[Array, Array]:
        """Return room for the sums of each shard's losses (S,), and the bounds of the shards in the positions (S + 1,)."""
        bounds = call.bounds(positions)
        return call.buffer("sums", (len(bounds) - 1,), np.complex128 if dtype.kind == "c" else np.float64), bounds

    def finish(self, call: "Call", sums: Array, positions: int, samples: int, dtype: Any) -> Array:
        """Return the loss (no axes), given the sums over all positions of each shard's samples."""
        if positions > samples:
            sums *= samples / positions
        call.report(sums)
        total = sums.item() if len(sums) == 1 else sums.sum()
        return np.array(total / (call.samples(samples) or 1), dtype)

    def scale(self, call: "Call", dy: Array, positions: int, samples: int) -> Any:
        """Return the gradient of one position's loss: dy over the samples of the global batch and the positions of each."""
        per_sample = positions // samples if samples else 1
        return dy.dtype.type(dy.item() / ((call.samples(samples) or 1) * per_sample))


class SoftmaxCrossEntropy(Loss):
    """Cross-entropy of softmax(logits): -Σ_j t_j log softmax(x)_j. Backward: dx = softmax(x) - t, over the samples.

    Parameters
    ----------
    label_smoothing
        ε in [0, 1): the targets become (1 - ε) t + ε / C (Szegedy et al. 2016, section 7).

    Called with logits (N, …, C) and either integer labels (N, …) or target probabilities (N, …, C), which are constants.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(message("SoftmaxCrossEntropy", "label_smoothing must be in [0, 1)", label_smoothing, "0.1 is usual."))
        self.label_smoothing = float(label_smoothing)

    def __repr__(self) -> str:
        return f"SoftmaxCrossEntropy({f'label_smoothing={self.label_smoothing}' if self.label_smoothing else ''})"

    def forward(self, call: "Call", logits: Array, targets: Any) -> Array:
        require_floating(self, logits)
        targets = np.asarray(targets)
        soft = targets.shape == logits.shape
        if logits.ndim < 2 or not (soft or targets.shape == logits.shape[:-1]):
            must = f"targets must be labels {logits.shape[:-1]} or probabilities {logits.shape} for logits {logits.shape}"
            raise ValueError(message(self, must, targets.shape, "Flatten labels of shape (N, 1) with y[:, 0]."))
        rows = matrix(logits)
        count, dtype = len(rows), rows.dtype
        p = call.buffer("p", rows.shape, dtype)
        losses = call.buffer("losses", (count,), dtype)
        sums, bounds = self.shard_buffer(call, count, dtype)
        if soft:
            targets = self._probabilities(targets, rows)
            softmax.soft_cross_entropy(sums, losses, p, rows, targets, bounds)
        else:
            targets = self._labels(targets)
            invalid = call.buffer("invalid", (1,), np.int64)
            softmax.cross_entropy(sums, losses, p, invalid, rows, targets, self.label_smoothing, bounds)
            if invalid.item():
                row = invalid.item() - 1
                fix = "Number the classes from 0, and give the last layer one output per class."
                got = f"{targets[row]} in row {row}"
                raise ValueError(message(self, f"labels must be in 0..{rows.shape[1] - 1} for {rows.shape[1]} logits", got, fix))
        call.save(p, targets, len(logits), logits.shape)
        return self.finish(call, sums, count, len(logits), dtype)

    def _labels(self, labels: Array) -> Array:
        if labels.dtype.kind not in "iu":
            fix = "Convert them with y.astype(np.int64)."
            raise TypeError(message(self, "labels must be integers (probabilities have one more axis)", labels.dtype, fix))
        return flat(labels if labels.dtype == np.int64 else labels.astype(np.int64))

    def _probabilities(self, targets: Array, rows: Array) -> Array:
        targets = matrix(np.asarray(targets, rows.real.dtype))
        if self.label_smoothing:
            targets = (1 - self.label_smoothing) * targets + self.label_smoothing / rows.shape[1]
        return targets.astype(rows.real.dtype, copy=False)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        p, targets, samples, shape = call.saved
        dx = call.buffer("dx", p.shape, p.dtype)
        scale = self.scale(call, dy, len(p), samples)
        if targets.ndim == 2:
            softmax.soft_cross_entropy_backward(dx, p, targets, scale)
        else:
            softmax.cross_entropy_backward(dx, p, targets, dx.dtype.type(self.label_smoothing), scale)
        return dx if len(shape) == 2 else dx.reshape(shape), None


class _Regression(Loss):
    """A loss that compares predictions with targets of the same shape, element by element; a sample's loss is their mean."""

    forward_kernel: Any
    backward_kernel: Any

    def forward(self, call: "Call", prediction: Array, target: Any) -> Array:
        require_floating(self, prediction)
        target = np.asarray(target)
        if target.shape != prediction.shape or prediction.ndim < 1:
            fix = "Give both a trailing axis: y[:, np.newaxis]." if target.ndim + 1 == prediction.ndim else "Reshape one of them."
            raise ValueError(
                message(self, f"targets must have the shape of the predictions, {prediction.shape}", target.shape, fix)
            )
        samples = len(prediction)
        x = flat(prediction)
        t = flat(np.asarray(target, prediction.dtype))
        losses = call.buffer("losses", (samples,), prediction.dtype)
        sums, bounds = self.shard_buffer(call, samples, prediction.dtype)
        self.forward_kernel(sums, losses, x, t, bounds)
        call.save(x, t)
        return self.finish(call, sums, samples, samples, prediction.dtype)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, t = call.saved
        shape = call.inputs[0].shape
        dx = call.buffer("dx", shape, x.dtype)
        scale = self.scale(call, dy, x.size, shape[0])
        self.backward_kernel(dx.reshape(-1), x, t, scale)
        return dx, self.target_gradient(call, dx, x, scale)

    def target_gradient(self, call: "Call", dx: Array, x: Array, scale: Any) -> Array | None:
        """Return the gradient of the target, if somebody wants it."""
        raise NotImplementedError


class MeanSquaredError(_Regression):
    """Mean over elements of (x - t)². Backward: dx = 2 (x - t) / elements, dt = -dx."""

    forward_kernel = staticmethod(regression.squared_error)
    backward_kernel = staticmethod(regression.squared_error_backward)

    def target_gradient(self, call: "Call", dx: Array, x: Array, scale: Any) -> Array | None:
        return -dx if call.wants(1) else None


class BinaryCrossEntropy(_Regression):
    """Mean over elements of -t log s(x) - (1 - t) log(1 - s(x)), s the logistic function, from logits x and targets t in [0, 1].

    Computed as max(x, 0) - x t + log(1 + e^-|x|), which does not overflow. Backward: dx = (s(x) - t) / elements,
    dt = -x / elements.
    """

    forward_kernel = staticmethod(regression.binary_cross_entropy)
    backward_kernel = staticmethod(regression.binary_cross_entropy_backward)

    def forward(self, call: "Call", prediction: Array, target: Any) -> Array:
        target = np.asarray(target)
        if target.size and target.dtype.kind != "c" and not (target.min() >= 0 and target.max() <= 1):
            fix = "Encode the two classes as 0 and 1."
            raise ValueError(message(self, "targets must be in [0, 1]", f"{target.min()} to {target.max()}", fix))
        return super().forward(call, prediction, target)

    def target_gradient(self, call: "Call", dx: Array, x: Array, scale: Any) -> Array | None:
        return (-scale * x).reshape(dx.shape) if call.wants(1) else None
