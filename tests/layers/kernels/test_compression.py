"""Kernels of compressed gradients against NumPy: what is chosen, its order, ties, and the ends of
ranges.
"""

import numpy as np
import pytest

from layers.kernels import compression

F32 = np.float32
SIZES = [1, 31, 33, 5000]


def numbers(size, rng=None):
    """Return numbers over many orders of magnitude, some of them equal but for the sign."""
    rng = rng or np.random.default_rng(size)
    x = rng.standard_normal(size) * 10.0 ** rng.integers(-4, 5, size)
    x[rng.integers(0, size, size // 3)] = 0.5
    x[rng.integers(0, size, size // 3)] = -0.5
    return x.astype(F32)


def largest(x, count):
    """Return the places and the values that the kernel finds."""
    places, values = np.full(count, -1, np.int32), np.empty(count, F32)
    room = np.empty(compression.COUNTS, np.int64)
    compression.largest(places, values, x, x.view(np.uint32), room)
    return places, values


@pytest.mark.parametrize("size", SIZES)
def test_largest_are_those_of_a_stable_sort(size):
    x = numbers(size)
    for count in {1, 1 + size // 100, 1 + size // 2, size}:
        places, values = largest(x, count)
        expected = np.sort(np.argsort(-np.abs(x), kind="stable")[:count])
        assert places.tolist() == expected.tolist()
        assert values.tobytes() == x[expected].tobytes()


def test_nothing_but_zeros_has_its_first_elements_chosen():
    places, values = largest(np.zeros(100, F32), 7)
    assert places.tolist() == [*range(7)]
    assert not values.any()


def test_what_is_not_finite_counts_as_largest():
    x = numbers(1000)
    x[[3, 500, 999]] = np.inf, np.nan, -np.inf
    assert largest(x, 3)[0].tolist() == [3, 500, 999]
    assert largest(x, 1)[0].tolist() == [500]


@pytest.mark.parametrize("start", [0, 1, 700, 999])
def test_scattered_values_are_where_they_were(start):
    x = numbers(1000)
    places, values = largest(x, 50)
    whole = np.zeros(1000, F32)
    whole[places] = values
    y = np.full(1000 - start, np.nan, F32)[: 290 if start else None]
    compression.scatter(y, places, values, start)
    assert y.tobytes() == whole[start : start + y.size].tobytes()


SEGMENTS = np.array([(0, 33), (48, 49), (64, 1000), (1008, 1024)])


def test_signs_are_those_of_the_numbers_and_sizes_their_means():
    x = numbers(1024)
    x[5] = -0.0
    scales, words = np.empty(4, F32), np.zeros(32, np.uint32)
    compression.signs(scales, words, x, x.view(np.uint32), SEGMENTS)
    whole = np.zeros(1024, F32)
    for scale, (start, stop) in zip(scales, SEGMENTS, strict=True):
        mean = np.abs(x[start:stop].astype(np.float64)).mean()
        assert abs(scale - mean) <= 1e-7 * mean
        whole[start:stop] = np.where(np.signbit(x[start:stop]), -scale, scale)
    for start, stop in [(0, 1024), (16, 48), (31, 65), (500, 1017), (63, 64)]:
        y = np.full(stop - start, np.nan, F32)
        compression.signed(y, scales, words, SEGMENTS, start)
        assert y.tobytes() == whole[start:stop].tobytes()


def factors(x, rank, q=None):
    """Return both factors that a step finds, from q or random numbers."""
    p = np.empty((rank, len(x)), F32)
    q = np.random.default_rng(3).standard_normal((rank, x.shape[1])).astype(F32) if q is None else q
    compression.factor(p, q, x, np.zeros(0, F32))
    return p, q


@pytest.mark.parametrize(("rows", "columns", "rank"), [(40, 30, 3), (5, 300, 2), (7, 4, 4)])
def test_matrix_of_low_rank_is_found(rows, columns, rank):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))).astype(F32)
    p, q = factors(x, rank)
    assert np.abs(p @ p.T - np.eye(rank)).max() < 1e-6
    assert np.abs(p.T @ q - x).max() < 1e-5 * np.abs(x).max()


def test_steps_from_the_one_before_find_what_is_largest():
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((50, 10)))
    v, _ = np.linalg.qr(rng.standard_normal((40, 10)))
    x = ((u * 0.6 ** np.arange(10)) @ v.T).astype(F32)
    least = np.sqrt((0.36 ** np.arange(2, 10)).sum())
    errors, q = [], None
    for _ in range(12):
        p, q = factors(x, 2, q)
        errors.append(np.linalg.norm(x - p.T @ q))
    assert errors[-1] < 1.001 * least < errors[0]


def test_rank_that_a_matrix_does_not_have_is_zero():
    x = np.outer(np.arange(1, 6), np.arange(1, 8)).astype(F32)
    p, q = factors(x, 3)
    assert [row.any() for row in p] == [True, False, False]
    assert [row.any() for row in q] == [True, False, False]
    assert np.abs(p.T @ q - x).max() < 1e-5
    p, q = factors(np.zeros((5, 7), F32), 2)
    assert not p.any()
    assert not q.any()


def test_what_is_not_finite_stays_so_in_factors():
    x = np.ones((5, 7), F32)
    for value in (np.nan, np.inf):
        x[2, 3] = value
        p, q = factors(x, 2)
        assert not np.isfinite(p.T @ q).all()


@pytest.mark.parametrize(("start", "stop"), [(0, 280), (3, 9), (7, 50), (41, 280), (279, 280)])
def test_part_of_a_product_has_the_bits_of_the_whole(start, stop):
    rng = np.random.default_rng(0)
    p, q = rng.standard_normal((3, 40)).astype(F32), rng.standard_normal((3, 7)).astype(F32)
    whole, part = np.empty(280, F32), np.empty(stop - start, F32)
    compression.low_rank(whole, p, q, 0)
    assert np.abs(whole - (p.T @ q).reshape(-1)).max() < 1e-5
    compression.low_rank(part, p, q, start)
    assert part.tobytes() == whole[start:stop].tobytes()
