"""Metrics: one number per sample."""

import numpy as np

from ddbp import accuracy, binary_accuracy, bits_per_character, mean_absolute_error
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
