"""What instruments count in arrays, against NumPy."""

from itertools import pairwise

import numpy as np
import pytest

from layers.kernels import measure, reduce
from layers.kernels.measure import BINS, FIRST_BIN, HIGHEST, LOWEST, SATURATED, SQUARES, ZEROS

RNG = np.random.default_rng(5)
# One element, less than a vector of lanes, several blocks with a tail, none.
PARTS = np.array([[0, 1], [1, 8], [8, 2 * 1024 + 13], [2061, 2061]])


def numbers(dtype, size=2061):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(size) * 2.0 ** rng.integers(-40, 14, size)
    x[::7] = 0
    return x.astype(dtype)


def measured(x, parts, low=-np.inf, high=np.inf):
    sums = np.full((len(parts), FIRST_BIN + BINS), -1.0)
    first = LOWEST - np.finfo(x.dtype).minexp
    bits, bounds = x.view(f"u{x.itemsize}"), map(x.dtype.type, (low, high))
    measure.measures(sums, x, bits, parts, *bounds, first)
    counts = np.full((len(parts), BINS), -1.0)
    measure.magnitudes(counts, bits, parts, first)
    np.testing.assert_array_equal(counts, sums[:, FIRST_BIN:])
    return sums


def histogram(x):
    """Return how many magnitudes are in each bin, by comparisons alone."""
    edges = [0.0, *(2.0**power for power in range(LOWEST, HIGHEST + 1)), np.inf]
    magnitudes = np.abs(x.astype(np.float64))
    found = [np.sum((magnitudes >= low) & (magnitudes < high)) for low, high in pairwise(edges)]
    found[-1] += np.sum(~np.isfinite(magnitudes))
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_measures_are_those_of_numpy(dtype):
    x = numbers(dtype)
    for row, (start, stop) in zip(measured(x, PARTS, -0.5, 0.25), PARTS, strict=True):
        part = x[start:stop]
        np.testing.assert_allclose(row[SQUARES], np.sum(part.astype(np.float64) ** 2), rtol=1e-13)
        assert row[ZEROS] == np.sum(part == 0)
        assert row[SATURATED] == np.sum((part <= -0.5) | (part >= 0.25))
        assert row[FIRST_BIN:].tolist() == histogram(part)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two_begin_their_bins(dtype):
    x = np.array([2.0**power for power in range(LOWEST, HIGHEST + 1)], dtype)
    below = np.nextafter(x, dtype(0))
    for each, first in ((x, 1), (below, 0), (-x, 1)):
        parts = np.stack([np.arange(x.size), np.arange(1, x.size + 1)], axis=1)
        bins = measured(each, parts)[:, FIRST_BIN:].argmax(axis=1)
        np.testing.assert_array_equal(bins, np.arange(x.size) + first)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_is_in_the_last_bin_and_in_the_norm(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 1.0], dtype)
    (row,) = measured(x, np.array([[0, 4]]), -0.98, 0.98)
    assert row[FIRST_BIN + BINS - 1] == 3
    assert np.isnan(row[SQUARES])
    assert row[SATURATED] == 3, "infinities and 1, but not NaN"


def test_a_part_is_the_same_bits_wherever_it_lies():
    x = numbers(np.float32)
    shifted = np.concatenate([x[:3], x])
    np.testing.assert_array_equal(measured(x, PARTS), measured(shifted, PARTS + 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_those_of_numpy_and_of_an_array_with_itself_its_square_sums(dtype):
    x, y = numbers(dtype), numbers(dtype)[::-1].copy()
    found, squares = np.full(len(PARTS), -1.0), np.full(len(PARTS), -1.0)
    measure.products(found, x, y, PARTS)
    for each, (start, stop) in zip(found, PARTS, strict=True):
        exact = x[start:stop].astype(np.float64) @ y[start:stop].astype(np.float64)
        np.testing.assert_allclose(each, exact, rtol=1e-12)
    measure.products(found, x, x, PARTS)
    reduce.square_sums(squares, x, PARTS)
    assert found.tobytes() == squares.tobytes()


def test_saturated_steps_are_those_within_the_lengths():
    x = RNG.uniform(-1.1, 1.1, (5, 4, 6)).astype(np.float32)
    x[3, 2, 3] = np.nan
    lengths, bounds = np.array([5, 1, 4, 2]), np.array([0, 2, 2, 4])
    found = np.full(3, -1.0)
    limits = np.float32(-0.5), np.float32(0.75)
    measure.saturated_steps(found, x, 1, 4, lengths, bounds, *limits)
    x = x[:, :, 1:4]
    beyond = [((x[:k, n] <= -0.5) | (x[:k, n] >= 0.75)).sum() for n, k in enumerate(lengths)]
    assert found.tolist() == [sum(beyond[:2]), 0, sum(beyond[2:])]


def test_units_that_are_not_0_in_all_rows_have_fired():
    x = np.array([[0, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, np.nan]], np.float32)
    fired = np.array([0, 0, 0, 0], np.uint8)
    measure.fired_units(fired, x[:2])
    assert fired.tolist() == [0, 1, 1, 0]
    measure.fired_units(fired, x[2:])
    assert fired.tolist() == [0, 1, 1, 1]
