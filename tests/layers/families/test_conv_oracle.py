"""Convolutions against PyTorch: what they compute for windows, shapes and algorithms drawn at
random, and how exactly.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import layers
from layers import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Tape,
)
from layers.conv.algorithms import ALGORITHMS
from layers.conv.rounding import OPERATIONS, expected_error

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install 'ddbp[oracle]'"
)
F = torch.nn.functional

# Of the largest element, what an output or a gradient may be off, in roundings of its type. The
# longest sums here, gradients of weights over 1600 pixels, are off by 6 roundings in the mean if
# they are one chain (`layers.conv.rounding`), at most a few times that, and so is PyTorch's own in
# double precision. F(4 x 4), algorithm "fastest", multiplies by numbers up to 8 before sums in
# which most of that cancels: four times as much.
ROUNDINGS, ROUNDINGS_OF_F4 = 32, 120


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ours(layer, x, dy):
    """Return output and gradients (input, weight, bias), channels first and the weight in PyTorch's
    order.
    """
    tape = Tape()
    value = tape.input(x)
    y = layer(value)
    y.backward(dy(y.shape).astype(x.dtype))
    images = [np.moveaxis(a, -1, 1) for a in (y.array, value.grad)]
    return [
        *images,
        in_their_order(layer, layer.weight.gradient),
        *([] if layer.bias is None else [layer.bias.gradient]),
    ]


def in_their_order(layer, weight):
    weight = np.moveaxis(weight, (-1, -2), (0, 1))
    of_sequence = isinstance(layer, Conv1d | ConvTranspose1d)
    return np.ascontiguousarray(weight[:, :, 0] if of_sequence else weight)


def theirs(function, layer, x, dy, of=lambda array: array):
    """Return the same of PyTorch in double precision, of a function of all arrays."""
    arrays = [np.moveaxis(x, -1, 1), in_their_order(layer, layer.weight.value)]
    if layer.bias is not None:
        arrays.append(layer.bias.value)

    def tensor(array):
        return torch.tensor(of(np.ascontiguousarray(array).astype(np.float64)))

    tensors = [tensor(array).requires_grad_() for array in arrays]
    y = function(*tensors)
    shape = np.moveaxis(np.empty(y.shape), 1, -1).shape
    y.backward(tensor(np.moveaxis(dy(shape).astype(x.dtype), -1, 1)))
    return [y.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors)]


def errors(results, exact, squares):
    """Return the largest error of each array in roundings of its type, relative to its largest
    element; where all are sums that cancel, to the root of the sum of their terms' squares.
    """
    found = []
    for a, e, s in zip(results, exact, squares, strict=True):
        assert a.shape == e.shape
        # Where there is no term, nothing is there to be off.
        size = max(np.abs(e).max(), np.sqrt(s.max())) or 1
        found.append(np.abs(a - e).max() / size / np.finfo(a.dtype).eps)
    return np.array(found)


def assert_equal_to_pytorch(layer, x, seed, function, **options):
    def dy(shape):
        return np.random.default_rng(seed + 1).standard_normal(shape)

    if layer.bias is None:
        function_of = lambda x, w: function(x, w, None, **options)  # noqa: E731
    else:
        function_of = lambda x, w, b: function(x, w, b, **options)  # noqa: E731
    exact, squares = (theirs(function_of, layer, x, dy, of) for of in (np.array, np.square))
    found = errors(ours(layer, x, dy), exact, squares)
    assert found.max() <= (ROUNDINGS_OF_F4 if layer.algorithm == "fastest" else ROUNDINGS), found


def usual(bias, algorithm, dtype):
    return {
        "bias": bias,
        "bias_init": layers.init.normal(1),
        "algorithm": algorithm,
        "dtype": dtype,
    }


def drawn(least, most):
    return st.tuples(st.integers(least, most), st.integers(least, most))


common = {
    "dtype": st.sampled_from([np.float32, np.float64]),
    "algorithm": st.sampled_from(["default", "fastest", "direct"]),
    "samples": st.integers(1, 4),
    "image": drawn(1, 12),
    "size": drawn(1, 5),
    "stride": st.one_of(st.just((1, 1)), drawn(1, 3)),
    "padding": drawn(0, 3),
    "dilation": st.one_of(st.just((1, 1)), drawn(1, 3)),
    "groups": st.sampled_from([1, 1, 1, 2, 3]),
    # Of a group. Few channels, those of a vector or two, and one more and fewer.
    "inner": st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 20]),
    "outer": st.sampled_from([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33]),
    "bias": st.booleans(),
    "seed": st.integers(0, 99),
}


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


def relative_errors(results, exact):
    """Return the root mean square error of each array over that of the array, in units of single
    precision's unit roundoff.
    """
    return [
        float(np.sqrt(np.square(a - e).mean() / np.square(e).mean())) * 2**24
        for a, e in zip(results, exact, strict=True)
    ]


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


def assert_as_exact_as_expected(layer, x, function):
    def dy(shape):
        return np.random.default_rng(1).standard_normal(shape)

    found = relative_errors(ours(layer, x, dy), theirs(function, layer, x, dy))
    expected = [
        expected_error(layer.algorithm_for(x), operation, len(x)) for operation in OPERATIONS
    ]
    for operation, error, most in zip(OPERATIONS, found, expected, strict=True):
        assert most / 3 < error <= most, (operation, found, expected)
