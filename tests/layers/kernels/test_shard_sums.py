"""Products that are summed over shards in the caches: the bits of the products of shards, added up
by the fixed tree.
"""

import itertools

import numpy as np
import pytest

from layers.engine.precision import Precision
from layers.kernels import dense, gemm, reduce, underflow
from layers.kernels.jit import kernel
from layers.kernels.llvm.simd_bf16 import HAS_DOTS
from layers.kernels.shard_sums import sum_of_columns, sum_of_products
from layers.precision import PRECISIONS


@kernel
def summed(c, total, a, b, bounds, steps):
    """Writes both sums."""
    sum_of_products(c, a, b, bounds, steps)
    sum_of_columns(total, a, bounds, steps)


def by_shard(a, b, bounds):
    """Return the products of the shards, and the sums of their columns, by the tree."""
    shards = len(bounds) - 1
    products = np.empty((shards, a.shape[1], b.shape[1]), a.dtype)
    columns = np.empty((shards, a.shape[1]), a.dtype)
    for s in range(shards):
        rows = slice(bounds[s], bounds[s + 1])
        gemm.multiply(products[s], a[rows], True, b[rows], False, np.empty(0, a.dtype), False)
    reduce.column_sums(columns, a, bounds, False)
    results = np.empty(products[0].shape, a.dtype), np.empty(a.shape[1], a.dtype)
    for result, parts in zip(results, (products, columns), strict=True):
        ones = np.ones(shards, np.int64)
        reduce.tree_sum(result.reshape(-1), parts.reshape(shards, -1), ones, 0)
    return results


# Shards of less than a block of inner indices, of one, of several, and of unlike sizes.
ROWS = {
    "one row": lambda shards: np.ones(shards, np.int64),
    "few": lambda shards: np.arange(shards) % 5,
    "a block together": lambda shards: np.full(shards, 256 // shards),
    "more than a block together": lambda shards: np.full(shards, 256 // shards + 1),
    "a block": lambda shards: np.full(shards, 256),
    "one larger than a block": lambda shards: np.where(np.arange(shards) == shards - 1, 257, 3),
    "several blocks": lambda shards: np.full(shards, 600),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shards", [1, 2, 8, 16])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (10, 64), (37, 53), (300, 210)])
def test_sums_have_the_bits_of_the_tree_over_shards(m, n, rows, shards, dtype):
    rng = np.random.default_rng(m)
    bounds = np.array([0, *np.cumsum(ROWS[rows](shards))], np.int64)
    # Of rows that cancel in part, so that other orders of summation give other bits.
    scale = 10.0 ** rng.integers(-3, 4, (bounds[-1] + 1, 1))
    a = (rng.standard_normal((bounds[-1] + 1, m)) * scale).astype(dtype)[: bounds[-1]]
    b = rng.standard_normal((bounds[-1] + 1, n)).astype(dtype)[: bounds[-1]]
    c, total = np.full((m, n), np.nan, dtype), np.full(m, np.nan, dtype)
    summed(c, total, a, b, bounds, 1)
    expected, columns = by_shard(a, b, bounds)
    assert c.tobytes() == expected.tobytes()
    assert total.tobytes() == columns.tobytes()


@pytest.mark.parametrize("steps", [2, 7, 70])
@pytest.mark.parametrize("samples", [(3, 3, 3, 3), (4, 5, 4, 5, 0, 1, 9, 2), (40, 2)], ids=str)
@pytest.mark.parametrize(("m", "n"), [(5, 3), (300, 210)])
def test_rows_of_several_steps_belong_to_the_shards_of_their_samples(m, n, samples, steps):
    rng = np.random.default_rng(n)
    bounds = np.array([0, *np.cumsum(samples)], np.int64)
    a = rng.standard_normal((steps, bounds[-1], m)).astype(np.float32)
    b = rng.standard_normal((steps, bounds[-1], n)).astype(np.float32)
    c, total = np.empty((m, n), np.float32), np.empty(m, np.float32)
    summed(c, total, a.reshape(-1, m), b.reshape(-1, n), bounds, steps)
    parts = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
    together = [
        np.concatenate([x[:, part].reshape(-1, x.shape[2]) for part in parts]) for x in (a, b)
    ]
    expected, columns = by_shard(*together, bounds * steps)
    assert c.tobytes() == expected.tobytes()
    assert total.tobytes() == columns.tobytes()


@pytest.mark.parametrize("rows", [1, 5, 256, 600])
@pytest.mark.parametrize("name", [*PRECISIONS])
def test_gradients_of_shards_on_one_rank_are_the_sums_of_those_on_several(name, rows):
    precision: Precision = PRECISIONS[name]
    if name == "bf16-dot" and not HAS_DOTS:
        pytest.skip("this processor has no AVX512-BF16")
    rng = np.random.default_rng(rows)
    dy, x = (rng.standard_normal((4 * rows, n)).astype(np.float32) for n in (33, 20))
    bounds, nothing = rows * np.arange(5), np.empty((0, 0), np.float32)

    def gradients(groups):
        dw = np.full((len(groups) - 1, 33, 20), np.nan, np.float32)
        db = np.full((len(groups) - 1, 33), np.nan, np.float32)
        like, plain = precision.like(nothing), (False, False, dense.IDENTITY)
        arrays = (nothing, dw, db, nothing, dy, dy, x, like, bounds, np.array(groups), *plain)
        dense.backward(*arrays)
        return dw, db

    mode = underflow.flush()
    try:
        for one, several in zip(gradients([0, 4]), gradients([0, 1, 2, 3, 4]), strict=True):
            first, second = several[0] + several[1], several[2] + several[3]
            np.testing.assert_array_equal(one[0], first + second)
    finally:
        underflow.restore(mode)
