"""What a constant guess comes to, against the loss itself."""

import numpy as np
import pytest
from scipy.optimize import minimize

from ddbp.data.augment import MixUp
from ddbp.doctor.guess import of_labels
from layers import SoftmaxCrossEntropy, Tape

CLASSES = 5
LABELS = np.random.default_rng(0).choice(CLASSES, 400, p=[0.5, 0.2, 0.2, 0.06, 0.04])
COUNTS = np.unique(LABELS, return_counts=True)
WEIGHTS = np.array([0.5, 1.0, 2.0, 4.0, 8.0])


def value(loss, logits, targets):
    """Return the loss of logits, the same for all samples or one row for each."""
    whole = np.ascontiguousarray(np.broadcast_to(logits, (len(targets), CLASSES)))
    return float(loss(Tape().input(whole), targets).array)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignore", [None, 1])
def test_no_constant_is_better_and_no_prediction_is_below_the_least(smoothing, weights, ignore):
    loss = SoftmaxCrossEntropy(smoothing, ignore, weights)
    base, least = of_labels(loss, *COUNTS, CLASSES)
    found = minimize(lambda logits: value(loss, logits, LABELS), np.zeros(CLASSES))
    assert base == pytest.approx(found.fun, rel=1e-4)
    weighed = np.ones(CLASSES) if weights is None else weights
    rows = weighed * ((1 - smoothing) * np.eye(CLASSES) + smoothing / CLASSES)
    best = np.log(np.maximum(rows, 1e-100))[LABELS]
    assert least == pytest.approx(value(loss, best, LABELS), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_that_of_mixed_targets_is_their_mean_entropy(smoothing, weights):
    mixing = MixUp(1.0, CLASSES)
    loss = SoftmaxCrossEntropy(smoothing, class_weights=weights)
    base, least = of_labels(loss, *COUNTS, CLASSES, [mixing])
    rng = np.random.default_rng(1)
    one, other = mixing.targets(rng.choice(LABELS, (2, 20_000)).reshape(-1), np.float64).reshape(
        2, -1, CLASSES
    )
    share = rng.random((20_000, 1))
    targets = (1 - share) * one + share * other
    found = minimize(lambda logits: value(loss, logits, targets), np.zeros(CLASSES))
    assert base == pytest.approx(found.fun, rel=0.02)
    weighed = np.ones(CLASSES) if weights is None else weights
    rows = weighed * ((1 - smoothing) * targets + smoothing / CLASSES)
    best = np.log(np.maximum(rows, 1e-100))
    assert least == pytest.approx(value(loss, best, targets), rel=0.02)


def test_nothing_is_known_of_labels_that_are_all_ignored_or_beyond_the_outputs():
    loss = SoftmaxCrossEntropy(ignore=3)
    assert np.isnan(of_labels(loss, np.array([3]), np.array([7]), CLASSES)).all()
    assert np.isnan(of_labels(loss, np.array([9]), np.array([7]), CLASSES)).all()
    base, least = of_labels(loss, np.array([0, 3, 255]), np.array([1, 2, 3]), 300)
    assert 0 == least < base
