"""Pooling of volumes against PyTorch, which sample's element wins, and what is refused."""

import numpy as np
import pytest

from layers import AvgPool3d, MaxPool3d, Tape


def both_ways(layer, x, dy):
    value = Tape().input(x)
    y = layer(value)
    y.backward(dy(y.shape))
    return y.array, value.grad


OPTIONS = [
    {"kernel_size": size, "stride": stride, "padding": padding, "ceil_mode": ceil}
    for size, padding in ((2, 0), (3, 1), ((1, 2, 3), (0, 1, 1)))
    for stride in (None, 1, (2, 1, 3))
    for ceil in (False, True)
]


# Small integers: many elements of a window are equal, and the first of them is the maximum.
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pools_of_volumes_are_those_of_pytorch_ties_included(options):
    torch = pytest.importorskip("torch", reason="the oracle: pip install 'ddbp[oracle]'")
    F, rng = torch.nn.functional, np.random.default_rng(0)
    x = rng.integers(-3, 3, (2, 5, 6, 7, 3)).astype(np.float64)
    for layer, function, more in (
        (MaxPool3d(**options), F.max_pool3d, {}),
        (AvgPool3d(**options), F.avg_pool3d, {}),
        (AvgPool3d(**options, count_padding=False), F.avg_pool3d, {"count_include_pad": False}),
    ):
        y, dx = both_ways(layer, x, lambda shape: np.random.default_rng(1).standard_normal(shape))
        theirs = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
        result = function(theirs, **options, **more)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        result.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))
        assert np.allclose(y, np.moveaxis(result.detach().numpy(), 1, -1), rtol=1e-14, atol=1e-14)
        assert np.allclose(dx, np.moveaxis(theirs.grad.numpy(), 1, -1), rtol=1e-13, atol=1e-13)


def test_nan_is_the_maximum_of_its_windows_alone():
    x = np.zeros((1, 4, 4, 4, 1), np.float32)
    x[0, 1, 2, 3] = np.nan
    y = MaxPool3d(2)(x)[0, ..., 0]
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MaxPool3d(0), ["MaxPool3d: kernel_size must", "one or three", "got 0"]),
        (lambda: MaxPool3d((2, 2)), ["kernel_size must be one or three", "(depth, rows, columns)"]),
        (lambda: AvgPool3d(2, 0), ["AvgPool3d: stride must", "got 0"]),
        (lambda: AvgPool3d(3, 1, 2), ["at most half the kernel size (3, 3, 3)", "got (2, 2, 2)"]),
        (lambda: MaxPool3d(2)(np.ones((2, 4, 4, 3))), ["(N, D, H, W, C)", "(2, 4, 4, 3)"]),
        (lambda: AvgPool3d(3)(np.ones((2, 2, 4, 4, 1))), ["the window (3, 3, 3) must fit"]),
        (lambda: MaxPool3d(1)(np.ones((1, 1, 1, 1, 1), int)), ["floating type", "int64"]),
    ],
)
def test_wrong_options_and_inputs_are_refused_by_name_value_and_fix(make, words):
    with pytest.raises((ValueError, TypeError), match="; got ") as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value


def test_representation_says_what_differs_from_the_usual():
    assert repr(MaxPool3d(2)) == "MaxPool3d((2, 2, 2))"
    assert repr(AvgPool3d(3, 2, 1, count_padding=False, ceil_mode=True)) == (
        "AvgPool3d((3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1), ceil_mode=True,"
        " count_padding=False)"
    )
