"""Metrics: functions (prediction, target) that return one number per sample; reported as their mean over samples."""

from collections.abc import Callable

import numpy as np

from layers import BinaryCrossEntropy, SoftmaxCrossEntropy
from layers.types import Array

Metric = Callable[[Array, Array], Array]


def accuracy(prediction: Array, target: Array) -> Array:
    """Return per sample the fraction of positions where the greatest logit is that of the label (or of the greatest target)."""
    labels = target.argmax(axis=-1) if target.ndim == prediction.ndim else target
    hits = prediction.argmax(axis=-1) == labels
    return np.asarray(hits.reshape(len(hits), -1).mean(axis=1))


def binary_accuracy(prediction: Array, target: Array) -> Array:
    """Return per sample the fraction of outputs where logit > 0 agrees with target > 1/2."""
    hits = (prediction > 0) == (target > 0.5)
    return np.asarray(hits.reshape(len(hits), -1).mean(axis=1))


def mean_absolute_error(prediction: Array, target: Array) -> Array:
    """Return per sample the mean |prediction - target|."""
    return np.asarray(np.abs(prediction - target).reshape(len(prediction), -1).mean(axis=1))


def default_metrics(loss: object) -> dict[str, Metric]:
    """Return the metrics that go with a loss: accuracy for classification, none otherwise."""
    if isinstance(loss, SoftmaxCrossEntropy):
        return {"accuracy": accuracy}
    if isinstance(loss, BinaryCrossEntropy):
        return {"accuracy": binary_accuracy}
    return {}
