"""The ranks that the check of sanity compares attributions by."""

import numpy as np
import pytest

from ddbp.attribution.sanity import _rank


def test_ranks_are_those_of_scipy_with_equal_numbers_in_the_middle_of_theirs():
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    rng = np.random.default_rng(0)
    for size in range(1, 40):
        for numbers in (rng.standard_normal(size), rng.integers(0, 9, size).astype(float)):
            assert np.array_equal(_rank(numbers), stats.rankdata(numbers))
