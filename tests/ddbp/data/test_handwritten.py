"""The digits that come with the package."""

import numpy as np
import pytest

from ddbp.data import digits


def test_the_digits_are_those_of_scikit_learn_in_its_split():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    from sklearn.model_selection import train_test_split

    x, y = datasets.load_digits(return_X_y=True)
    parts = train_test_split(x / 16, y, test_size=0.2, stratify=y, random_state=0)
    training, test = digits()
    found = (training.x, test.x, training.y, test.y)
    for one, other in zip(found, parts, strict=True):
        assert np.array_equal(one, other)
    assert training.x.dtype == np.float32


def test_samples_have_the_shape_that_is_asked_for():
    training, test = digits(8, 8, 1)
    assert (training.x.shape, test.x.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    assert np.array_equal(training.x.reshape(-1, 64), digits()[0].x)
    with pytest.raises(ValueError, match="digits: a sample must have 64 pixels"):
        digits(7, 8)
