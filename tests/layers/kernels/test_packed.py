"""Packed moments against a slow twin, at the ends of their range, and under guards."""

import numpy as np
import pytest

from layers.kernels.packed import LINE_BYTES, packed_shape
from layers.kernels.updates import (
    CELLS,
    CHECK_ALL,
    COUNT,
    NOTE,
    SUM_WORDS,
    UNDO_BLOCK,
    adam,
    block_sums,
    kernel_of,
)

NO_RUNS, NO_CELLS = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
TYPES = [np.float32, np.float64]
CODES = [np.int8, np.uint8]
DITHER = 0.4


def taken(p, g, m):
    """Return p, and g as the moment."""
    return p, g


def told(p, g, m):
    """Return the moment as p."""
    return m, m


def update(formula, changed, g, scalars=(), log=None, cells=NO_CELLS, sums=None, first=CHECK_ALL):
    factors = np.ones(UNDO_BLOCK, g.dtype)
    scalars = (*scalars, DITHER)
    return kernel_of(formula)(
        *(changed, g, NO_RUNS, 1.0, factors, log, cells, 0, 0, sums, first, scalars)
    )


def packed(x, codes):
    """Return numbers as the kernel packs them."""
    result = np.zeros(packed_shape(x.size, x.dtype), codes)
    update(taken, (x.copy(), result), x)
    return result


def unpacked(array, dtype):
    """Return what the kernel takes a packed array for."""
    p = np.zeros(array.shape[0] * (array.shape[1] - 1), dtype)
    update(told, (p, array.copy()), p.copy())
    return p


def slow_dithers(line):
    """Return what is added to each element of a line ahead of rounding down."""
    bits = line.bit_length() - 1
    reversed_bits = [int(f"{i:0{bits}b}"[::-1], 2) / line for i in range(line)]
    return (DITHER + np.array(reversed_bits)) % 1


def slow_codes(x, codes):
    """Return the codes (lines, elements) of numbers, and the exponents of lines, by the formula of
    `layers.kernels.llvm.simd_packed`.
    """
    most, line = np.iinfo(codes).max, LINE_BYTES // x.itemsize
    lines = x.reshape(-1, line)
    exponents = np.frexp(np.abs(lines).max(axis=1))[1] - 1
    roots = np.sqrt(np.sqrt(np.abs(lines) * np.ldexp(x.dtype.type(1), -exponents)[:, None]))
    step = x.dtype.type(most / np.sqrt(np.sqrt(2)))
    found = np.floor(roots * step + slow_dithers(line).astype(x.dtype))
    if codes == np.uint8:
        found = np.where(lines > 0, np.maximum(found, 1), found)
    return (np.minimum(found, most) * np.sign(lines)).astype(codes), exponents


def numbers(codes, dtype, lines=40, spread=3.0):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(lines * LINE_BYTES // np.dtype(dtype).itemsize)
    x *= 10 ** rng.uniform(-spread, spread, x.size)
    x[rng.random(x.size) < 0.1] = 0
    return (np.abs(x) if codes == np.uint8 else x).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("codes", CODES)
def test_codes_are_those_of_the_slow_twin(codes, dtype):
    x = numbers(codes, dtype)
    found = packed(x, codes)
    expected, exponents = slow_codes(x, codes)
    np.testing.assert_array_equal(found[:, :-1], expected)
    np.testing.assert_array_equal(found[:, -1].view(np.uint8), exponents + 127)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("codes", CODES)
def test_numbers_come_back_within_a_step_of_their_codes(codes, dtype):
    x = numbers(codes, dtype, spread=1.0)
    most, line = np.iinfo(codes).max, LINE_BYTES // x.itemsize
    found = unpacked(packed(x, codes), dtype)
    tops = 2 * 2.0 ** np.floor(np.log2(np.abs(x.reshape(-1, line)).max(axis=1)))
    tops = np.repeat(tops, line)
    roots = [(np.abs(each) / tops) ** 0.25 * most for each in (found, x)]
    assert np.abs(roots[0] - roots[1]).max() < 1 + 1e-4
    assert (np.sign(found) * np.sign(x) >= 0).all()


@pytest.mark.parametrize("codes", CODES)
def test_moment_that_changes_slowly_follows_over_many_steps(codes):
    line = LINE_BYTES // 4
    m = np.zeros((1, line + 1), codes)
    p = np.zeros(line, np.float32)
    start, end = np.linspace(1, 2, line, dtype=np.float32), np.linspace(2, 1, line)
    update(taken, (p, m), start)
    factors = np.ones(UNDO_BLOCK, np.float32)

    def averaged(p, g, m):
        return p, m + (g - m) * 0.01

    kernel = kernel_of(averaged)
    for step in range(800):
        dither = step * 0.6180339887498949 % 1
        g = end.astype(np.float32)
        kernel((p, m), g, NO_RUNS, 1.0, factors, None, NO_CELLS, 0, 0, None, CHECK_ALL, (dither,))
    np.testing.assert_allclose(unpacked(m, np.float32), end, rtol=0.04)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("codes", CODES)
def test_zeros_stay_zeros_and_what_is_not_finite_stays_so(codes, dtype):
    line = LINE_BYTES // np.dtype(dtype).itemsize
    x = np.zeros(4 * line, dtype)
    x[line : 2 * line] = np.nan
    x[2 * line] = np.inf
    x[3 * line :] = 1e-42
    found = unpacked(packed(x, codes), dtype).reshape(4, line)
    assert (found[0] == 0).all()
    assert not np.isfinite(found[1]).any()
    assert not np.isfinite(found[2, 0])
    assert (np.abs(found[3]) < 2.0**-126).all()


def test_what_is_never_negative_never_becomes_zero():
    x = np.array([1.0, *[1e-30] * 15], np.float32)
    assert (unpacked(packed(x, np.uint8), np.float32) > 0).all()
    assert (unpacked(packed(x, np.int8), np.float32)[1:] == 0).all()


class Case:
    """Parameters and packed moments of Adam after a step."""

    def __init__(self, dtype, size=UNDO_BLOCK + 3 * 16):
        rng = np.random.default_rng(1)
        self.p, self.g = (rng.standard_normal(size).astype(dtype) for _ in range(2))
        shape = packed_shape(size, dtype)
        self.m, self.v = np.zeros(shape, np.int8), np.zeros(shape, np.uint8)
        self.log = np.full((3, UNDO_BLOCK), np.nan, dtype)
        self.cells = np.zeros(CELLS, np.int64)
        self.sums = np.zeros((2, 3, SUM_WORDS), np.uint32)
        self.step(sums=None)

    @property
    def arrays(self):
        return self.p, self.m, self.v

    def step(self, **guards):
        scalars = (0.1, 0.9, 0.999, 1e-8, 1.0)
        return update(adam, self.arrays, self.g, scalars, **guards)


@pytest.mark.parametrize("dtype", TYPES)
def test_guards_change_no_bit_and_the_log_has_what_was_there(dtype):
    plain, guarded = Case(dtype), Case(dtype)
    size = plain.p.size - UNDO_BLOCK
    before = [array[-(size // (array.shape[1] - 1)) :].copy() for array in guarded.arrays[1:]]
    plain.step()
    assert guarded.step(log=guarded.log, cells=guarded.cells, sums=guarded.sums, first=NOTE) == -1
    for one, other in zip(plain.arrays, guarded.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    assert guarded.cells[COUNT] == size
    for row, old in zip(guarded.log[1:], before, strict=True):
        np.testing.assert_array_equal(row.view(old.dtype)[: old.size], old.reshape(-1))


@pytest.mark.parametrize("dtype", TYPES)
def test_flipped_bit_of_a_packed_moment_is_found_in_its_block_and_array(dtype):
    for k, line, byte in [(1, 0, 0), (1, -1, -1), (2, 3, 5), (2, -1, 0), (1, 2, -1)]:
        case = Case(dtype)
        noted = np.zeros_like(case.sums)
        case.step(sums=case.sums, first=NOTE)
        assert block_sums(case.arrays, noted, NOTE) == -1
        np.testing.assert_array_equal(noted, case.sums)
        assert block_sums(case.arrays, case.sums, CHECK_ALL) == -1
        case.arrays[k].view(np.uint8)[line, byte] ^= 64
        expected = 3 * (line < 0) + k
        assert block_sums(case.arrays, case.sums, CHECK_ALL) == expected
        assert case.step(sums=case.sums, first=CHECK_ALL) == expected
