"""Sums in a fixed order, against slow twins: bit for bit."""

import functools
import itertools
import math
import operator
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from layers.engine.fixed_tree import number_sum, tree_sum
from layers.kernels import reduce

from ..fixed_tree import tree

# One element, less than a block, several blocks with a tail.
WIDTHS = [1, 7, 2 * 1024 + 5]


def aligned(first, stop):
    """Yield (first, size) of the maximal aligned pieces of shards first..stop: sizes are powers of
    two that divide the first.
    """
    while first < stop:
        size = first & -first or 1 << (stop - first).bit_length()
        while size > stop - first:
            size //= 2
        yield first, size
        first += size


def cuts(shards, rng):
    """Yield ways to spread the shards over ranks, as bounds: all ways for few shards, else two
    ranks and random ones.
    """
    if shards <= 6:
        for inner in itertools.product((False, True), repeat=shards - 1):
            yield [0, *(i + 1 for i, cut in enumerate(inner) if cut), shards]
        return
    for middle in range(1, shards):
        yield [0, middle, shards]
    yield [0, shards]
    yield list(range(shards + 1))
    for _ in range(20):
        ranks = rng.integers(2, shards)
        yield [
            0,
            *sorted(rng.choice(np.arange(1, shards), ranks - 1, replace=False).tolist()),
            shards,
        ]


def shards_of(count, width, dtype, rng):
    # Sizes over many orders of magnitude, so that another order of additions shows in the bits.
    return (
        rng.standard_normal((count, width)) * 10.0 ** rng.integers(-4, 5, (count, width))
    ).astype(dtype)


@pytest.mark.parametrize("shards", [*range(1, 18), 33])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
def test_sum_has_the_shape_of_a_part(shards, shape):
    parts = shards_of(shards, math.prod(shape), np.float64, np.random.default_rng(shards))
    # Every other column: the kernel takes adjacent elements only.
    apart = np.repeat(parts, 2, axis=1)[:, ::2].reshape(shards, *shape)
    assert tree_sum(apart).tobytes() == tree(list(parts.reshape(shards, *shape))).tobytes()
    assert tree_sum(apart).shape == shape


def test_sum_of_nothing_is_zero():
    assert tree_sum(np.zeros((0, 3))).tolist() == [0, 0, 0]


def test_sum_of_some_columns_goes_where_it_is_asked_for():
    parts, total = np.arange(12.0).reshape(3, 4), np.full((2, 2), np.nan)
    tree_sum(parts, out=total[1], start=1)
    assert total[1].tolist() == [15, 18]
    assert np.isnan(total[0]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shards", range(1, 18))
def test_sum_of_single_shards_is_the_fixed_tree(shards, dtype):
    rng = np.random.default_rng(shards)
    for width in WIDTHS:
        parts = shards_of(shards, width, dtype, rng)
        assert tree_sum(parts).tobytes() == tree(list(parts)).tobytes()


@pytest.mark.parametrize("shards", range(1, 18))
def test_partial_sums_of_any_spread_over_ranks_give_the_same_bits(shards):
    rng = np.random.default_rng(shards)
    parts = shards_of(shards, 33, np.float32, rng)
    expected = tree(list(parts)).tobytes()
    for bounds in cuts(shards, rng):
        pieces = [
            piece for start, stop in itertools.pairwise(bounds) for piece in aligned(start, stop)
        ]
        assert sum(size for _, size in pieces) == shards
        summed = np.array([tree(list(parts[first : first + size])) for first, size in pieces])
        sizes = np.array([size for _, size in pieces])
        assert tree_sum(summed, sizes).tobytes() == expected, bounds


@pytest.mark.parametrize("shards", [31, 100, 1023])
def test_descending_partial_sums_fit_the_room_that_the_kernel_takes(shards, tmp_path):
    # One rank that owns all of 2^k - 1 shards holds one part of each size: none finds its sibling.
    # In a process of its own, which a write out of bounds may end.
    parts = shards_of(shards, 33, np.float32, np.random.default_rng(shards))
    pieces = list(aligned(0, shards))
    summed = np.array([tree(list(parts[first : first + size])) for first, size in pieces])
    np.savez(tmp_path / "parts.npz", parts=summed, sizes=np.array([size for _, size in pieces]))
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
import numpy as np
from layers.engine.fixed_tree import tree_sum
from layers.kernels import reduce
given = np.load("parts.npz")
total = np.empty(given["parts"].shape[1], given["parts"].dtype)
reduce.tree_sum(total, given["parts"], given["sizes"], 0)
np.save("total.npy", total)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "total.npy").tobytes() == tree(list(parts)).tobytes()


def test_order_of_additions_can_be_seen_in_the_bits():
    # The tests above prove something only if a left-to-right sum differs.
    parts = shards_of(8, 1000, np.float32, np.random.default_rng(0))
    in_turn = parts[0].copy()
    for part in parts[1:]:
        in_turn += part
    assert tree(list(parts)).tobytes() != in_turn.tobytes()


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 5, 64, 131])
def test_column_sums_add_one_row_after_the_other_for_each_shard(columns, dtype, accumulate):
    rng = np.random.default_rng(2)
    bounds = np.array((0, 3, 3, 20))
    x = rng.standard_normal((20, columns)).astype(dtype)
    before = rng.standard_normal((3, columns)).astype(dtype)
    sums = before.copy() if accumulate else np.full_like(before, np.nan)
    reduce.column_sums(sums, x, bounds, accumulate)
    twin = before.copy() if accumulate else np.zeros_like(before)
    for s, (start, stop) in enumerate(itertools.pairwise(bounds)):
        for row in x[start:stop]:
            twin[s] += row
    assert sums.tobytes() == twin.tobytes()


PIECES = np.array([(0, 0), (0, 1), (3, 19), (5, 38), (0, 1000), (990, 1000), (17, 18)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_square_sums_run_sixteen_chains_side_by_side(dtype):
    x = np.random.default_rng(3).standard_normal(1000).astype(dtype)
    sums = np.full(len(PIECES), np.nan)
    reduce.square_sums(sums, x, PIECES)
    for total, (start, stop) in zip(sums, PIECES, strict=True):
        chains = [0.0] * 16
        for i, value in enumerate(x[start:stop]):
            # Exact product, one rounding: what a fused multiply-add does.
            chains[i % 16] = float(Fraction(float(value)) ** 2 + Fraction(chains[i % 16]))
        twin = 0.0
        for chain in chains:
            twin += chain
        assert total == twin
        np.testing.assert_allclose(
            total, math.fsum(float(v) ** 2 for v in x[start:stop]), rtol=1e-13
        )


def test_square_sums_round_each_product_and_sum_once():
    # One chain alone, so that its last bit is not lost when the chains are added.
    x = np.zeros(160)
    x[::16] = np.random.default_rng(0).standard_normal(10)
    sums = np.empty(1)
    reduce.square_sums(sums, x, np.array([(0, 160)]))
    fused = rounded_twice = 0.0
    for value in x[::16]:
        fused = float(Fraction(value) ** 2 + Fraction(fused))
        rounded_twice = value * value + rounded_twice
    assert sums[0] == fused != rounded_twice


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_absolute_sums_add_one_element_after_the_other(dtype):
    x = np.random.default_rng(4).standard_normal(1000).astype(dtype)
    sums = np.full(len(PIECES), np.nan)
    reduce.absolute_sums(sums, x, PIECES)
    for total, (start, stop) in zip(sums, PIECES, strict=True):
        twin = 0.0
        for value in x[start:stop]:
            twin += abs(float(value))
        assert total == twin


def test_sums_carry_nan_and_infinity():
    x = np.array([1, np.nan, 2, np.inf], np.float32)
    pieces = np.array([(0, 1), (0, 2), (2, 4)])
    for kernel in (reduce.square_sums, reduce.absolute_sums):
        sums = np.empty(3)
        kernel(sums, x, pieces)
        assert sums[0] == 1
        assert np.isnan(sums[1])
        assert sums[2] == np.inf


# Indices that 32 bits do not hold


@pytest.fixture
def vast(tmp_path):
    """Return the function that makes an array of zeros of any size, of which the file takes only
    what is written.
    """

    def make(*shape):
        try:
            return np.memmap(tmp_path / "sparse", np.float32, "w+", shape=shape)
        except OSError as error:
            pytest.skip(f"needs sparse files of {math.prod(shape) * 4 / 2**30:.0f} GiB: {error}")

    return make


def test_tree_sum_reaches_beyond_32_bits(vast):
    start = 2**31 + 77
    rng = np.random.default_rng(0)
    for shards in (2, 5):
        parts = vast(shards, start + 3000)
        shown = rng.standard_normal((shards, 3000)).astype(np.float32)
        parts[:, start:] = shown
        total, expected = np.full((2, 3000), np.nan, np.float32)
        reduce.tree_sum(total, parts.view(np.ndarray), np.ones(shards, np.int64), start)
        reduce.tree_sum(expected, shown, np.ones(shards, np.int64), 0)
        assert total.tobytes() == expected.tobytes()
        assert total.any()


@pytest.mark.parametrize("kernel", [reduce.square_sums, reduce.absolute_sums])
def test_sums_of_pieces_reach_beyond_32_bits(kernel, vast):
    starts = np.array([5, 2**31 - 500, 2**31 + 2**20])
    x = vast(2**31 + 2**20 + 2000)
    shown = np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float32)
    for start, piece in zip(starts, shown, strict=True):
        x[start : start + 1024] = piece
    found, expected = np.full((2, 3), np.nan)
    kernel(found, x.view(np.ndarray), np.stack([starts, starts + 1024], axis=1))
    kernel(expected, shown.reshape(-1), np.array([[0, 1024], [1024, 2048], [2048, 3072]]))
    assert found.tobytes() == expected.tobytes()
    assert found.all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_over_an_axis_are_those_of_the_twin_bit_for_bit(dtype):
    rng = np.random.default_rng(0)
    x = shards_of(6, 3 * 50, dtype, rng).reshape(6, 3, 50)
    rows, middle = np.empty(18, dtype), np.empty((6, 50), dtype)
    reduce.row_sums(rows, x.reshape(18, 50))
    reduce.middle_sums(middle, x)
    for r, row in enumerate(x.reshape(18, 50).astype(float)):
        lanes = [0.0] * reduce.LANES
        for i, number in enumerate(row):
            lanes[i % reduce.LANES] += number
        assert rows[r] == dtype(functools.reduce(operator.add, lanes, 0.0))
    for o, i in np.ndindex(6, 50):
        assert middle[o, i] == dtype(functools.reduce(operator.add, x[o, :, i].astype(float), 0.0))


@pytest.mark.parametrize("shards", [*range(1, 20), 31, 32, 33, 63])
def test_step_adds_up_losses_and_gradients_by_the_fixed_tree(shards):
    rng = np.random.default_rng(shards)
    numbers = rng.standard_normal(3 * shards + 2)
    losses = np.arange(shards) * 3
    requests = np.array([1, 4])[: min(2, shards)]
    numbers[requests] = 2
    parts = rng.standard_normal((shards, 50)).astype(np.float32)
    sums, terms, total = np.zeros(2), np.empty(shards), np.empty(40, np.float32)
    sizes = np.ones(shards, np.int64)
    reduce.step_sums(sums, numbers, requests, losses, terms, total, parts, sizes, 7)
    assert sums[0] == tree_sum(numbers[losses]) == number_sum(numbers[losses])
    assert sums[1] == 2 * len(requests)
    assert total.tobytes() == tree_sum(parts)[7:47].tobytes()
