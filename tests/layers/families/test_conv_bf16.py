"""Convolutions in bfloat16: the bits of products of unrolled windows with the weight."""

from itertools import pairwise

import numpy as np
import pytest

from layers.conv.algorithms import Direct
from layers.conv.tables import Axis, ConvShape, Window
from layers.conv.unrolled import Unrolled
from layers.kernels import underflow
from layers.precision import PRECISIONS

from ..bf16 import NAMES, PRODUCTS

CASES = {
    "padding": (2, (5, 6), (3, 7), Axis(3, 1, 1, 1, 1), 1),
    "many channels": (1, (4, 5), (35, 18), Axis(3, 1, 1, 1, 1), 1),
    "stride": (2, (9, 8), (5, 6), Axis(3, 2, 1, 1, 1), 1),
    "stride beyond the window": (2, (7, 7), (4, 5), Axis(1, 2, 0, 0, 1), 1),
    "stride of three": (1, (11, 10), (2, 3), Axis(2, 3, 1, 0, 1), 1),
    "dilation": (2, (7, 8), (3, 4), Axis(3, 1, 2, 2, 2), 1),
    "groups": (2, (6, 5), (6, 9), Axis(3, 1, 1, 1, 1), 3),
    "groups and stride": (3, (6, 5), (10, 4), Axis(3, 2, 1, 1, 1), 2),
    "padding on one side": (2, (6, 5), (1, 3), Axis(5, 1, 4, 0, 1), 1),
    "bands of an image": (2, (19, 33), (3, 2), Axis(3, 1, 1, 1, 1), 1),
    "long rows": (2, (2, 300), (2, 3), Axis(2, 1, 0, 1, 1), 1),
    "several images at a time": (41, (4, 3), (2, 3), Axis(2, 1, 0, 0, 1), 1),
}


class Call:
    """Runs kernels, with scratch of NaN."""

    def run(self, function, *arguments):
        function(*arguments)

    def scratch(self, dtype, *shapes):
        return [np.full(shape, -1, np.int32).view(dtype) for shape in shapes]


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def flushing():
    """Take subnormal numbers for 0, as a tape does."""
    mode = underflow.flush()
    yield
    underflow.restore(mode)


def surrounded(x, more):
    """Return images with so many zeros on each side."""
    return np.pad(x, ((0, 0), (more, more), (more, more), (0, 0)))


def windows(x, rows, columns, count, step):
    """Return what pixels (N, *count, taps, C) read: those at `step` times their place plus an
    offset of each tap, in the order of rows and columns of taps.
    """
    far = 20
    x = surrounded(x, far)
    parts = [
        x[
            :,
            far + e : far + e + (count[0] - 1) * step + 1 : step,
            far + f : far + f + (count[1] - 1) * step + 1 : step,
        ]
        for e in rows
        for f in columns
    ]
    return np.stack(parts, axis=3)


def unrolled_product(product, at, weight):
    """Return the product (N, P, Q, n) of windows (N, P, Q, taps, C) and a weight (taps, C, n)."""
    n, p, q, taps, channels = at.shape
    matrix = weight.reshape(taps * channels, weight.shape[2])
    return product(at.reshape(n * p * q, taps * channels), matrix).reshape(n, p, q, -1)


def in_groups(groups, *arrays):
    """Yield the parts of arrays whose last axis falls into so many groups."""
    yield from zip(*(np.split(x, groups, axis=-1) for x in arrays), strict=True)


def forward(product, x, weight, axis, outputs, groups):
    taps = [k * axis.dilation - axis.before for k in range(axis.size)]
    found = [
        unrolled_product(product, windows(part, taps, taps, outputs, axis.stride), w)
        for part, w in in_groups(groups, x, weight.reshape(axis.size**2, *weight.shape[2:]))
    ]
    return np.concatenate(found, axis=-1)


def backward(product, dy, weight, axis, image, groups):
    inner = weight.shape[2]
    dx = np.zeros((len(dy), *image, inner * groups), np.float32)
    # Of the pixels that lie equally to the stride, each reads the same taps of dy: the last tap
    # meets its first pixel.
    of_phase = [
        [
            (k, (a + axis.before - k * axis.dilation) // axis.stride)
            for k in reversed(range(axis.size))
            if (a + axis.before - k * axis.dilation) % axis.stride == 0
        ]
        for a in range(axis.stride)
    ]
    for a, rows in enumerate(of_phase):
        for b, columns in enumerate(of_phase):
            target = dx[:, a :: axis.stride, b :: axis.stride]
            if not (rows and columns and target.size):
                continue
            parts = []
            for part, w in in_groups(groups, dy, weight):
                at = windows(
                    part, [e for _, e in rows], [e for _, e in columns], target.shape[1:3], 1
                )
                taps = np.stack([w[k, q].T for k, _ in rows for q, _ in columns])
                parts.append(unrolled_product(product, at, taps))
            target[...] = np.concatenate(parts, axis=-1)
    return dx


def gradient(product, dy, x, axis, groups):
    """Return the weight's gradient of all images: 256 pixels are one product."""
    taps = [k * axis.dilation - axis.before for k in range(axis.size)]
    outputs = dy.shape[1:3]
    images, rows = max(1, 256 // (outputs[0] * outputs[1])), max(1, 256 // outputs[1])
    found = []
    for part, dz in in_groups(groups, x, dy):
        at = windows(part, taps, taps, outputs, axis.stride)
        total = np.zeros((dz.shape[3], axis.size**2 * part.shape[3]), np.float32)
        for n in range(0, len(x), images):
            for r in range(0, outputs[0], rows):
                block = at[n : n + images, r : r + rows]
                left = dz[n : n + images, r : r + rows].reshape(-1, dz.shape[3])
                total = total + product(left.T, block.reshape(len(left), -1))
        found.append(total.T.reshape(axis.size, axis.size, part.shape[3], -1))
    return np.concatenate(found, axis=-1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_all_three_products_have_the_bits_of_the_contract(case, name):
    samples, image, channels, axis, groups = CASES[case]
    window = Window(axis, axis, groups)
    outputs = window.output(*image)
    shape = ConvShape(window, image, outputs, channels)
    algorithm, call = Unrolled(shape, np.float32, PRECISIONS[name]), Call()
    product = PRODUCTS[name]
    x, dy = draw(samples, *image, channels[0]), draw(samples, *outputs, channels[1], seed=1)
    weight = draw(axis.size, axis.size, channels[0] // groups, channels[1], seed=2)
    bias, none = draw(channels[1]), np.empty(0, np.float32)

    y = np.full_like(dy, np.nan)
    algorithm.apply(call, y, x, weight, none, False)
    expected = forward(product, x, weight, axis, outputs, groups)
    np.testing.assert_array_equal(y, expected)
    algorithm.apply(call, y, x, weight, bias, True)
    np.testing.assert_array_equal(y, np.maximum(expected + bias, 0))

    dx = np.full_like(x, np.nan)
    algorithm.adjoint(call, dx, dy, weight, none, False)
    np.testing.assert_array_equal(dx, backward(product, dy, weight, axis, image, groups))

    bounds = np.array([0, samples // 2, samples, samples])
    before = draw(3, *weight.shape)
    for add in (False, True):
        dw = before.copy()
        algorithm.gradient(call, dw, dy, x, bounds, add)
        for s, (start, stop) in enumerate(pairwise(bounds)):
            part = gradient(product, dy[start:stop], x[start:stop], axis, groups)
            np.testing.assert_array_equal(dw[s], part + before[s] if add else part)


@pytest.mark.parametrize("name", NAMES)
def test_the_adjoint_adds_a_bias_and_rectifies_where_no_tap_reaches_too(name):
    axis = Axis(2, 3, 0, 0, 1)
    shape = ConvShape(Window(axis, axis), (8, 8), (3, 3), (4, 5))
    dy, weight, bias = draw(2, 3, 3, 5), draw(2, 2, 4, 5), draw(4)
    found = []
    for algorithm in (
        Unrolled(shape, np.float32, PRECISIONS[name]),
        Direct(shape, np.float32),
    ):
        dx = np.full((2, 8, 8, 4), np.nan, np.float32)
        algorithm.adjoint(Call(), dx, dy, weight, bias, True)
        found.append(dx)
    np.testing.assert_allclose(found[0], found[1], atol=0.1)
    np.testing.assert_array_equal(found[0][:, 2], np.broadcast_to(np.maximum(bias, 0), (2, 8, 4)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("steps", "image"), [((2, 1), (7, 9)), ((1, 2), (9, 7)), ((2, 2), (7, 1))])
def test_rows_of_pixels_that_do_not_follow_each_other_are_written_one_by_one(name, steps, image):
    rows, columns = (
        Axis(min(3, size), step, 0, 0, 1) for step, size in zip(steps, image, strict=True)
    )
    window = Window(rows, columns)
    shape = ConvShape(window, image, window.output(*image), (4, 5))
    dy, weight = draw(2, *shape.outputs, 5), draw(rows.size, columns.size, 4, 5)
    dx, expected = (np.full((2, *image, 4), np.nan, np.float32) for _ in range(2))
    Unrolled(shape, np.float32, PRECISIONS[name]).adjoint(Call(), dx, dy, weight, draw(0), False)
    Direct(shape, np.float32).adjoint(Call(), expected, dy, weight, draw(0), False)
    np.testing.assert_allclose(dx, expected, atol=0.1)
