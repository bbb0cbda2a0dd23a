"""Metrics: one number per sample."""

from functools import partial

import numpy as np
import pytest

from ddbp import accuracy, binary_accuracy, bits_per_character, mean_absolute_error
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
