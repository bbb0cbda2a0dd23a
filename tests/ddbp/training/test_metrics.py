"""Metrics: one number per sample."""

from functools import partial

import numpy as np
import pytest

from ddbp import (
    accuracy,
    binary_accuracy,
    bits_per_character,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    precision,
    recall,
    top_k_accuracy,
)
from ddbp.training import metrics
from ddbp.training.metrics import default_metrics
from layers import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy

LOGITS = np.array([[0.1, 2.0, -1.0], [3.0, 0.0, 1.0], [0.0, 0.5, 0.6]])


def test_accuracy_is_one_where_the_greatest_logit_is_that_of_the_label():
    assert accuracy(LOGITS, np.array([1, 2, 2])).tolist() == [1, 0, 1]


def test_accuracy_of_probabilities_compares_the_greatest():
    targets = np.array([[0.2, 0.5, 0.3], [0, 0, 1], [0, 0, 1.0]])
    assert accuracy(LOGITS, targets).tolist() == [1, 0, 1]


def test_accuracy_of_a_sequence_is_the_fraction_of_its_positions():
    logits = np.stack([LOGITS, LOGITS])
    assert accuracy(logits, np.array([[1, 0, 2], [1, 0, 0]])).tolist() == [1, 2 / 3]


def test_binary_accuracy_agrees_on_the_side_of_one_half():
    logits, targets = np.array([[2.0, -1.0], [-3.0, 4.0]]), np.array([[1.0, 0.0], [1.0, 0.9]])
    assert binary_accuracy(logits, targets).tolist() == [1, 0.5]


def test_mean_absolute_error_is_per_sample():
    assert mean_absolute_error(
        np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 0.5]])
    ).tolist() == [1.5, 0.25]


def test_metrics_of_an_empty_part_of_a_batch_are_empty():
    assert accuracy(LOGITS[:0], np.zeros(0, np.int64)).shape == (0,)
    assert binary_accuracy(LOGITS[:0], LOGITS[:0]).shape == (0,)
    assert mean_absolute_error(LOGITS[:0], LOGITS[:0]).shape == (0,)


def test_classification_is_measured_by_accuracy_unless_said():
    assert default_metrics(SoftmaxCrossEntropy()) == {"accuracy": accuracy}
    assert default_metrics(BinaryCrossEntropy()) == {"accuracy": binary_accuracy}
    assert default_metrics(MeanSquaredError()) == {}


def test_bits_per_character_is_the_cross_entropy_in_bits():
    logits = np.random.default_rng(0).standard_normal((3, 5, 4))
    labels = np.random.default_rng(1).integers(0, 4, (3, 5))
    bits = bits_per_character(logits, labels)
    assert bits.shape == (3,)
    assert np.isclose(bits.mean() * np.log(2), SoftmaxCrossEntropy()(logits, labels))
    assert np.allclose(bits_per_character(np.zeros((2, 3, 8)), np.ones((2, 3), int)), 3)


def test_ignored_labels_and_weights_are_left_out_of_a_sample():
    logits = np.stack([LOGITS, LOGITS, LOGITS])
    labels = np.array([[1, -1, 2], [1, 0, 0], [-1, -1, -1]])
    values, counted = accuracy(logits, labels, ignore=-1)
    assert values.tolist() == [1, 2 / 3, 0]
    assert counted.tolist() == [2, 3, 0]
    weights = np.array([[1, 5, 3], [2, 1, 1], [1, 1, 1]])
    values, counted = accuracy(logits, np.array([[1, 0, 0], [1, 0, 0], [1, 0, 2]]), weights)
    assert values.tolist() == [6 / 9, 3 / 4, 1]
    assert counted.tolist() == [9, 4, 3]
    _, counted = accuracy(logits, labels, np.array([2, 1, 7]), ignore=-1)
    assert counted.tolist() == [4, 3, 0]


def test_accuracy_ignores_what_the_loss_does():
    (metric,) = default_metrics(SoftmaxCrossEntropy(ignore=2)).values()
    assert metric(LOGITS, np.array([1, 2, 2]))[1].tolist() == [1, 0, 0]


def test_of_equal_logits_the_first_is_guessed():
    logits, labels = np.zeros((3, 3)), np.arange(3)
    for k in (1, 2, 3):
        assert top_k_accuracy(k, logits, labels).tolist() == (labels < k).tolist()
    assert accuracy(logits, labels).tolist() == [1, 0, 0]


def test_squared_errors_are_means_of_a_sample():
    assert mean_squared_error(np.array([[1.0, 2.0]]), np.array([[2.0, 0.0]])).tolist() == [2.5]


def test_what_is_left_out_may_be_nan():
    x = np.array([[1.0, np.nan], [2.0, 2.0]])
    weights = np.array([[1.0, 0.0], [1.0, 1.0]])
    values, counted = mean_absolute_error(x, np.zeros((2, 2)), weights)
    assert values.tolist() == [1, 2]
    assert counted.tolist() == [1, 2]


COLUMN = np.array([[0.5], [2.0], [-1.0]])


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "words"),
    [
        (accuracy, COLUMN, np.zeros((3, 1), int), r"two classes or more; got \(3, 1\).*binary_acc"),
        (accuracy, COLUMN[:, 0], np.zeros(3, int), r"two classes or more; got \(3,\)"),
        (
            accuracy,
            LOGITS,
            np.zeros((3, 1), int),
            r"labels \(3,\) or .*; got \(3, 1\) .* y\[:, 0\]",
        ),
        (accuracy, LOGITS, np.zeros(3), r"integer labels \(3,\) or .*; got \(3,\) of float64"),
        (accuracy, LOGITS, np.array([0, 3, 1]), r"labels must be in 0\.\.2; got 3\. "),
        (accuracy, LOGITS, np.array([0, -1, 1]), r"got -1\. .*ignore=-1\) leaves it out"),
        (mean_absolute_error, COLUMN, np.zeros(3), r"shape of the predictions, \(3, 1\); got \(3,"),
        (mean_squared_error, COLUMN[:, 0], COLUMN, r"the predictions, \(3,\); got \(3, 1\)"),
        (binary_accuracy, COLUMN, np.zeros(3), r"y\[:, np.newaxis\]"),
        (precision, COLUMN, np.zeros(3), "precision: targets must have the shape"),
        (recall, COLUMN, np.zeros(3), "recall: targets must have the shape"),
        (f1_score, COLUMN, np.zeros(3), "f1_score: targets must have the shape"),
        (bits_per_character, COLUMN, np.zeros(3, int), "bits_per_character: predictions must be"),
    ],
)
def test_shapes_that_only_broadcast_are_refused(metric, prediction, target, words):
    with pytest.raises(ValueError, match=words):
        metric(prediction, target)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"weights must be of shape \(3,\) .*; got \(2,\)"):
        accuracy(LOGITS, np.zeros(3, int), np.ones(2))


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_number_of_guesses_is_positive(k):
    with pytest.raises(ValueError, match="k must be a positive integer"):
        top_k_accuracy(k, LOGITS, np.zeros(3, int))


@pytest.mark.parametrize(
    "metric",
    [metrics.accuracy, partial(metrics.top_k_accuracy, 2), metrics.bits_per_character],
    ids=["accuracy", "top 2", "bits"],
)
def test_logits_that_are_nan_are_no_guess(metric):
    logits = np.array([[[2, 1, 0], [0, np.nan, 1]], [[0, 1, 2], [3, 4, 5]]])
    values = metric(logits, np.array([[0, 0], [2, 2]]))
    assert np.isnan(values[0])
    assert np.isfinite(values[1])


@pytest.mark.parametrize(
    "metric", [metrics.binary_accuracy, metrics.precision, metrics.recall, metrics.f1_score]
)
def test_outputs_that_are_nan_are_neither_positive_nor_negative(metric):
    result = metric(np.array([[np.nan, 1], [1, -1.0]]), np.array([[1, 1], [1, 0.0]]))
    values = result[0] if isinstance(result, tuple) else result
    assert np.isnan(values[0])
    assert values[1] in (0.5, 1)
