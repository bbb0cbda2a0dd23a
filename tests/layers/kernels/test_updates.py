"""What guards an update changes none of its bits, and keeps and finds what it should."""

import numpy as np
import pytest

from layers.kernels.updates import (
    CELLS,
    CHECK_ALL,
    COUNT,
    DONE,
    NOTE,
    SUM_WORDS,
    UNDO_BLOCK,
    block_sums,
    kernel_of,
    momentum,
    nesterov,
)

SCALARS = (0.1, 0.9, False)
NO_CELLS = np.zeros(0, np.int64)
SIZES = [1, 3, 16, 17, UNDO_BLOCK - 1, UNDO_BLOCK, UNDO_BLOCK + 1, 3 * UNDO_BLOCK + 5]


def blocks(size):
    return -(-size // UNDO_BLOCK)


class Case:
    """Arrays of so many elements, of which those of `runs` decay."""

    def __init__(self, size, dtype, runs=()):
        rng = np.random.default_rng(size)
        self.p, self.g, self.m = (rng.standard_normal(size).astype(dtype) for _ in range(3))
        self.runs = np.array(runs, np.int64).reshape(-1, 2)
        self.factors = np.empty(UNDO_BLOCK, dtype)
        self.log = np.full((2, UNDO_BLOCK), np.nan, dtype)
        self.cells = np.zeros(CELLS, np.int64)
        self.sums = np.zeros((blocks(size), 2, SUM_WORDS), np.uint32)

    def update(self, formula=momentum, *, logged=False, summed=False, first=NOTE, factor=0.5):
        return kernel_of(formula)(
            (self.p, self.m),
            self.g,
            self.runs,
            factor,
            self.factors,
            self.log if logged else None,
            self.cells if logged else NO_CELLS,
            0,
            0,
            self.sums if summed else None,
            first,
            SCALARS,
        )


def runs_of(size):
    """Return stretches that begin and end within blocks, and one of several blocks."""
    bounds = sorted({0, size // 7, size // 3, size // 2, size})
    return list(zip(bounds[:-1:2], bounds[1::2], strict=False))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_values_decay_within_their_runs_and_nowhere_else(size, dtype):
    case = Case(size, dtype, runs_of(size))
    p, m = case.p.copy(), case.m.copy()
    for start, stop in case.runs:
        p[start:stop] *= dtype(0.5)
    assert case.update(nesterov) == -1
    m = 0.9 * m + case.g
    tolerance = 1e-5 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(case.m, m, tolerance, tolerance)
    np.testing.assert_allclose(case.p, p - 0.1 * (case.g + 0.9 * m), tolerance, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_guards_change_no_bit(size, dtype):
    plain, guarded = Case(size, dtype, runs_of(size)), Case(size, dtype, runs_of(size))
    last = (blocks(size) - 1) * UNDO_BLOCK
    before = [each[last:].copy() for each in (guarded.p, guarded.m)]
    assert plain.update() == guarded.update(logged=True, summed=True) == -1
    np.testing.assert_array_equal(plain.p, guarded.p)
    np.testing.assert_array_equal(plain.m, guarded.m)
    # The log has the last block.
    assert guarded.cells[COUNT] == size - last
    assert guarded.cells[DONE] == blocks(size)
    for row, old in zip(guarded.log, before, strict=True):
        np.testing.assert_array_equal(row[: size - last], old)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_checksums_of_a_block_are_sums_of_every_fourth_word(size, dtype):
    case = Case(size, dtype)
    case.update(summed=True)
    for block in range(blocks(size)):
        for k, array in enumerate((case.p, case.m)):
            words = array[block * UNDO_BLOCK :][:UNDO_BLOCK].view(np.uint32).astype(np.uint64)
            expected = [int(words[i::SUM_WORDS].sum()) % 2**32 for i in range(SUM_WORDS)]
            assert case.sums[block, k].tolist() == expected
    noted = np.zeros_like(case.sums)
    assert block_sums((case.p, case.m), noted, NOTE) == -1
    np.testing.assert_array_equal(noted, case.sums)


@pytest.mark.parametrize("bit", [0, 12, 31])
@pytest.mark.parametrize("size", SIZES)
def test_flipped_bit_is_found_in_its_block_and_array(size, bit):
    for element in {0, size // 2, size - 1}:
        for k, name in enumerate("pm"):
            case = Case(size, np.float32)
            case.update(summed=True)
            getattr(case, name).view(np.uint32)[element] ^= np.uint32(1 << bit)
            expected = element // UNDO_BLOCK * 2 + k
            assert block_sums((case.p, case.m), case.sums, CHECK_ALL) == expected
            assert case.update(summed=True, first=CHECK_ALL) == expected
