"""Products of numbers that are split into two bfloat16 numbers each."""

import numpy as np
import pytest

from layers.kernels import gemm_bf16, gemm_bf16x3

from ..bf16 import draw, rounded, split_chains

pytestmark = pytest.mark.usefixtures("subnormals_are_zero")

NO_BIAS = np.empty(0, np.float32)
SIZES = [(1, 1, 1), (5, 7, 3), (4, 3, 0), (33, 70, 129), (9, 17, 32), (300, 50, 300), (70, 130, 64)]


def packed(b, transposed=False):
    inner, n = b.shape[::-1] if transposed else b.shape
    size = gemm_bf16.packed_size(inner, n, gemm_bf16.CHAINS, gemm_bf16x3.PARTS)
    result = np.empty(size // 2, np.uint64)
    gemm_bf16x3.pack(result, b, transposed)
    return result


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_all_sizes_and_storages_have_the_bits_of_the_instruction(sizes):
    m, n, k = sizes
    a, b, bias, before = draw(m, k), draw(k, n, seed=1), draw(n), draw(m, n, seed=2)
    expected = split_chains(a, b)
    for transpose_a in (False, True):
        for transpose_b in (False, True):
            left = a.T.copy() if transpose_a else a
            right = b.T.copy() if transpose_b else b
            c = np.full((m, n), np.nan, np.float32)
            gemm_bf16x3.multiply(c, left, transpose_a, right, transpose_b, NO_BIAS, False)
            np.testing.assert_array_equal(c, expected)
            c = before.copy()
            gemm_bf16x3.multiply(c, left, transpose_a, right, transpose_b, bias, True)
            np.testing.assert_array_equal(c, (expected + before) + bias)
            c = np.full((m, n), np.nan, np.float32)
            gemm_bf16x3.multiply_packed(c, a, packed(right, transpose_b), bias, False)
            np.testing.assert_array_equal(c, expected + bias)


def test_panels_of_a_matrix_and_its_transpose_are_those_of_each():
    b = draw(70, 33)
    expected = packed(b), packed(b, transposed=True)
    found = [np.zeros_like(each) for each in expected]
    gemm_bf16x3.pack_both(*found, b)
    for panels, alone in zip(found, expected, strict=True):
        np.testing.assert_array_equal(panels, alone)


@pytest.mark.parametrize("k", [32, 300, 1000])
def test_errors_are_a_thousandth_of_those_of_bfloat16(k):
    a, b = draw(50, k), draw(k, 60, seed=1)
    exact = a.astype(np.float64) @ b
    c = np.empty((50, 60), np.float32)
    gemm_bf16x3.multiply(c, a, False, b, False, NO_BIAS, False)
    error = np.sqrt(np.mean((c - exact) ** 2) / np.mean(exact**2))
    in_bf16 = np.sqrt(np.mean((rounded(a) @ rounded(b) - exact) ** 2) / np.mean(exact**2))
    assert error < 6e-6
    assert error < in_bf16 / 250


def test_numbers_that_one_bfloat16_holds_are_multiplied_as_they_are():
    a, b = rounded(draw(9, 50)).astype(np.float32), rounded(draw(50, 20)).astype(np.float32)
    alone, split = np.empty((9, 20), np.float32), np.empty((9, 20), np.float32)
    gemm_bf16.multiply(alone, a, False, b, False, NO_BIAS, False)
    gemm_bf16x3.multiply(split, a, False, b, False, NO_BIAS, False)
    np.testing.assert_array_equal(split, alone)


def test_what_is_no_number_gives_none_and_subnormal_numbers_count_as_0():
    a = np.array([[np.nan, 1], [np.inf, 1], [3.4e38, 0], [1e-39, 1]], np.float32)
    c = np.empty((4, 2), np.float32)
    b = np.array([[1, -1], [0, 0]], np.float32)
    gemm_bf16x3.multiply(c, a, False, b, False, NO_BIAS, False)
    assert np.isnan(c[:3]).all()
    np.testing.assert_array_equal(c[3], [0, 0])
