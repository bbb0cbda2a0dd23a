"""Estimators of scikit-learn train on all ranks together."""

import pytest

from .ranks import ONE_HOST

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'ddbp[sklearn]'")


def test_ranks_train_one_estimator_with_the_bits_of_one_alone(pooled):
    alone = pooled(0, "estimators.py")
    assert alone.status == 0, alone.err
    together = pooled(2, "estimators.py", **ONE_HOST)
    assert together.status == 0, together.err
    assert together.out == alone.out != ""
