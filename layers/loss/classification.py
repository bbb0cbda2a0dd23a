"""Losses that compare logits with classes."""

from typing import Any

import numpy as np

from layers.checks import fraction, numbers, positive, require_floating
from layers.engine.forward_call import ForwardCall
from layers.engine.memory import empty, flat, matrix
from layers.errors import message
from layers.kernels import margin, softmax
from layers.types import Array

from .base import Loss, RowLoss, is_nan


class _OfClasses(Loss):
    """A loss of logits (N, …, C)."""

    def labels(self, labels: Array) -> Array:
        """Return integer labels as (R,)."""
        if labels.dtype.kind not in "iu":
            must = "labels must be integers (probabilities have one more axis)"
            raise TypeError(
                message(self, must, labels.dtype, "Convert them with y.astype(np.int64).")
            )
        return flat(labels if labels.dtype == np.int64 else labels.astype(np.int64))

    def require_classes(self, labels: Array, weights: Array, classes: int) -> None:
        """Refuse labels that are no classes, where they count."""
        outside = np.flatnonzero(
            ((labels < 0) | (labels >= classes)) & ((weights > 0) if weights.size else True)
        )
        if outside.size:
            fix = "Number the classes from 0, and give the last layer one output per class."
            got = f"{labels[outside[0]]} in row {outside[0]}"
            raise ValueError(
                message(self, f"labels must be in 0..{classes - 1} for {classes} logits", got, fix)
            )

    def require_several(self, logits: Array) -> None:
        """Refuse logits of a single class, whose probability is 1 whatever they are."""
        require_floating(self, logits)
        if logits.shape[-1:] == (1,):
            must, fix = (
                "logits must be of two classes or more",
                "Use BinaryCrossEntropy() for one column, with targets of the same shape.",
            )
            raise ValueError(message(self, must, logits.shape, fix))

    def probabilities(self, targets: Array, x: Array) -> Array:
        """Return target probabilities as (R, C)."""
        if targets.dtype.kind not in "fc":
            must = "targets of the shape of the logits must be probabilities, of a floating type"
            fix = "Convert one-hot rows with y.astype(np.float32); labels have one axis less."
            raise TypeError(message(self, must, targets.dtype, fix))
        return matrix(targets.astype(x.real.dtype, copy=False))

    def require_probabilities(self, targets: Array, weights: Array) -> None:
        """Refuse rows (R, C) that are no probabilities, where they count."""
        sums = targets.sum(axis=1)
        wrong = ~((targets >= 0).all(axis=1) & (np.abs(sums - 1) <= softmax.TOLERANCE))
        if weights.size:
            wrong &= weights > 0
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            must = "target probabilities must be at least 0 and sum to 1"
            got = f"{targets[row].min():g} at least and a sum of {sums[row]:g} in row {row}"
            fix = "Divide each row by its sum; BinaryCrossEntropy() is for several true classes."
            raise ValueError(message(self, must, got, fix))


class SoftmaxCrossEntropy(_OfClasses):
    """Cross-entropy of softmax(logits): -Σ_j c_j t_j log softmax(x)_j. Backward: dx = softmax(x)
    Σ_j c_j t_j - c t, over the samples. The class weights c are 1 unless given.

    Parameters
    ----------
    label_smoothing
        ε in [0, 1): the targets become (1 - ε) t + ε / C (Szegedy et al. 2016, section 7).
    ignore
        A label, such as -1, of positions that count for nothing.
    class_weights
        c (C,), how much each class counts, such as the inverse of how often it comes. With labels
        the loss is then over Σ c of the labels, as with weights.

    Notes
    -----
    Called with logits (N, …, C) and either integer labels (N, …) or target probabilities (N, …, C),
    floating and with sums of 1, and, if wanted, with weights (N,) or (N, …): see `Loss`.

    `ignore`, and `class_weights` of labels, are weights, too: 0 where ignored. The loss is Σ w_i
    loss_i / Σ w_i, over all positions of the global batch, and dx = w (softmax(x) - t) / Σ w.
    """

    replayable = True

    def __init__(
        self, label_smoothing: float = 0.0, ignore: int | None = None, class_weights: Any = None
    ) -> None:
        name = "SoftmaxCrossEntropy"
        if ignore is not None and not isinstance(ignore, int | np.integer):
            raise ValueError(
                message(name, "ignore must be a label or None", repr(ignore), "-1 is usual.")
            )
        self.label_smoothing = fraction(name, "label_smoothing", label_smoothing, "0.1 is usual.")
        self.ignore = None if ignore is None else int(ignore)
        self.class_weights: Array | None = None
        if class_weights is not None:
            given = numbers(name, "class_weights", class_weights)
            if given.ndim != 1 or not (given.size and given.min() >= 0 and given.max() < np.inf):
                must = "class_weights must be numbers (C,), finite and at least 0"
                fix = "Pass one for each class."
                raise ValueError(message(name, must, repr(class_weights), fix))
            self.class_weights = given

    def __repr__(self) -> str:
        options = [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        options += [] if self.ignore is None else [f"ignore={self.ignore}"]
        if self.class_weights is not None:
            options.append(f"class_weights={self.class_weights.tolist()}")
        return f"SoftmaxCrossEntropy({', '.join(options)})"

    def forward(self, call: ForwardCall, logits: Array, targets: Any, weights: Any = None) -> Array:
        self.require_several(logits)
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
        nothing = empty(x.real, 1)
        of_classes = nothing if self.class_weights is None else self._class_weights(x)
        labels = None if soft else self.labels(targets)
        given = None
        if weights is not None or self.ignore is not None:
            given = self._weights(call, weights, labels, logits)
        # What is left out of the mean, and what the losses of rows are multiplied by.
        counted = given
        if labels is not None and of_classes.size:
            counted = call.buffer("counted", labels.shape, x.real.dtype)
            np.take(of_classes, labels, out=counted, mode="clip")
            if given is not None:
                counted *= given
        by_row = labels is not None and not (of_classes.size and self.label_smoothing)
        average = self.average(
            call, len(x), len(logits), x, counted if by_row else given, counted=counted
        )
        dx = call.buffer("dx", x.shape, x.dtype)
        sums, row_weights, scale, bounds = average[:4]
        if labels is not None and by_row:
            smoothing = self.label_smoothing
            call.run(
                softmax.cross_entropy, sums, dx, x, labels, row_weights, smoothing, scale, bounds
            )
        else:
            if labels is None:
                t = self.probabilities(targets, x)
            else:
                self.require_classes(labels, row_weights, x.shape[1])
                t = call.buffer("targets", x.shape, x.real.dtype)
                t[...] = 0
                np.put_along_axis(t, np.maximum(labels, 0)[:, np.newaxis], 1, axis=1)
            softmax.soft_cross_entropy(
                sums, dx, x, self._smooth(t), of_classes, row_weights, False, scale, bounds
            )
        loss = self.mean(call, average, len(logits), x.dtype)
        if is_nan(loss):
            # NaN: the logits may hold it, or the kernel met a label that is no class, or what are
            # no probabilities.
            if labels is not None:
                self.require_classes(labels, row_weights, x.shape[1])
            else:
                self.require_probabilities(t, row_weights)
        call.save(dx if logits.ndim == 2 else dx.reshape(logits.shape))
        return loss

    def _weights(
        self, call: ForwardCall, weights: Any, labels: Array | None, logits: Array
    ) -> Array | None:
        """Return the weight of each row that is given, 0 where it is ignored."""
        counts = self.row_weights(call, weights, logits.shape[:-1], logits)
        if self.ignore is None:
            return counts
        if labels is None:
            must, fix = (
                "targets must be labels where one is ignored",
                "Give positions that shall not count the weight 0.",
            )
            raise ValueError(message(self, must, "probabilities", fix))
        if counts is None:
            counts = call.buffer("weights", labels.shape, logits.real.dtype)
            counts[:] = 1
        counts[labels == self.ignore] = 0
        return counts

    def _class_weights(self, x: Array) -> Array:
        """Return the weights of classes in the type of the logits."""
        assert self.class_weights is not None
        if len(self.class_weights) != x.shape[1]:
            must = f"logits must be of {len(self.class_weights)} classes, as class_weights are"
            raise ValueError(message(self, must, x.shape[1], "Pass a weight for each class."))
        return self.class_weights.astype(x.real.dtype)

    def _smooth(self, targets: Array) -> Array:
        if not self.label_smoothing:
            return targets
        smoothed = (1 - self.label_smoothing) * targets + self.label_smoothing / targets.shape[1]
        return np.asarray(smoothed, targets.dtype)


class KLDivergence(_OfClasses):
    """Kullback-Leibler divergence of softmax(logits) from target probabilities: Σ_j t_j (log t_j -
    log softmax(x)_j). Backward: dx = softmax(x) - t, over the samples.

    Called with logits and probabilities (N, …, C): the cross-entropy less the entropy of the
    targets, which is 0 where they agree. Kullback and Leibler, "On information and sufficiency",
    Annals of Mathematical Statistics 22(1), 1951.
    """

    def __repr__(self) -> str:
        return "KLDivergence()"

    def forward(self, call: ForwardCall, logits: Array, targets: Any, weights: Any = None) -> Array:
        self.require_several(logits)
        targets = np.asarray(targets)
        if logits.ndim < 2 or targets.shape != logits.shape:
            must = f"targets must be probabilities of the shape of the logits, {logits.shape}"
            raise ValueError(
                message(self, must, targets.shape, "SoftmaxCrossEntropy() takes labels.")
            )
        x = matrix(logits)
        t = self.probabilities(targets, x)
        counts = self.row_weights(call, weights, logits.shape[:-1], logits)
        average = self.average(call, len(x), len(logits), x, counts)
        dx = call.buffer("dx", x.shape, x.dtype)
        sums, row_weights, scale, bounds = average[:4]
        softmax.soft_cross_entropy(
            sums, dx, x, t, empty(x.real, 1), row_weights, True, scale, bounds
        )
        loss = self.mean(call, average, len(logits), x.dtype)
        if is_nan(loss):
            self.require_probabilities(t, row_weights)
        call.save(dx.reshape(logits.shape))
        return loss


class MultiClassHinge(_OfClasses, RowLoss):
    """Σ over j ≠ y of max(0, m - x_y + x_j) / C for logits x and the label y. Backward: dx_j = 1 /
    C where that is positive, dx_y = minus their sum, over the samples.

    Called with logits (N, …, C) and integer labels (N, …). Weston and Watkins, "Support vector
    machines for multi-class pattern recognition", ESANN 1999.

    Parameters
    ----------
    margin
        m, by which the logit of the label shall be the greatest.
    """

    analytic = False

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = positive("MultiClassHinge", "margin", margin, "1.0 is usual.", finite=True)

    def __repr__(self) -> str:
        return f"MultiClassHinge(margin={self.margin})"

    def forward(self, call: ForwardCall, logits: Array, targets: Any, weights: Any = None) -> Array:
        self.require_several(logits)
        targets = np.asarray(targets)
        if logits.ndim < 2 or targets.shape != logits.shape[:-1]:
            must = f"targets must be labels {logits.shape[:-1]} for logits {logits.shape}"
            raise ValueError(
                message(self, must, targets.shape, "Flatten labels of shape (N, 1) with y[:, 0].")
            )
        x, labels = matrix(logits), self.labels(targets)
        counts = self.row_weights(call, weights, targets.shape, logits)
        losses, dx = (
            call.buffer("losses", (len(x), 1), x.dtype),
            call.buffer("dx", x.shape, x.dtype),
        )
        margin.multi_class_hinge(losses[:, 0], dx, x, labels, self.margin)
        loss = self.of_rows(call, losses, (dx.reshape(logits.shape),), len(logits), counts)
        if is_nan(loss):
            self.require_classes(labels, empty(x, 1) if counts is None else counts, x.shape[1])
        return loss
