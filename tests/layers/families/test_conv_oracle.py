"""Convolutions against PyTorch: what they compute for windows, shapes and algorithms drawn at
random, and how exactly.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import layers
from layers import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from layers.conv.algorithms import ALGORITHMS

from .conv_oracle import (
    assert_as_exact_as_expected,
    assert_equal_to_pytorch,
    common,
    drawn,
    usual,
)
from .oracle import F


@settings(max_examples=300, deadline=None, derandomize=True)
@given(**common)
def test_conv2d_is_that_of_pytorch(
    dtype,
    algorithm,
    samples,
    image,
    size,
    stride,
    padding,
    dilation,
    groups,
    inner,
    outer,
    bias,
    seed,
):
    spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    assume(
        all(length + 2 * p >= span for length, p, span in zip(image, padding, spans, strict=True))
    )
    rng = np.random.default_rng(seed)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = Conv2d(
        groups * inner, groups * outer, size, rng=rng, **usual(bias, algorithm, dtype), **options
    )
    x = rng.standard_normal((samples, *image, groups * inner)).astype(dtype)
    assert_equal_to_pytorch(layer, x, seed, F.conv2d, **options)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(**common, more=drawn(0, 2))
def test_conv_transpose2d_is_that_of_pytorch(
    dtype,
    algorithm,
    samples,
    image,
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
        for length, s, p, k, d, m in zip(image, stride, padding, size, dilation, more, strict=True)
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
    layer = ConvTranspose2d(
        groups * inner, groups * outer, size, rng=rng, **usual(bias, algorithm, dtype), **options
    )
    x = rng.standard_normal((samples, *image, groups * inner)).astype(dtype)
    assert_equal_to_pytorch(layer, x, seed, F.conv_transpose2d, **options)


wide = {
    **common,
    "image": drawn(1, 20),
    "channels": st.integers(2, 35),
    "outputs": st.sampled_from([1, 1, 2, 3]),
}
del wide["groups"], wide["inner"], wide["outer"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(**wide)
def test_depthwise_conv2d_is_that_of_pytorch(
    dtype, algorithm, samples, image, size, stride, padding, dilation, channels, outputs, bias, seed
):
    spans = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    assume(
        all(length + 2 * p >= span for length, p, span in zip(image, padding, spans, strict=True))
    )
    rng = np.random.default_rng(seed)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels}
    layer = Conv2d(
        channels, channels * outputs, size, rng=rng, **usual(bias, algorithm, dtype), **options
    )
    x = rng.standard_normal((samples, *image, channels)).astype(dtype)
    assert_equal_to_pytorch(layer, x, seed, F.conv2d, **options)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    **{name: common[name] for name in ("dtype", "inner", "outer", "groups", "seed")},
    length=st.integers(1, 30),
    size=st.integers(1, 6),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_conv1d_is_that_of_pytorch(
    dtype, inner, outer, groups, length, size, stride, padding, dilation, seed
):
    assume(length + 2 * padding >= (size - 1) * dilation + 1)
    rng = np.random.default_rng(seed)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = Conv1d(
        groups * inner,
        groups * outer,
        size,
        rng=rng,
        bias_init=layers.init.normal(1),
        dtype=dtype,
        **options,
    )
    x = rng.standard_normal((2, length, groups * inner)).astype(dtype)
    assert_equal_to_pytorch(layer, x, seed, F.conv1d, **options)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    **{name: common[name] for name in ("dtype", "inner", "outer", "groups", "seed")},
    length=st.integers(1, 20),
    size=st.integers(1, 6),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    more=st.integers(0, 2),
)
def test_conv_transpose1d_is_that_of_pytorch(
    dtype, inner, outer, groups, length, size, stride, padding, dilation, seed, more
):
    more = min(more, max(stride, dilation) - 1)
    assume((length - 1) * stride - 2 * padding + (size - 1) * dilation + 1 + more > 0)
    rng = np.random.default_rng(seed)
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": more,
        "dilation": dilation,
        "groups": groups,
    }
    layer = ConvTranspose1d(
        groups * inner,
        groups * outer,
        size,
        rng=rng,
        bias_init=layers.init.normal(1),
        dtype=dtype,
        **options,
    )
    x = rng.standard_normal((2, length, groups * inner)).astype(dtype)
    assert_equal_to_pytorch(layer, x, seed, F.conv_transpose1d, **options)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    dtype=common["dtype"],
    algorithm=st.sampled_from(["default", "fastest"]),
    samples=st.integers(1, 4),
    image=drawn(3, 17),
    padding=drawn(0, 2),
    channels=st.tuples(
        st.sampled_from([15, 16, 17, 24, 32, 48]), st.sampled_from([15, 16, 24, 31, 32, 40])
    ),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_winograd_and_its_neighbours_are_those_of_pytorch(
    dtype, algorithm, samples, image, padding, channels, bias, seed
):
    rng = np.random.default_rng(seed)
    layer = Conv2d(
        *channels,
        3,
        rng=rng,
        padding=padding,
        bias=bias,
        bias_init=layers.init.normal(1),
        algorithm=algorithm,
        dtype=dtype,
    )
    x = rng.standard_normal((samples, *image, channels[0])).astype(dtype)
    assert_equal_to_pytorch(layer, x, seed, F.conv2d, padding=padding)


# Of even sizes PyTorch says that they may cost it a copy.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (2, 1), (3, 2), (4, 1), ((2, 5), (3, 1))])
def test_same_is_that_of_pytorch(dtype, size, dilation):
    rng = np.random.default_rng(2)
    layer = Conv2d(5, 9, size, rng=rng, padding="same", dilation=dilation, dtype=dtype)
    x = rng.standard_normal((2, 9, 6, 5)).astype(dtype)
    assert_equal_to_pytorch(layer, x, 0, F.conv2d, padding="same", dilation=dilation)


# Images of 260 and 520 kB: three bands of rows or more, in all three directions, and several blocks
# of tiles.
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {},
        {"padding": 1, "algorithm": "direct"},
        {"algorithm": "direct"},
        {"padding": 1, "algorithm": "fastest"},
        {"stride": 2, "padding": 1},
        {"stride": (3, 2)},
        {"dilation": 2, "padding": (3, 0)},
        {"groups": 2, "padding": (0, 2)},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_image_of_several_bands_is_that_of_pytorch(dtype, options, kind):
    rng = np.random.default_rng(4)
    layer = kind(48, 48, 3, rng=rng, bias_init=layers.init.normal(1), dtype=dtype, **options)
    x = rng.standard_normal((2, 45, 30, 48)).astype(dtype)
    function = F.conv2d if kind is Conv2d else F.conv_transpose2d
    assert_equal_to_pytorch(
        layer,
        x,
        0,
        function,
        **{name: value for name, value in options.items() if name != "algorithm"},
    )


# ---- how exactly

# Channels, side of the images, number of images: the three stages of a small residual network, its
# first layer, sums longer than a chain, and images that tiles do not fill.
SHAPES = [(16, 32, 4), (32, 16, 4), (64, 8, 4), (3, 32, 4), (128, 8, 2), (24, 9, 3)]


# A mean over thousands of errors hardly varies from one draw to another, nor from one processor to
# another: what is rounded is the same on all.
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_errors_are_those_that_follow_from_the_lengths_of_the_sums(shape, algorithm):
    channels, side, images = shape
    rng = np.random.default_rng(channels)
    layer = Conv2d(channels, channels, 3, rng=rng, padding=1, bias=False, algorithm=algorithm)
    x = rng.standard_normal((images, side, side, channels)).astype(np.float32)
    assert_as_exact_as_expected(layer, x, lambda x, w: F.conv2d(x, w, padding=1))
