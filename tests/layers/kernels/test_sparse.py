"""The gradients that are kept, against a twin that sorts; and products of them, which have the bits
of whole ones with zeros.
"""

import itertools

import numpy as np
import pytest

from layers.kernels import dense, sparse, underflow

DTYPES = [np.float32, np.float64]


def largest(x, k, bounds):
    """Return the columns of the k largest magnitudes of each row, or of the sums over each shard;
    sorting keeps the order of equals.
    """
    columns = np.empty((len(x), k), np.int32)
    for start, stop in itertools.pairwise(range(len(x) + 1) if bounds is None else bounds):
        sizes = np.zeros(x.shape[1], x.dtype)
        for row in x[start:stop]:
            sizes += np.where(np.isnan(row), np.inf, abs(row))
        columns[start:stop] = np.sort(np.argsort(-sizes, kind="stable")[:k])
    return columns


def chosen(x, k, bounds=None, kept=None, activation=dense.IDENTITY):
    """Return what the kernel chooses: columns and values."""
    columns, values = np.full((len(x), k), -1, np.int32), np.empty((len(x), k), x.dtype)
    dz = np.empty(x.shape if activation else (0, x.shape[1]), x.dtype)
    shards = np.array([] if bounds is None else bounds, np.int64)
    sparse.choose(columns, values, dz, x, dz if kept is None else kept, shards, activation)
    return columns, values


def numbers(rng, shape, dtype):
    # Of many magnitudes, so that another order of summation shows in the bits.
    return (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(dtype)


@pytest.mark.parametrize("bounds", [None, (0, 9), (0, 2, 2, 3, 9)], ids=str)
@pytest.mark.parametrize("width", [1, 16, 37, 500])
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_of_the_largest_are_those_of_sorting(dtype, width, bounds):
    x = numbers(np.random.default_rng(width), (9, width), dtype)
    for k in {1, 2, width // 3, width - 1, width} & set(range(1, width + 1)):
        columns, values = chosen(x, k, bounds)
        np.testing.assert_array_equal(columns, largest(x, k, bounds))
        np.testing.assert_array_equal(values, np.take_along_axis(x, columns, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_equal_magnitudes_the_lower_columns_are_kept(dtype):
    x = np.array([[0, -2, 1, 2, -1, 2, 0], [0] * 7, [3, 1, -1, 1, 1, 1, 4]], dtype)
    expected = {
        1: [[1], [0], [6]],
        2: [[1, 3], [0, 1], [0, 6]],
        3: [[1, 3, 5], [0, 1, 2], [0, 1, 6]],
    }
    for k, columns in expected.items():
        np.testing.assert_array_equal(chosen(x, k)[0], columns)
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (40, 33)).astype(dtype)
    for k in range(1, 34):
        np.testing.assert_array_equal(chosen(x, k)[0], largest(x, k, None))


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_are_found_whatever_the_range_of_magnitudes(dtype):
    # Of all bits that numbers have, subnormal ones among them; of those many equal, or infinite.
    rng, bits = np.random.default_rng(2), 8 * np.dtype(dtype).itemsize
    words = rng.integers(0, 2**63 - 1, (40, 200)) >> 64 - bits
    x = words.astype(f"i{bits // 8}").view(dtype)
    x = np.where(np.isnan(x), dtype(0), x)
    x[10:20, :150] = x[10:20, :1]
    x[20:30] *= rng.random((10, 200)) < 0.1
    x[30:, ::3] = np.inf
    for k in (1, 10, 40, 60, 199):
        np.testing.assert_array_equal(chosen(x, k)[0], largest(x, k, None))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_are_kept_before_all_numbers(dtype):
    x = np.array([[1, np.nan, np.finfo(dtype).max, -np.inf, np.nan]], dtype)
    for k, columns in ((1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (4, [1, 2, 3, 4])):
        np.testing.assert_array_equal(chosen(x, k)[0], [columns])


def test_gradients_are_chosen_behind_the_activation():
    rng = np.random.default_rng(1)
    dy, y = numbers(rng, (8, 40), np.float32), np.maximum(numbers(rng, (8, 40), np.float32), 0)
    for activation, dz in ((dense.RECTIFIED, np.where(y > 0, dy, 0)), (dense.GELU, dy * y)):
        columns, values = chosen(dy, 5, None, y, activation)
        np.testing.assert_array_equal(columns, largest(dz, 5, None))
        np.testing.assert_array_equal(values, np.take_along_axis(dz, columns, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_of_zeros_the_first_columns_are_kept_where_subnormal_numbers_are_0(dtype):
    x = np.zeros((3, 37), dtype)
    x[1, 5] = 2
    mode = underflow.flush()
    try:
        columns, _ = chosen(x, 4)
    finally:
        underflow.restore(mode)
    np.testing.assert_array_equal(columns, [[0, 1, 2, 3], [0, 1, 2, 5], [0, 1, 2, 3]])


# Bounds of shards, and of the groups of them whose gradients are summed.
CUTS = {
    "one shard": ((0, 64), (0, 1)),
    "shards apart": ((0, 10, 11, 30, 64), (0, 1, 2, 3, 4)),
    "shards together": ((0, 8, 16, 24, 24, 40, 41, 56, 64), (0, 8)),
    "parts of the tree": ((0, 8, 16, 24, 24, 40, 41, 56, 64), (0, 4, 6, 7, 8)),
    "several blocks": ((0, 600, 700), (0, 1, 2)),
    "several blocks together": ((0, 600, 700), (0, 2)),
    "no rows": ((0, 0), (0, 1)),
}


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("k", [1, 7, 300])
@pytest.mark.parametrize("inputs", [1, 15, 40, 129, 200])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_have_the_bits_of_whole_ones_with_zeros(dtype, cut, inputs, k, unified):
    rng = np.random.default_rng(inputs)
    bounds, groups = (np.array(part, np.int64) for part in CUTS[cut])
    rows, outputs = bounds[-1], 300
    x, w = numbers(rng, (rows, inputs), dtype), numbers(rng, (outputs, inputs), dtype)
    columns, values = chosen(numbers(rng, (rows, outputs), dtype), k, bounds if unified else None)
    dz = np.empty((rows, outputs), dtype)
    sparse.spread(dz, columns, values)
    assert np.count_nonzero(dz) == columns.size
    room = (
        np.empty(outputs + 1, np.int32),
        np.empty(columns.size, np.int32),
        np.empty(columns.size, dtype),
    )
    parts = len(groups) - 1
    adds = (False, True) if parts == len(bounds) - 1 else (False,)
    for add in adds:
        before = [
            numbers(np.random.default_rng(2), shape, dtype)
            for shape in ((rows, inputs), (parts, outputs, inputs), (parts, outputs))
        ]
        ours, whole = ([array.copy() for array in before] for _ in range(2))
        sparse.backward(*ours, *room, columns, values, x, w, bounds, groups, add, add)
        none, rest = dz[:0], (x, w, bounds, groups, add, add, dense.IDENTITY)
        dense.backward(*whole, none, dz, none, *rest)
        for one, other in zip(ours, whole, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("missing", range(3))
def test_what_is_not_wanted_is_not_written_and_changes_nothing_else(missing):
    rng = np.random.default_rng(3)
    x, w = numbers(rng, (20, 30), np.float32), numbers(rng, (40, 30), np.float32)
    columns, values = chosen(numbers(rng, (20, 40), np.float32), 4)
    room = np.empty(41, np.int32), np.empty(80, np.int32), np.empty(80, np.float32)
    bounds, groups = np.array([0, 20]), np.array([0, 1])
    shapes = [(20, 30), (1, 40, 30), (1, 40)]
    every = [np.empty(shape, np.float32) for shape in shapes]
    some = [np.empty(shape, np.float32) for shape in shapes]
    some[missing] = some[missing][:, :0] if missing == 2 else some[missing][:0]
    for into in (every, some):
        sparse.backward(*into, *room, columns, values, x, w, bounds, groups, False, False)
    for i in {0, 1, 2} - {missing}:
        np.testing.assert_array_equal(every[i], some[i])
