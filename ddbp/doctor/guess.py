"""What a constant guess of labels comes to, in the units of the loss that is trained."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddbp.data.augment import MixUp
from layers import SoftmaxCrossEntropy
from layers.types import Array

_PAIRS = 4096
"""Mixed targets that the least loss is the mean over."""


def counted(loss: SoftmaxCrossEntropy, labels: Array, counts: Array) -> tuple[Array, Array]:
    """Return the labels (K,) that a loss does not ignore, and the share of each (K,)."""
    kept = np.ones(len(labels), bool) if loss.ignore is None else labels != loss.ignore
    return labels[kept], counts[kept] / max(counts[kept].sum(), 1)


def weighed(loss: SoftmaxCrossEntropy, labels: Array, shares: Array) -> Array:
    """Return the share of each label (K,) by the weights of classes."""
    if loss.class_weights is None:
        return shares
    found: Array = shares * loss.class_weights[labels]
    return found / max(float(found.sum()), 1e-300)


def of_labels(
    loss: SoftmaxCrossEntropy,
    labels: Array,
    counts: Array,
    classes: int,
    augment: Sequence[Any] = (),
) -> tuple[float, float]:
    """Return the cross-entropy of the best constant guess, and the least that there can be: the
    mean entropy of the targets, which is not 0 where these are smoothed or mixed.

    Parameters
    ----------
    loss
        Its smoothing, class weights and ignored label.
    labels, counts
        Those of the data (K,), and how often each comes.
    classes
        The number of logits C.
    augment
        Of the samples.
    """
    labels, shares = counted(loss, labels, counts)
    if not len(labels) or labels.max() >= classes:
        return np.nan, np.nan
    mixing = [each.alpha for each in augment if isinstance(each, MixUp)]
    weights = np.ones(classes) if loss.class_weights is None else loss.class_weights
    # With labels the loss is over the weights of these, with probabilities over the rows.
    whole = 1.0 if mixing else float(shares @ weights[labels])
    # The targets: smoothing everywhere, and the rest at one label, or at two.
    others = weights * (loss.label_smoothing / classes)
    rest = (1 - loss.label_smoothing) * weights
    mean = others.copy()
    mean[labels] += rest[labels] * shares
    guess = float(_log_times(mean.sum()) - _log_times(mean).sum())
    first, part = labels, np.zeros(len(labels))
    second = (first + 1) % classes
    if mixing:
        rng = np.random.default_rng(0)
        first, other = rng.choice(labels, (2, _PAIRS), p=shares)
        part = np.where(first == other, 0.0, rng.beta(mixing[0], mixing[0], _PAIRS))
        second = np.where(first == other, (first + 1) % classes, other)
        shares = np.full(_PAIRS, 1 / _PAIRS)
    ones = others[first] + rest[first] * (1 - part)
    twos = others[second] + rest[second] * part
    sums = others.sum() - others[first] - others[second] + ones + twos
    logs = _log_times(others)
    inner = logs.sum() - logs[first] - logs[second] + _log_times(ones) + _log_times(twos)
    least = float(shares @ (_log_times(sums) - inner))
    return (guess / whole, max(least, 0.0) / whole) if whole > 0 else (np.nan, np.nan)


def _log_times(x: Any) -> Any:
    """Return x log x, 0 at 0."""
    return x * np.log(np.where(x > 0, x, 1))
