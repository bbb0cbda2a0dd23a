"""The mistakes in losses."""

from typing import Any

import numpy as np

from layers.gradient_check.cases.case import BATCH, with_labels, with_targets
from layers.loss.classification import SoftmaxCrossEntropy
from layers.loss.regression import MeanSquaredError
from layers.types import Array

from .mutant import Gradients, Mutant, of

_ROWS = (BATCH, 5)
_IGNORING = with_labels(4, BATCH, 3)


class _HalvedSquaredError(MeanSquaredError):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, dt = super().backward(call, dy)
        return (None if dx is None else 0.5 * dx, None if dt is None else 0.5 * dt)


class _BatchSizeForgotten(SoftmaxCrossEntropy):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, dt = super().backward(call, dy)
        return (None if dx is None else dx * len(dx), dt)


class _SmoothingForgotten(SoftmaxCrossEntropy):
    def __init__(self) -> None:
        super().__init__(0.1)

    def backward(self, call: Any, dy: Array) -> Gradients:
        logits, labels = call.inputs[0].array, call.inputs[1]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return dy * (p - np.eye(logits.shape[1])[labels]) / len(logits), None


class _Mended(SoftmaxCrossEntropy):
    """The right one, whose gradient the mutants change."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, *rest = super().backward(call, dy)
        assert dx is not None
        return self.changed(dx, *call.inputs[1:]), *rest

    def changed(self, dx: Array, labels: Array) -> Array:
        return dx


class _OverAllPositions(_Mended):
    def changed(self, dx: Array, labels: Array) -> Array:
        return np.asarray(dx * np.mean(labels != self.ignore))


class _IgnoredLearns(_Mended):
    def changed(self, dx: Array, labels: Array) -> Array:
        return np.where((labels == self.ignore)[..., np.newaxis], 0.01, dx)


class _WeightsForgotten(_Mended):
    def forward(self, call: Any, logits: Array, targets: Any, weights: Any = None) -> Array:
        return super().forward(call, logits, targets, 1 + np.arange(len(logits)) % 2)

    def changed(self, dx: Array, labels: Array) -> Array:
        return np.asarray(dx / (1 + np.arange(len(dx)) % 2)[:, np.newaxis])


class _PerSample(_Mended):
    def changed(self, dx: Array, labels: Array) -> Array:
        counts = (labels != self.ignore).sum(axis=-1)
        return np.asarray(dx * (counts.mean() / np.maximum(counts, 1))[:, np.newaxis, np.newaxis])


MUTANTS = (
    Mutant("factor 2 forgotten", of(_HalvedSquaredError), with_targets(*_ROWS)),
    Mutant("1/N forgotten", of(_BatchSizeForgotten), with_labels(4, BATCH)),
    Mutant("label smoothing forgotten", of(_SmoothingForgotten), with_labels(4, BATCH)),
    Mutant(
        "gradient over all positions, ignored ones too", of(_OverAllPositions, 0.0, 2), _IGNORING
    ),
    Mutant("ignored positions learn", of(_IgnoredLearns, 0.0, 2), _IGNORING),
    Mutant(
        "weights of positions forgotten in the gradient",
        of(_WeightsForgotten),
        with_labels(4, BATCH),
    ),
    Mutant(
        "gradient of the mean over samples for that over positions",
        of(_PerSample, 0.0, 2),
        _IGNORING,
    ),
)
