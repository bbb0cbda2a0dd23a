"""Pooling and other layers for images: against PyTorch, at ties and NaN, and joined with the layers
before them.
"""

import numpy as np
import pytest

import layers
from layers import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    ChannelsFirst,
    ChannelsLast,
    Dropout2d,
    GlobalAveragePool,
    MaxPool1d,
    MaxPool2d,
    ReLU,
    Sequential,
    Tape,
)
from layers.fusion import fuse
from layers.kernels import pool

from .oracle import torch

# A mean over all of an image has at most 143 terms here, and is taken in another order.
ROUNDINGS = 64

SHAPES = [(3, 8, 8, 3), (2, 9, 7, 1), (2, 5, 6, 16), (1, 11, 13, 37), (2, 4, 4, 64)]
WINDOWS = [
    (2, 2, 0),
    (2, 1, 0),
    (3, 2, 1),
    (3, 1, 1),
    (3, 3, 0),
    (4, 2, 2),
    ((2, 3), (3, 1), (1, 0)),
    ((1, 3), (2, 2), (0, 1)),
]

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def passes(layer, x, dy=None, **options):
    """Return the output, its gradient (drawn unless given) and the gradient of the input."""
    value = Tape(**options).input(x)
    y = layer(value)
    if dy is None:
        dy = np.asarray(np.random.default_rng(1).standard_normal(y.shape), x.dtype)
    y.backward(dy)
    return y.array, dy, value.grad


def assert_like_theirs(layer, theirs, x):
    """Compare with a function of PyTorch that takes and returns channels-first images."""
    y, dy, dx = passes(layer, x)
    their_x = torch.tensor(x, requires_grad=True)
    their_y = theirs(their_x.permute(0, 3, 1, 2))
    their_y = their_y.permute(0, 2, 3, 1) if their_y.ndim == 4 else their_y
    their_y.backward(torch.tensor(dy))
    for name, ours, expected in (
        ("output", y, their_y.detach().numpy()),
        ("gradient", dx, their_x.grad.numpy()),
    ):
        assert ours.shape == expected.shape, name
        assert ours.dtype == x.dtype, name
        atol = ROUNDINGS * np.finfo(x.dtype).eps * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=atol, err_msg=name)


def images(rng, shape, dtype, ties):
    """Return images, of small integers if there are to be ties."""
    return (rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)).astype(dtype)


@both_dtypes
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_max_pool_equals_that_of_pytorch(rng, shape, window, ties, dtype):
    def theirs(x):
        return torch.nn.functional.max_pool2d(x, *window)

    x = images(rng, shape, dtype, ties)
    assert_like_theirs(MaxPool2d(*window), theirs, x)
    assert_like_theirs(Sequential(ReLU(), MaxPool2d(*window)), lambda x: theirs(torch.relu(x)), x)


@both_dtypes
@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_average_pool_equals_that_of_pytorch(rng, shape, window, count_padding, dtype):
    def theirs(x):
        return torch.nn.functional.avg_pool2d(x, *window, count_include_pad=count_padding)

    assert_like_theirs(
        AvgPool2d(*window, count_padding), theirs, images(rng, shape, dtype, ties=False)
    )


CEIL_WINDOWS = [
    ((2, 2), (2, 2), (1, 1)),
    ((3, 3), (2, 2), (0, 0)),
    ((3, 3), (2, 2), (1, 1)),
    ((2, 3), (3, 2), (1, 0)),
    ((3, 2), (5, 4), (1, 1)),
]


@pytest.mark.parametrize("window", CEIL_WINDOWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_windows_of_what_is_left_over_equal_those_of_pytorch(rng, shape, window):
    x = images(rng, shape, np.float64, ties=True)
    assert_like_theirs(
        MaxPool2d(*window, ceil_mode=True),
        lambda x: torch.nn.functional.max_pool2d(x, *window, ceil_mode=True),
        x,
    )
    for count_padding in (True, False):
        assert_like_theirs(
            AvgPool2d(*window, count_padding, ceil_mode=True),
            lambda x, counted=count_padding: torch.nn.functional.avg_pool2d(
                x, *window, ceil_mode=True, count_include_pad=counted
            ),
            x,
        )


@pytest.mark.parametrize("outputs", [(1, 1), (2, 3), (5, 4), (7, 9)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_adaptive_pools_have_the_bins_of_pytorch(rng, shape, outputs):
    x = images(rng, shape, np.float64, ties=True)
    functional = torch.nn.functional
    assert_like_theirs(
        AdaptiveAvgPool2d(outputs), lambda x: functional.adaptive_avg_pool2d(x, outputs), x
    )
    assert_like_theirs(
        AdaptiveMaxPool2d(outputs), lambda x: functional.adaptive_max_pool2d(x, outputs), x
    )


@both_dtypes
@pytest.mark.parametrize("shape", [(3, 8, 3), (2, 13, 37), (1, 5, 16)], ids=str)
def test_pools_of_sequences_equal_those_of_pytorch(rng, shape, dtype):
    x = images(rng, shape, dtype, ties=True)
    functional = torch.nn.functional
    for ours, theirs in (
        (MaxPool1d(2), lambda x: functional.max_pool1d(x, 2)),
        (MaxPool1d(3, 2, 1), lambda x: functional.max_pool1d(x, 3, 2, 1)),
        (MaxPool1d(2, 3, 1, ceil_mode=True), lambda x: functional.max_pool1d(x, 2, 3, 1, 1, True)),
        (AvgPool1d(3, 2, 1), lambda x: functional.avg_pool1d(x, 3, 2, 1)),
        (
            AvgPool1d(2, 3, 1, False, ceil_mode=True),
            lambda x: functional.avg_pool1d(x, 2, 3, 1, True, False),
        ),
        (AdaptiveAvgPool1d(3), lambda x: functional.adaptive_avg_pool1d(x, 3)),
        (AdaptiveMaxPool1d(3), lambda x: functional.adaptive_max_pool1d(x, 3)),
    ):
        y, dy, dx = passes(ours, x)
        their_x = torch.tensor(x, requires_grad=True)
        their_y = theirs(their_x.transpose(1, 2)).transpose(1, 2)
        their_y.backward(torch.tensor(dy))
        np.testing.assert_allclose(y, their_y.detach(), rtol=1e-5, atol=1e-6, err_msg=repr(ours))
        np.testing.assert_allclose(dx, their_x.grad, rtol=1e-5, atol=1e-6, err_msg=repr(ours))


@both_dtypes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_global_average_equals_that_of_pytorch(rng, shape, dtype):
    assert_like_theirs(
        GlobalAveragePool(), lambda x: x.mean((2, 3)), images(rng, shape, dtype, ties=False)
    )


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.uint8, np.complex128], ids=lambda dtype: dtype.__name__
)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 40, 3, 11), (0, 3, 4, 5), (2, 1, 1, 1)], ids=str)
def test_channels_first_and_last_only_move_numbers(rng, shape, dtype):
    x = images(rng, shape, np.int64, ties=True).astype(dtype)
    for layer, axes in ((ChannelsFirst(), (0, 3, 1, 2)), (ChannelsLast(), (0, 2, 3, 1))):
        expected = x.transpose(axes)
        assert layer(x).tobytes() == expected.tobytes()
        if dtype in (np.float32, np.float64):
            y, _, dx = passes(layer, x, expected)
            assert y.shape == expected.shape
            assert dx.tobytes() == x.tobytes()


# ---- ties, infinities and NaN


def test_gradient_of_a_tie_goes_to_the_first_in_row_order():
    x = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]], np.float32).reshape(1, 3, 3, 1)
    _, _, dx = passes(MaxPool2d(2, 1), x, np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2, 1))
    # Windows 0 and 1 both begin in row 0 and find its 1; windows 2 and 3 find the first and the
    # second 1 of row 1.
    assert dx[0, :, :, 0].tolist() == [[0, 3, 0], [3, 4, 0], [0, 0, 0]]


@pytest.mark.parametrize("channels", [1, 5, 16, 20])
def test_window_with_nan_has_the_maximum_nan_and_its_gradient_goes_there(channels):
    for place in np.ndindex(2, 2):
        x = np.zeros((1, 4, 4, channels), np.float32)
        x[0, place[0], 2 + place[1], -1] = np.nan
        y, dy, dx = passes(MaxPool2d(2), x)
        assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 1, channels - 1]]
        assert dx[0, place[0], 2 + place[1], -1] == dy[0, 0, 1, -1]


def test_padding_counts_as_minus_infinity():
    x = np.full((1, 3, 3, 2), -5, np.float32)
    y, _, _ = passes(MaxPool2d(3, 2, 1), x)
    assert (y == -5).all()
    x[...] = -np.inf
    y, dy, dx = passes(MaxPool2d(2, 1, 1), x)
    assert (y == -np.inf).all()
    assert dx.sum() == pytest.approx(dy.sum(), rel=1e-5), (
        "the gradient of -∞ is not lost to the padding"
    )


def test_constant_image_stays_constant_under_averages_without_padding():
    x = np.full((2, 7, 5, 3), 0.75, np.float32)
    assert (AvgPool2d(3, 2, 1, count_padding=False)(x) == 0.75).all()
    assert (GlobalAveragePool()(x) == 0.75).all()
    corner = AvgPool2d(3, 2, 1)(x)[:, 0, 0]
    np.testing.assert_allclose(corner, 0.75 * 4 / 9, rtol=1e-6)


# ---- joined layers


@both_dtypes
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_relu_and_max_pool_joined_give_the_bits_of_both_apart(rng, shape, window, dtype):
    pooling = MaxPool2d(*window)
    x = images(rng, shape, dtype, ties=True)
    x.reshape(-1)[::7] *= 0.25
    x.reshape(-1)[::13] = -0.0
    x.reshape(-1)[::29] = np.nan
    x.reshape(-1)[5::31] = np.inf
    joined = Sequential(ReLU(), pooling)
    assert len(fuse(joined.layers)) == 1
    for a, b in zip(passes(joined, x), passes(lambda x: pooling(ReLU()(x)), x), strict=True):
        assert a.tobytes() == b.tobytes()


@both_dtypes
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_backward_through_relu_takes_the_input_before_or_after_relu(rng, window, dtype):
    z = images(rng, (2, 9, 8, 5), dtype, ties=True)
    pooling = MaxPool2d(*window)
    y, dy, expected = passes(Sequential(ReLU(), pooling), z)
    for x in (z, np.maximum(z, 0)):
        dx = np.full_like(z, np.nan)
        pool.maximum_backward(dx, dy, y, x, *pooling.windows(x), True)
        assert dx.tobytes() == expected.tobytes()


# ---- Dropout2d


def test_whole_channels_are_dropped():
    x = np.ones((50, 3, 4, 40), np.float32)
    y, _, _ = passes(Dropout2d(0.3), x, training=True, seed=2)
    first = y[:, :1, :1]
    assert (y == first).all()
    assert set(np.unique(first)) == {0, np.float32(1 / 0.7)}
    assert abs((first == 0).mean() - 0.3) < 6 * np.sqrt(0.3 * 0.7 / first.size)


def test_masks_of_channels_are_those_of_dropout_on_channels():
    x = np.ones((6, 2, 3, 9))
    y, _, _ = passes(Dropout2d(0.5), x, training=True, seed=4, step=3, first_sample=10)
    mask, _, _ = passes(
        layers.Dropout(0.5), x[:, 0, 0], training=True, seed=4, step=3, first_sample=10
    )
    assert (y[:, 1, 2] == mask).all()


# ---- refusals

x32 = np.ones((2, 6, 6, 3), np.float32)

REFUSED = [
    (
        MaxPool2d(2),
        x32[0],
        ValueError,
        ["MaxPool2d(2)", "(N, H, W, C)", "(6, 6, 3)", "x.transpose(0, 2, 3, 1)"],
    ),
    (AvgPool2d(2), x32[..., 0], ValueError, ["AvgPool2d(2)", "(N, H, W, C)", "(2, 6, 6)"]),
    (GlobalAveragePool(), x32[0], ValueError, ["GlobalAveragePool()", "(N, H, W, C)", "(6, 6, 3)"]),
    (
        GlobalAveragePool(),
        x32[:, :0],
        ValueError,
        ["GlobalAveragePool()", "at least one element", "(2, 0, 6, 3)"],
    ),
    (MaxPool1d(2), x32, ValueError, ["MaxPool1d(2)", "(N, T, C)", "(2, 6, 6, 3)"]),
    (AvgPool1d(9), x32[0], ValueError, ["AvgPool1d(9)", "(1, 9)", "(6, 1, 6, 3)"]),
    (AdaptiveAvgPool1d(2), x32[:, 0, 0], ValueError, ["AdaptiveAvgPool1d(2)", "(N, T, C)"]),
    (AdaptiveMaxPool2d(2), x32[:, :0], ValueError, ["AdaptiveMaxPool2d(2)", "at least one"]),
    (Dropout2d(0.5), x32[0], ValueError, ["Dropout2d(0.5)", "(N, H, W, C)", "(6, 6, 3)"]),
    (ChannelsLast(), x32[0], ValueError, ["ChannelsLast()", "(N, C, H, W)", "(6, 6, 3)"]),
    (ChannelsFirst(), x32[0], ValueError, ["ChannelsFirst()", "(N, H, W, C)", "(6, 6, 3)"]),
    (MaxPool2d(7), x32, ValueError, ["MaxPool2d(7)", "(7, 7)", "padded image", "(2, 6, 6, 3)"]),
    (
        AvgPool2d((1, 9), padding=(0, 1)),
        x32,
        ValueError,
        ["AvgPool2d((1, 9), padding=(0, 1))", "(1, 9)", "(2, 6, 6, 3)"],
    ),
    (MaxPool2d(2), x32.astype(int), TypeError, ["MaxPool2d(2)", "floating", "int64", "astype"]),
    (MaxPool2d(2), x32.astype(complex), TypeError, ["MaxPool2d(2)", "real", "complex128"]),
    (
        AvgPool2d(2),
        x32.astype(np.uint8),
        TypeError,
        ["AvgPool2d(2)", "floating", "uint8", "astype"],
    ),
    (GlobalAveragePool(), x32.astype(int), TypeError, ["GlobalAveragePool()", "floating", "int64"]),
    (Dropout2d(0.5), x32.astype(int), TypeError, ["Dropout2d(0.5)", "floating", "int64"]),
    (
        Sequential(ReLU(), MaxPool2d(2)),
        x32[0],
        ValueError,
        ["MaxPool2d(2)", "(N, H, W, C)", "(6, 6, 3)"],
    ),
]


@pytest.mark.parametrize(
    ("layer", "x", "error", "words"),
    REFUSED,
    ids=[f"{row[0]!r}-{i}" for i, row in enumerate(REFUSED)],
)
def test_wrong_inputs_are_refused_by_name_shape_and_fix(layer, x, error, words):
    with pytest.raises(error) as caught:
        layer(x)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "; got " in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel_size": 0}, ["kernel_size", "at least 1", "0"]),
        ({"kernel_size": (2, 2, 2)}, ["kernel_size", "(2, 2, 2)", "(rows, columns)"]),
        ({"kernel_size": 2.5}, ["kernel_size", "2.5"]),
        ({"kernel_size": 2, "stride": 0}, ["stride", "at least 1"]),
        ({"kernel_size": 2, "padding": -1}, ["padding", "at least 0"]),
        ({"kernel_size": 3, "padding": 2}, ["padding", "half the kernel size (3, 3)", "(2, 2)"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [MaxPool2d, AvgPool2d])
def test_impossible_windows_are_refused(make, options, words):
    with pytest.raises(ValueError, match="; got ") as caught:
        make(**options)
    assert all(word in str(caught.value) for word in [make.__name__, *words]), caught.value


def test_options_are_shown_as_they_are_written():
    assert repr(MaxPool2d(2, 2)) == "MaxPool2d(2)"
    assert repr(MaxPool2d(3, 2, 1)) == "MaxPool2d(3, stride=2, padding=1)"
    assert (
        repr(AvgPool2d((2, 3), 1, count_padding=False))
        == "AvgPool2d((2, 3), stride=1, count_padding=False)"
    )
    assert repr(Dropout2d(0.3)) == "Dropout2d(0.3)"
    assert repr(MaxPool1d(3, 2, 1)) == "MaxPool1d(3, stride=2, padding=1)"
    assert (
        repr(AvgPool1d(2, ceil_mode=True, count_padding=False))
        == "AvgPool1d(2, ceil_mode=True, count_padding=False)"
    )
    assert repr(AdaptiveAvgPool2d((3, 4))) == "AdaptiveAvgPool2d((3, 4))"
    assert repr(AdaptiveMaxPool1d(4)) == "AdaptiveMaxPool1d(4)"
    assert repr(GlobalAveragePool()) == "GlobalAveragePool()"
