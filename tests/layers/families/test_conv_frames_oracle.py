"""Convolutions of volumes, and borders that are made from the image, against PyTorch: what they
compute, and how exactly.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layers import Conv1d, Conv2d, Conv3d, ConvTranspose3d
from layers.conv.algorithms import ALGORITHMS

from .conv_oracle import assert_as_exact_as_expected, assert_equal_to_pytorch, common, usual
from .oracle import F, torch

MODES = st.sampled_from(["zeros", "reflect", "replicate", "circular"])


def with_their_padding(function, ends, mode):
    """Return a convolution of PyTorch's over what its `pad` makes, which knows sides apart."""
    flat = [n for before_and_after in reversed(ends) for n in before_and_after]

    def padded_first(x, w, b=None, **options):
        x = F.pad(x, flat, mode="constant" if mode == "zeros" else mode)
        return function(x, w, b, **options)

    return padded_first


def assume_they_fit(image, ends, mode, size, dilation):
    most = {"reflect": -1, "circular": 0}.get(mode, 99)
    for length, around, k, d in zip(image, ends, size, dilation, strict=True):
        assume(max(around) <= length + most and length + sum(around) >= (k - 1) * d + 1)


sides = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    **{name: of for name, of in common.items() if name != "padding"},
    mode=MODES,
    ends=st.tuples(sides, sides),
)
def test_every_border_of_conv2d_is_that_of_pytorch(
    dtype,
    algorithm,
    samples,
    image,
    size,
    stride,
    dilation,
    groups,
    inner,
    outer,
    bias,
    seed,
    mode,
    ends,
):
    assume_they_fit(image, ends, mode, size, dilation)
    rng = np.random.default_rng(seed)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    layer = Conv2d(
        groups * inner,
        groups * outer,
        size,
        rng=rng,
        padding=ends,
        padding_mode=mode,
        **usual(bias, algorithm, dtype),
        **options,
    )
    x = rng.standard_normal((samples, *image, groups * inner)).astype(dtype)
    function = with_their_padding(F.conv2d, ends, mode)
    assert_equal_to_pytorch(layer, x, seed, function, **options)


def three(least, most):
    return st.tuples(*[st.integers(least, most)] * 3)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    **{name: common[name] for name in ("dtype", "algorithm", "groups", "bias", "seed")},
    samples=st.integers(1, 3),
    volume=three(1, 7),
    size=three(1, 3),
    stride=st.one_of(st.just((1, 1, 1)), three(1, 3)),
    dilation=st.one_of(st.just((1, 1, 1)), three(1, 2)),
    inner=st.sampled_from([1, 2, 3, 8, 16, 17]),
    outer=st.sampled_from([1, 2, 7, 16, 24]),
    mode=MODES,
    ends=st.tuples(sides, sides, sides),
)
def test_conv3d_is_that_of_pytorch(
    dtype,
    algorithm,
    samples,
    volume,
    size,
    stride,
    dilation,
    groups,
    inner,
    outer,
    bias,
    seed,
    mode,
    ends,
):
    assume_they_fit(volume, ends, mode, size, dilation)
    rng = np.random.default_rng(seed)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    layer = Conv3d(
        groups * inner,
        groups * outer,
        size,
        rng=rng,
        padding=ends,
        padding_mode=mode,
        **usual(bias, algorithm, dtype),
        **options,
    )
    x = rng.standard_normal((samples, *volume, groups * inner)).astype(dtype)
    function = with_their_padding(F.conv3d, ends, mode)
    assert_equal_to_pytorch(layer, x, seed, function, **options)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    **{name: common[name] for name in ("dtype", "algorithm", "groups", "bias", "seed")},
    samples=st.integers(1, 3),
    volume=three(1, 5),
    size=three(1, 3),
    stride=st.one_of(st.just((1, 1, 1)), three(1, 3)),
    padding=three(0, 2),
    dilation=st.one_of(st.just((1, 1, 1)), three(1, 2)),
    more=three(0, 2),
    inner=st.sampled_from([1, 2, 3, 8, 16, 17]),
    outer=st.sampled_from([1, 2, 7, 16, 24]),
)
def test_conv_transpose3d_is_that_of_pytorch(
    dtype,
    algorithm,
    samples,
    volume,
    size,
    stride,
    padding,
    dilation,
    groups,
    inner,
    outer,
    bias,
    seed,
    more,
):
    more = tuple(min(m, max(s, d) - 1) for m, s, d in zip(more, stride, dilation, strict=True))
    ends = [
        (length - 1) * s - 2 * p + (k - 1) * d + 1 + m
        for length, s, p, k, d, m in zip(volume, stride, padding, size, dilation, more, strict=True)
    ]
    assume(min(ends) > 0)
    rng = np.random.default_rng(seed)
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": more,
        "groups": groups,
        "dilation": dilation,
    }
    layer = ConvTranspose3d(
        groups * inner, groups * outer, size, rng=rng, **usual(bias, algorithm, dtype), **options
    )
    x = rng.standard_normal((samples, *volume, groups * inner)).astype(dtype)
    assert_equal_to_pytorch(layer, x, seed, F.conv_transpose3d, **options)


# The same options by the same names.
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(("layer", "ndim"), [(Conv1d, 1), (Conv2d, 2), (Conv3d, 3)])
@pytest.mark.parametrize("padding", [2, "same", "valid"])
def test_padding_and_its_mode_mean_what_they_mean_in_pytorch(layer, ndim, padding, mode):
    rng = np.random.default_rng(ndim)
    x = rng.standard_normal((2, *(6, 5, 4)[:ndim], 3))
    our = layer(3, 4, 3, rng=rng, padding=padding, padding_mode=mode, dtype=np.float64)
    name = layer.__name__
    their = getattr(torch.nn, name)(3, 4, 3, padding=padding, padding_mode=mode).double()

    def function(x, w, b):
        named = {"weight": w, "bias": b}
        return torch.func.functional_call(their, named, x)

    assert_equal_to_pytorch(our, x, 0, function)


# ---- how exactly


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("channels", "volume", "options"),
    [
        (16, (6, 16, 16), {"padding": 1}),
        (32, (5, 12, 12), {"padding": 1}),
        (3, (6, 16, 16), {"padding": 1}),
        (12, (7, 9, 8), {"stride": 2, "padding": 1}),
        (16, (9, 8, 8), {"dilation": (2, 1, 1)}),
        (12, (6, 9, 9), {"groups": 12}),
    ],
    ids=str,
)
def test_errors_of_volumes_follow_from_the_sums_too(channels, volume, options, algorithm):
    rng = np.random.default_rng(channels)
    layer = Conv3d(channels, channels, 3, rng=rng, bias=False, algorithm=algorithm, **options)
    x = rng.standard_normal((3, *volume, channels)).astype(np.float32)
    assert_as_exact_as_expected(layer, x, lambda x, w: F.conv3d(x, w, **options))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_errors_of_borders_follow_from_the_sums_too(mode):
    rng = np.random.default_rng(1)
    layer = Conv2d(16, 16, 3, rng=rng, bias=False, padding=1, padding_mode=mode)
    x = rng.standard_normal((4, 20, 20, 16)).astype(np.float32)
    function = with_their_padding(F.conv2d, ((1, 1), (1, 1)), mode)
    assert_as_exact_as_expected(layer, x, function)
