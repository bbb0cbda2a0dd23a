"""Metrics: functions of predictions and targets that return a number for each sample, of which the
mean is reported.

A metric is called with (prediction, target), and with (prediction, target, weights) where the data
have weights. It returns values (N,), or values and their weights, each (N,): then Σ w v / Σ w over
all samples is reported, and a sample of weight 0 is left out. So whatever is a ratio of two sums
over samples is a metric: `precision` has the weight 1 where the prediction is positive.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from layers import BinaryCrossEntropy, MultiClassHinge, SoftmaxCrossEntropy
from layers.checks import positive_int
from layers.engine.memory import empty, flat, matrix
from layers.errors import message, wording
from layers.kernels import reduce, softmax
from layers.types import Array, Integers

Values = Array | tuple[Array, Array]
"""What a metric returns: values (N,), or values and weights."""

Metric = Callable[..., Values]

RESERVED = ("loss",)
"""Names in what `Trainer.evaluate` returns that are no metrics."""


@wording("accuracy")
def accuracy(
    prediction: Array, target: Array, weights: Array | None = None, *, ignore: int | None = None
) -> Values:
    """Return per sample the fraction of positions where the greatest logit is that of the label.

    Parameters
    ----------
    prediction
        Logits (N, …, C), of two classes or more.
    target
        Integer labels (N, …), or (N, …, C), of which the greatest counts.
    weights
        Of samples (N,) or positions (N, …), 1 unless given.
    ignore
        A label of positions that are left out.

    Returns
    -------
    (N,), in [0, 1]; with `weights` or `ignore` also what the positions of each sample weigh (N,).
    """
    return top_k_accuracy(1, prediction, target, weights, ignore=ignore)


@wording("top_k_accuracy")
def top_k_accuracy(
    k: int,
    prediction: Array,
    target: Array,
    weights: Array | None = None,
    *,
    ignore: int | None = None,
) -> Values:
    """Return per sample the fraction of positions where the logit of the label is one of the k
    greatest, of equal ones the first: `metrics={"top 5": partial(top_k_accuracy, 5)}`.

    Parameters
    ----------
    k
        How many classes may be guessed.
    prediction, target, weights, ignore
        As of `accuracy`.
    """
    owner = "accuracy" if k == 1 else "top_k_accuracy"
    k = positive_int("top_k_accuracy", "k", k, "5 is usual.")
    labels, counted = _labels(owner, prediction, target, ignore)
    if k == 1:
        hits = prediction.argmax(axis=-1) == labels
    else:
        own = np.take_along_axis(prediction, labels[..., np.newaxis], axis=-1)
        first = np.arange(prediction.shape[-1]) < labels[..., np.newaxis]
        hits = ((prediction > own) | ((prediction == own) & first)).sum(axis=-1) < k
    known = np.where(np.isnan(prediction).any(axis=-1), np.nan, hits)
    return per_sample(owner, known, weights, counted)


@wording("binary_accuracy")
def binary_accuracy(prediction: Array, target: Array, weights: Array | None = None) -> Values:
    """Return per sample the fraction of outputs where logit > 0 agrees with target > 1/2, both
    `prediction` and `target` (N, …), by `weights` as of `accuracy`.
    """
    _same_shape("binary_accuracy", prediction, target)
    return per_sample("binary_accuracy", 1 - abs(_positive(prediction) - (target > 0.5)), weights)


@wording("precision")
def precision(prediction: Array, target: Array, weights: Array | None = None) -> Values:
    """Return what makes the fraction of positive predictions that are right: of outputs with logit
    > 0 those with target > 1/2, both `prediction` and `target` (N, …), over all samples and
    outputs, by `weights` as of `accuracy`.
    """
    _same_shape("precision", prediction, target)
    found = _positive(prediction)
    return per_sample("precision", (target > 0.5) + 0 * found, weights, found != 0)


@wording("recall")
def recall(prediction: Array, target: Array, weights: Array | None = None) -> Values:
    """Return what makes the fraction of positive targets that are found: of outputs with target >
    1/2 those with logit > 0, both `prediction` and `target` (N, …), over all samples and outputs,
    by `weights` as of `accuracy`.
    """
    _same_shape("recall", prediction, target)
    return per_sample("recall", _positive(prediction), weights, target > 0.5)


@wording("f1_score")
def f1_score(prediction: Array, target: Array, weights: Array | None = None) -> Values:
    """Return what makes the harmonic mean of `precision` and `recall`: 2 TP / (2 TP + FP + FN),
    both `prediction` and `target` (N, …), over all samples and outputs, by `weights` as of
    `accuracy`.
    """
    _same_shape("f1_score", prediction, target)
    found, true = _positive(prediction), target > 0.5
    return per_sample("f1_score", found * true, weights, 1 * (found != 0) + true)


@wording("bits_per_character")
def bits_per_character(
    prediction: Array, target: Array, weights: Array | None = None, *, ignore: int | None = None
) -> Values:
    """Return per sample the mean over positions of -log2 softmax(logits) at the label: the
    cross-entropy over ln 2.

    Parameters
    ----------
    prediction
        Logits (N, T, C).
    target
        Integer labels (N, T), in [0, C).
    weights, ignore
        As of `accuracy`.

    Returns
    -------
    (N,), at least 0; with `weights` or `ignore` also what the positions of each sample weigh (N,).
    """
    labels, counted = _labels("bits_per_character", prediction, target, ignore)
    x = matrix(prediction)
    nats, every = np.empty(len(x)), np.arange(len(x) + 1)
    softmax.cross_entropy(
        nats, np.empty_like(x), x, flat(labels.astype(np.int64)), empty(x, 1), 0.0, 1.0, every
    )
    bits = nats.reshape(labels.shape) / math.log(2)
    return per_sample("bits_per_character", bits, weights, counted)


@wording("mean_absolute_error")
def mean_absolute_error(prediction: Array, target: Array, weights: Array | None = None) -> Values:
    """Return per sample the mean `|prediction - target|`, both (N, …), by `weights` as of
    `accuracy`.
    """
    _same_shape("mean_absolute_error", prediction, target)
    return per_sample("mean_absolute_error", np.abs(prediction - target), weights)


@wording("mean_squared_error")
def mean_squared_error(prediction: Array, target: Array, weights: Array | None = None) -> Values:
    """Return per sample the mean (`prediction` - `target`)², both (N, …), by `weights` as of
    `accuracy`.
    """
    _same_shape("mean_squared_error", prediction, target)
    return per_sample("mean_squared_error", (prediction - target) ** 2, weights)


def per_sample(
    owner: str, values: Array, weights: Array | None = None, counted: Array | None = None
) -> Values:
    """Return the mean of each sample's values (N, …), by weights of samples (N,) or of further
    axes, too, and by what is `counted` of each value (N, …); with weights or `counted`, also what
    each sample weighs.
    """
    rows = np.ascontiguousarray(values, np.float64).reshape(len(values), -1 if values.size else 1)
    if weights is None and counted is None:
        return _row_sums(rows) / max(1, rows.shape[1])
    weighing = np.ones(values.shape) if counted is None else counted.astype(np.float64)
    if weights is not None:
        weights = np.asarray(weights)
        if not weights.ndim or weights.shape != values.shape[: weights.ndim]:
            must = f"weights must be of shape {values.shape[:1]} or {values.shape}"
            fix = "Give each sample or each of its positions a weight."
            raise ValueError(message(owner, must, weights.shape, fix))
        weighing = weighing * weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
    weighing = weighing.reshape(rows.shape)
    # What is left out may be anything, NaN too.
    totals = _row_sums(np.where(weighing == 0, 0, rows * weighing))
    mass = _row_sums(weighing)
    return np.divide(totals, mass, out=np.zeros(len(mass)), where=mass != 0), mass


def shard_sums(name: str, metric: Metric, arguments: tuple[Any, ...], bounds: Integers) -> Array:
    """Return the sums of weighted values and of weights over each shard's samples (S, 2), in their
    order, of what a metric returns for the arguments.
    """
    if len(arguments) > 2:
        _require_weights(name, metric, arguments)
    result = metric(*arguments)
    values, weights = result if type(result) is tuple and len(result) == 2 else (result, None)
    shape = (int(bounds[-1]),)
    for array in (values,) if weights is None else (values, weights):
        if np.shape(array) != shape or np.asarray(array).dtype.kind not in "fiub":
            must = f"metric {name!r} must return a number for each of the {shape[0]} samples"
            got = f"shape {np.shape(array)} of {np.asarray(array).dtype}"
            fix = "Average over the other axes, as in np.abs(p - y).mean(axis=1)."
            raise ValueError(message("Trainer.evaluate", f"{must}, {shape}", got, fix))
    pairs = np.ones((shape[0], 2))
    if weights is not None:
        pairs[:, 1] = weights
        if not (pairs[:, 1] >= 0).all():
            must = f"the weights of metric {name!r} must be at least 0"
            raise ValueError(
                message("Trainer.evaluate", must, pairs[:, 1].min(), "0 leaves a sample out.")
            )
    pairs[:, 0] = np.where(pairs[:, 1] == 0, 0, values * pairs[:, 1])
    sums = np.empty((len(bounds) - 1, 2))
    reduce.column_sums(sums, pairs, bounds, False)
    return sums


def checked(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return metrics by name, of which none may be that of something else."""
    for name in metrics:
        if not isinstance(name, str) or not name:
            must, fix = "metrics must have names", 'Write metrics={"hits": hits}.'
            raise TypeError(message("Trainer", must, repr(name), fix))
        if name in RESERVED:
            must = "no metric may be named as what is reported beside it"
            raise ValueError(message("Trainer", must, repr(name), f"Name it {name}_of_users."))
    return dict(metrics)


def default_metrics(loss: object) -> dict[str, Metric]:
    """Return the metrics that go with a loss: accuracy for classification, none otherwise."""
    if isinstance(loss, SoftmaxCrossEntropy):
        counts_all = loss.ignore is None
        return {"accuracy": accuracy if counts_all else partial(accuracy, ignore=loss.ignore)}
    if isinstance(loss, MultiClassHinge):
        return {"accuracy": accuracy}
    if isinstance(loss, BinaryCrossEntropy):
        return {"accuracy": binary_accuracy}
    return {}


def _require_weights(name: str, metric: Metric, arguments: tuple[Any, ...]) -> None:
    """Refuse a metric that cannot be called with weights."""
    try:
        inspect.signature(metric).bind(*arguments)
    except TypeError as error:
        must = f"metric {name!r} must take (prediction, target, weights), as the data have weights"
        fix = "Return (values, weights), each (N,), for a mean over what counts."
        raise TypeError(message("Trainer.evaluate", must, error, fix)) from None


def _positive(logits: Array) -> Array:
    """Return 1 where a logit is positive, else 0; NaN stays NaN."""
    return np.where(np.isnan(logits), np.nan, logits > 0)


def _row_sums(rows: Array) -> Array:
    """Return the sums of rows (N, K), in order."""
    sums = np.empty((1, len(rows)))
    every = np.array((0, rows.shape[1]), np.int64)
    reduce.column_sums(sums, np.ascontiguousarray(rows.T), every, False)
    return np.asarray(sums[0])


def _same_shape(owner: str, prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape or not prediction.ndim:
        fix = "Reshape one of them."
        if target.ndim + 1 == prediction.ndim:
            fix = "Give both a trailing axis: y[:, np.newaxis]."
        must = f"targets must have the shape of the predictions, {prediction.shape}"
        raise ValueError(message(owner, must, target.shape, fix))


def _labels(
    owner: str, prediction: Array, target: Array, ignore: int | None
) -> tuple[Array, Array | None]:
    """Return labels (N, …) for logits (N, …, C), and which of them count, None for all; or refuse
    what are none.
    """
    if prediction.ndim < 2 or prediction.shape[-1] < 2:
        must, fix = (
            "predictions must be logits (N, …, C) of two classes or more",
            "Use binary_accuracy for one column.",
        )
        raise ValueError(message(owner, must, prediction.shape, fix))
    if target.shape == prediction.shape:
        return np.asarray(target.argmax(axis=-1)), None
    if target.shape != prediction.shape[:-1] or target.dtype.kind not in "iu":
        must = (
            f"targets must be integer labels {prediction.shape[:-1]} or numbers"
            f" {prediction.shape}, of which the greatest counts"
        )
        fix = "Flatten labels of shape (N, 1) with y[:, 0]."
        raise ValueError(message(owner, must, f"{target.shape} of {target.dtype}", fix))
    counted = None if ignore is None else target != ignore
    labels = target if counted is None else np.where(counted, target, 0)
    classes = prediction.shape[-1]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        wrong = int(labels.max() if labels.max() >= classes else labels.min())
        fix = f"Number the classes from 0; partial({owner}, ignore={wrong}) leaves it out."
        raise ValueError(message(owner, f"labels must be in 0..{classes - 1}", wrong, fix))
    return labels, counted
