"""Metrics: functions (prediction, target) that return one number per sample; reported as their mean
over samples.
"""

import math
from collections.abc import Callable

import numpy as np

from layers import BinaryCrossEntropy, SoftmaxCrossEntropy
from layers.types import Array

Metric = Callable[[Array, Array], Array]


def accuracy(prediction: Array, target: Array) -> Array:
    """Return per sample the fraction of positions where the greatest logit is that of the label.

    Parameters
    ----------
    prediction
        Logits (N, …, C).
    target
        Integer labels (N, …), or (N, …, C), of which the greatest counts.

    Returns
    -------
    (N,), in [0, 1].
    """
    labels = target.argmax(axis=-1) if target.ndim == prediction.ndim else target
    hits = prediction.argmax(axis=-1) == labels
    return _per_sample(hits)


def binary_accuracy(prediction: Array, target: Array) -> Array:
    """Return per sample the fraction of outputs where logit > 0 agrees with target > 1/2, both
    `prediction` and `target` (N, …).
    """
    hits = (prediction > 0) == (target > 0.5)
    return _per_sample(hits)


def bits_per_character(prediction: Array, target: Array) -> Array:
    """Return per sample the mean over positions of -log2 softmax(logits) at the label: the
    cross-entropy over ln 2.

    Parameters
    ----------
    prediction
        Logits (N, T, C).
    target
        Integer labels (N, T), in [0, C).

    Returns
    -------
    (N,), at least 0.
    """
    x = prediction.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    at_label = np.take_along_axis(x, target[..., np.newaxis], axis=-1)[..., 0]
    return _per_sample((np.log(np.exp(x).sum(axis=-1)) - at_label) / math.log(2))


def mean_absolute_error(prediction: Array, target: Array) -> Array:
    """Return per sample the mean `|prediction - target|`, both (N, …)."""
    return _per_sample(np.abs(prediction - target))


def _per_sample(values: Array) -> Array:
    """Return the mean over all axes but the first; a rank's part of a small batch may hold no
    sample.
    """
    return np.asarray(values.mean(axis=tuple(range(1, values.ndim))))


def default_metrics(loss: object) -> dict[str, Metric]:
    """Return the metrics that go with a loss: accuracy for classification, none otherwise."""
    if isinstance(loss, SoftmaxCrossEntropy):
        return {"accuracy": accuracy}
    if isinstance(loss, BinaryCrossEntropy):
        return {"accuracy": binary_accuracy}
    return {}
