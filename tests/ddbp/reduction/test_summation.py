"""The sum over shards against exact rational arithmetic: each addition is rounded once, and nothing
else touches the numbers.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddbp.reduction.shards import cut, dyadic
from layers.kernels import reduce

DTYPES = [np.float32, np.float64]
# Every example is small, but the first call of a kernel may compile it.
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)


# A slow twin of floating-point addition: exact, then rounded to the nearest number of the type,
# ties to even.


def rounded(exact, dtype):
    """Return the number of the type that is nearest to a fraction; infinity if it is beyond the
    largest by half a step or more.
    """
    if exact == 0:
        return dtype(0)
    info = np.finfo(dtype)
    exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    if abs(exact) < Fraction(2) ** exponent:
        exponent -= 1
    step = Fraction(2) ** max(exponent - info.nmant, info.minexp - info.nmant)
    nearest = round(exact / step) * step
    if abs(nearest) > Fraction(float(info.max)):
        return dtype(math.inf if nearest > 0 else -math.inf)
    return dtype(float(nearest))


def added(a, b, dtype):
    """Return a + b by IEEE 754, computed with fractions."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return dtype(float(a) + float(b))
    exact = Fraction(float(a)) + Fraction(float(b))
    if exact == 0:
        return dtype(-0.0 if math.copysign(1, a) < 0 and math.copysign(1, b) < 0 else 0.0)
    return rounded(exact, dtype)


def tree(numbers, dtype):
    """Return the sum by the tree whose left half holds the largest power of two of numbers that
    leaves one for the right.
    """
    if len(numbers) == 1:
        return numbers[0]
    left = 1 << ((len(numbers) - 1).bit_length() - 1)
    return added(tree(numbers[:left], dtype), tree(numbers[left:], dtype), dtype)


def height(shards):
    """Return the number of additions above the lowest number of the tree."""
    return (shards - 1).bit_length()


def summed(parts, sizes=None, start=0, stop=None):
    total = np.full((parts.shape[1] if stop is None else stop) - start, 77, parts.dtype)
    reduce.tree_sum(
        total,
        parts,
        np.ones(len(parts), np.int64) if sizes is None else np.array(sizes, np.int64),
        start,
    )
    return total


def bits(array):
    """Return the bits, but all NaNs alike: which of two NaNs an addition keeps is the processor's
    business.
    """
    return np.where(np.isnan(array), np.array(np.nan, array.dtype), array).tobytes()


# Numbers


@st.composite
def shards_of(draw, dtype, *, finite=True, most=20):
    """Return shards (S, n) of any finite numbers: zeros, denormals, the largest, and pairs that
    nearly cancel.
    """
    info = np.finfo(dtype)
    width = 8 * info.dtype.itemsize
    special = [
        0.0,
        -0.0,
        info.smallest_subnormal,
        -info.smallest_subnormal,
        info.tiny,
        info.max,
        -info.max,
        1.0,
        -1.0,
        1 + info.eps,
    ]
    any_number = st.floats(width=width, allow_nan=False, allow_infinity=False)
    element = st.one_of(any_number, st.sampled_from([float(value) for value in special]))
    if not finite:
        element = st.one_of(element, st.sampled_from([math.inf, -math.inf, math.nan]))
    shards, columns = draw(st.integers(1, most)), draw(st.integers(1, 4))
    rows = draw(
        st.lists(
            st.lists(element, min_size=columns, max_size=columns), min_size=shards, max_size=shards
        )
    )
    parts = np.array(rows, dtype)
    if draw(st.booleans()):
        # Shards that cancel others but for their last bits.
        for s in range(shards // 2):
            with np.errstate(all="ignore"):
                parts[shards - 1 - s] = -np.nextafter(
                    parts[s], dtype(draw(st.sampled_from([0, 1, -1])))
                )
    return parts


@pytest.mark.parametrize("dtype", DTYPES)
@EXAMPLES
@given(data=st.data())
def test_each_addition_is_exact_but_for_one_rounding(dtype, data):
    parts = data.draw(shards_of(dtype))
    expected = np.array([tree(list(column), dtype) for column in parts.T], dtype)
    assert bits(summed(parts)) == bits(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@EXAMPLES
@given(data=st.data())
def test_error_is_within_the_bound_of_the_height_of_the_tree(dtype, data):
    parts = data.draw(shards_of(dtype))
    unit, levels = Fraction(float(np.finfo(dtype).eps)) / 2, height(len(parts))
    for found, column in zip(summed(parts), parts.T, strict=True):
        exact, absolute = (
            sum(map(Fraction, map(float, terms))) for terms in (column, np.abs(column))
        )
        if not math.isfinite(found):
            # Only sums of numbers that together are beyond the type's range may overflow.
            assert rounded(absolute * (1 + unit) ** levels, dtype) == math.inf
            continue
        # Each term is rounded at most `levels` times (Higham 2002, section 4.2); sums that are
        # denormal are exact.
        assert abs(Fraction(float(found)) - exact) <= ((1 + unit) ** levels - 1) * absolute


@pytest.mark.parametrize("dtype", DTYPES)
@EXAMPLES
@given(data=st.data())
def test_nan_and_infinity_are_never_lost(dtype, data):
    parts = data.draw(shards_of(dtype, finite=False))
    for found, column in zip(summed(parts), parts.T, strict=True):
        infinities = set(column[np.isinf(column)].tolist())
        if np.isnan(column).any() or len(infinities) == 2:
            assert np.isnan(found)
        elif infinities:
            # Finite numbers may overflow to the other side before.
            assert found in infinities or np.isnan(found)
        assert bits(found[np.newaxis]) == bits(np.array([tree(list(column), dtype)], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@EXAMPLES
@given(data=st.data())
def test_sum_does_not_depend_on_which_ranks_and_hosts_sum_beforehand(dtype, data):
    parts = data.draw(shards_of(dtype, finite=False))
    shards = len(parts)
    ranks = data.draw(st.integers(1, shards))
    owned = cut(shards, ranks)
    first_ranks = sorted(data.draw(st.sets(st.integers(0, ranks - 1))) | {0})
    pieces = []
    for first, last in zip(first_ranks, [*first_ranks[1:], ranks], strict=True):
        pieces += dyadic(int(owned[first]), int(owned[last]))
    partial = np.array([summed(parts[first : first + size]) for first, size in pieces])
    assert bits(summed(partial, [size for _, size in pieces])) == bits(summed(parts))


@pytest.mark.parametrize("dtype", DTYPES)
@settings(EXAMPLES, max_examples=60)
@given(data=st.data())
def test_sum_does_not_depend_on_cuts_and_starts(dtype, data):
    n = data.draw(st.integers(1, 3 * reduce.BLOCK + 17))
    shards = data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    parts = (rng.standard_normal((shards, n)) * 10.0 ** rng.integers(-30, 31, (shards, n))).astype(
        dtype
    )
    near_blocks = st.builds(
        lambda block, by: block * reduce.BLOCK + by, st.integers(0, 3), st.integers(-2, 2)
    )
    cuts = data.draw(
        st.sets(
            st.one_of(st.integers(0, n), near_blocks.filter(lambda at: 0 <= at <= n)), max_size=6
        )
    )
    bounds = sorted(cuts | {0, n})
    pieces = [summed(parts, start=a, stop=b) for a, b in itertools.pairwise(bounds)]
    assert np.concatenate(pieces).tobytes() == summed(parts).tobytes()


# What the properties must meet by chance, for certain


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", range(1, 10))
def test_cancellation_leaves_what_is_exact(shards, dtype):
    # In pairs of neighbours everything goes but the last bit of one.
    large = np.full((shards, 3), np.finfo(dtype).max, dtype)
    large[1::2] *= -1
    if shards % 2 == 0:
        large[0] = np.nextafter(large[0], dtype(0))
        step = np.finfo(dtype).max - large[0]
        assert summed(large).tolist() == (-step).tolist()
    else:
        assert summed(large).tolist() == large[-1].tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 8, 13])
def test_denormals_are_added_exactly(shards, dtype):
    least = np.finfo(dtype).smallest_subnormal
    parts = np.arange(1, shards + 1, dtype=dtype)[:, np.newaxis] * np.full((1, 2100), least, dtype)
    assert (summed(parts) == dtype(shards * (shards + 1) // 2) * least).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [1, 2, 3, 8, 11])
def test_zeros_keep_their_sign(shards, dtype):
    assert np.signbit(summed(np.full((shards, 1030), -0.0, dtype))).all()
    mixed = np.full((shards, 1030), -0.0, dtype)
    mixed[shards // 2] = 0.0
    assert not np.signbit(summed(mixed)).any()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_special_number_comes_through_from_any_shard_and_place(dtype, special):
    width = 2 * reduce.BLOCK + 3
    for shards in (1, 2, 3, 5, 8):
        for shard in range(shards):
            for at in (0, 15, reduce.BLOCK - 1, reduce.BLOCK, width - 1):
                parts = np.ones((shards, width), dtype)
                parts[shard, at] = special
                total = summed(parts)
                assert np.flatnonzero(~np.isfinite(total)).tolist() == [at]
                np.testing.assert_equal(total[at], dtype(special))


@pytest.mark.parametrize("dtype", DTYPES)
def test_twin_rounds_as_the_processor_does(dtype):
    # The twin proves something only if it is addition: half-way cases to even, denormals, and the
    # edge of the range.
    info = np.finfo(dtype)
    numbers = [
        dtype(v)
        for v in (
            1,
            info.eps / 2,
            info.eps,
            3 * info.eps / 2,
            -1,
            info.tiny,
            info.smallest_subnormal,
            info.max,
        )
    ]
    numbers += [
        dtype(-0.0),
        dtype(0.0),
        np.nextafter(info.tiny, dtype(0)),
        dtype(info.max * (info.eps / 4)),
        dtype(1 / 3),
    ]
    with np.errstate(all="ignore"):
        for a in numbers:
            for b in numbers:
                assert bits(np.array([added(a, b, dtype)], dtype)) == bits(
                    np.array([a + b], dtype)
                ), (a, b)
