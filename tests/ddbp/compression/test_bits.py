"""What workers send in 8 or 4 bits."""

import numpy as np
import pytest

from ddbp.compression.bits import Codes
from layers.kernels.machine import CACHE_LINE
from layers.kernels.rounded_sums import BLOCK_8 as BLOCK


def coded(numbers, bits):
    """Return the codes of numbers, and what they stand for."""
    codes = Codes(numbers.size, bits)
    sent = np.zeros(codes.nbytes, np.uint8)
    codes.encode(sent, numbers, sent)
    result = np.empty_like(numbers)
    codes.decode(result, sent, 0)
    return sent, result


def twin(numbers, bits):
    """Return what codes of numbers stand for, number by number."""
    most = 2 ** (bits - 1) - 1
    result = []
    for start in range(0, numbers.size, BLOCK):
        block = numbers[start : start + BLOCK]
        scale = np.float32(max(abs(x) for x in block)) / np.float32(most)
        result += [np.float32(round(float(x / scale)) if scale else 0) * scale for x in block]
    return np.array(result, np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [1, 255, 256, 1000])
def test_codes_stand_for_the_nearest_multiple_of_the_scale_of_a_block(bits, size):
    numbers = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    sent, result = coded(numbers, bits)
    np.testing.assert_array_equal(result, twin(numbers, bits))
    fields = -(-size // BLOCK) * 4, -(-size // BLOCK) * BLOCK * bits // 8
    assert sent.nbytes == sum(-(-nbytes // CACHE_LINE) * CACHE_LINE for nbytes in fields)


@pytest.mark.parametrize("bits", [4, 8])
def test_coding_what_codes_stand_for_changes_nothing(bits):
    numbers = np.random.default_rng(0).standard_normal(700).astype(np.float32)
    sent, result = coded(numbers, bits)
    again, _ = coded(result, bits)
    np.testing.assert_array_equal(again, sent)


@pytest.mark.parametrize("bits", [4, 8])
def test_any_range_can_be_read_alone(bits):
    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    sent, result = coded(numbers, bits)
    part = np.empty(400, np.float32)
    Codes(1000, bits).decode(part, sent, 2 * BLOCK + 3)
    np.testing.assert_array_equal(part, result[2 * BLOCK + 3 : 2 * BLOCK + 403])


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros_and_what_is_not_finite_is_seen(bits):
    numbers = np.zeros(600, np.float32)
    assert not coded(numbers, bits)[1].any()
    numbers[300] = np.nan
    result = coded(numbers, bits)[1]
    assert np.isnan(result[256:512]).all()
    assert not result[:256].any()
