"""The mistakes in losses."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layers.gradient_check.cases.case import (
    BATCH,
    Generator,
    distinct,
    positive,
    real,
    with_labels,
    with_targets,
)
from layers.loss.classification import MultiClassHinge, SoftmaxCrossEntropy
from layers.loss.ctc import CTC
from layers.loss.regression import (
    BinaryCrossEntropy,
    GaussianNLL,
    Hinge,
    Huber,
    MeanSquaredError,
    PoissonNLL,
)
from layers.loss.similarity import CosineDistance, CosineEmbedding
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


class _Unbounded(Huber):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, t = (value.array for value in call.inputs)
        dx = dy * (x - t) / x.size
        return dx, -dx


class _UnweightedError(MeanSquaredError):
    """Averages by the weights 1, 2, …, of which the gradient knows nothing."""

    def forward(self, call: Any, prediction: Array, target: Any, weights: Any = None) -> Array:
        return super().forward(call, prediction, target, 1 + np.arange(len(prediction)))

    def backward(self, call: Any, dy: Array) -> Gradients:
        x, t = (value.array for value in call.inputs)
        dx = dy * 2 * (x - t) / x.size
        return dx, -dx


class _PositivesAlike(BinaryCrossEntropy):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, t = call.inputs[0].array, call.inputs[1]
        return dy * (1 / (1 + np.exp(-x)) - t) / x.size, None


class _ClassesAlike(SoftmaxCrossEntropy):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, labels = call.inputs[0].array, call.inputs[1]
        p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
        return dy * (p - np.eye(x.shape[1])[labels]) / len(x), None


class _LabelForgotten(MultiClassHinge):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, *rest = super().backward(call, dy)
        assert dx is not None
        return np.maximum(dx, 0), *rest


class _WithinMargin(Hinge):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, t = call.inputs[0].array, call.inputs[1]
        return np.where(x * t < 0, -t, 0) * dy / x.size, None


class _RateForgotten(PoissonNLL):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, t = call.inputs[0].array, call.inputs[1]
        return dy * (x - t) / x.size, None


class _VarianceHalved(GaussianNLL):
    def backward(self, call: Any, dy: Array) -> Gradients:
        dx, dv, *rest = super().backward(call, dy)
        assert dv is not None
        return dx, dv / 2, *rest


class _NormConstant(CosineDistance):
    def backward(self, call: Any, dy: Array) -> Gradients:
        x, t = (value.array for value in call.inputs)
        norms = [np.linalg.norm(a, axis=-1, keepdims=True) for a in (x, t)]
        scale = dy / (norms[0] * norms[1]) / len(x)
        return -t * scale, -x * scale


class _AlikeOnly(CosineEmbedding):
    def backward(self, call: Any, dy: Array) -> Gradients:
        da, db, *rest = super().backward(call, dy)
        alike = (call.inputs[2] == 1)[:, np.newaxis]
        assert da is not None
        assert db is not None
        return np.where(alike, da, 0), np.where(alike, db, 0), *rest


class _EveryFrameAlike(CTC):
    """Has each label spread evenly over the frames."""

    def backward(self, call: Any, dy: Array) -> Gradients:
        x, labels = call.inputs[0].array, call.inputs[2]
        p = np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)
        there = np.eye(x.shape[2])[labels].sum(axis=1) / x.shape[1]
        there[:, 0] = 1 - there.sum(axis=1)
        return (p - there[:, np.newaxis]) * dy / len(x), None, None, None


def _pairs(rng: Generator) -> tuple[Array, ...]:
    a, b = real(_ROWS, _ROWS)(rng)
    return a, b, np.resize((1, -1), BATCH)


def _with_integers(*numbers: int) -> Callable[[Generator], tuple[Array, ...]]:
    """Draw predictions above 0, and targets among these numbers, which have no gradient."""
    return lambda rng: (*positive(_ROWS)(rng), rng.choice(numbers, _ROWS))


MUTANTS = (
    Mutant("factor 2 forgotten", of(_HalvedSquaredError), with_targets(*_ROWS)),
    Mutant("Huber's gradient without its bound", of(_Unbounded, 0.5), distinct(_ROWS, _ROWS)),
    Mutant(
        "weights of samples forgotten in the gradient",
        of(_UnweightedError),
        real(_ROWS, _ROWS),
    ),
    Mutant("pos_weight forgotten in the gradient", of(_PositivesAlike, 3.0), _with_integers(0, 1)),
    Mutant(
        "class weights forgotten in the gradient",
        of(_ClassesAlike, 0.0, None, (1, 5, 0.2, 2)),
        with_labels(4, BATCH),
    ),
    Mutant("label without a gradient in the hinge", of(_LabelForgotten), with_labels(4, BATCH)),
    Mutant("hinge at 0 for that at 1", of(_WithinMargin), _with_integers(-1, 1)),
    Mutant("rate for its logarithm", of(_RateForgotten), _with_integers(0, 1, 2)),
    Mutant(
        "factor 1/2 of the variance twice",
        of(_VarianceHalved),
        lambda rng: (*real(_ROWS)(rng), *_with_integers(0, 1, 2)(rng)),
    ),
    Mutant("norms as constants in a cosine", of(_NormConstant), real(_ROWS, _ROWS)),
    Mutant("pairs that shall differ forgotten", of(_AlikeOnly), _pairs),
    Mutant(
        "labels spread evenly over the frames",
        of(_EveryFrameAlike),
        lambda rng: (rng.standard_normal((BATCH, 5, 4)), rng.integers(1, 4, (BATCH, 2))),
    ),
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
