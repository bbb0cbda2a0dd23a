"""Numbers at the ends of the range, infinities and NaN: functions have their limits, underflow
gives 0, and NaN is not lost.
"""

import numpy as np
import pytest

import layers
from layers import Tape

from .contract import BATCH, CASES, Run, make, of_cases
from .oracle import torch

DTYPES = [np.float32, np.float64]
either = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
inf, nan = np.inf, np.nan


def numbers(dtype):
    """Return numbers over the whole range, of both signs, but for the infinities."""
    info = np.finfo(dtype)
    sizes = np.geomspace(np.longdouble(info.tiny), info.max, 400)
    near = np.linspace(0, -1.1 * info.minexp * np.log(2), 400)
    sizes = np.concatenate([sizes[:-1], near, [info.max]]).astype(dtype)
    return np.concatenate([-sizes, sizes])


def sigmoid(x):
    return np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x)))


def slope(x):
    return np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))) ** 2


def weight_of_mish(x):
    t = np.exp(-np.abs(x))
    return np.where(
        x > 0, (1 + 2 * t) / (1 + 2 * t + 2 * t * t), (t * t + 2 * t) / (2 + t * (t + 2))
    )


def mish(x):
    return x * weight_of_mish(x)


def mish_slope(x):
    w = weight_of_mish(x)
    return w + x * (1 - w * w) * sigmoid(x)


# Layer, function and derivative, in numbers that are wide enough for both.
FUNCTIONS = {
    "Sigmoid": (layers.Sigmoid(), sigmoid, slope),
    "Tanh": (layers.Tanh(), np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "SiLU": (
        layers.SiLU(),
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) + x * slope(x),
    ),
    "Mish": (layers.Mish(), mish, mish_slope),
    "ReLU": (layers.ReLU(), lambda x: np.maximum(x, 0), lambda x: x > 0),
}


@either
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_right_over_the_whole_range(name, dtype):
    layer, function, derivative = FUNCTIONS[name]
    x = numbers(dtype)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    value = Tape(training=True).input(x)
    y = layer(value)
    y.backward(np.ones_like(x))
    wide = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        exact, slope = (f(wide).astype(dtype) for f in (function, derivative))
    # What is left of x times an exponential near its end is as coarse as the least number, x times.
    least = 4 * tiny * np.maximum(1, np.minimum(np.abs(x), 1e3))
    assert (np.abs(y.array - exact) <= 8 * eps * np.abs(exact) + least)[np.isfinite(exact)].all()
    assert (y.array[exact == 0] == 0).all()
    assert (y.array[np.isinf(exact)] == inf).all()
    # 1 - y² keeps no more than its own size.
    np.testing.assert_allclose(value.grad, slope, rtol=8 * eps, atol=8 * eps)
    assert not subnormal(y.array, value.grad)


@either
@pytest.mark.parametrize("name", ["SiLU", "Mish"])
def test_products_with_an_exponential_are_0_where_the_exponential_is(name, dtype):
    # docs/performance.md, "Underflow", has these numbers.
    layer, function, derivative = FUNCTIONS[name]
    end, lost = (-87.33, 1.04e-36) if dtype == np.float32 else (-708.39, 1.6e-305)
    x = np.linspace(1.1 * end, 0.99 * end, 1001).astype(dtype)
    value = Tape().input(x)
    y = layer(value)
    y.backward(np.ones_like(x))
    for got, exact in ((y.array, function), (value.grad, derivative)):
        exact = exact(x.astype(np.longdouble))
        inside = x > end
        np.testing.assert_allclose(got[inside], exact[inside], rtol=1e-5)
        assert (np.abs(exact[got == 0]) < lost).all()
        assert (got[x < end - 0.01] == 0).all()


@either
@pytest.mark.parametrize(
    ("layer", "y", "dx"),
    [
        (layers.Sigmoid(), [0, 1], [0, 0]),
        (layers.Tanh(), [-1, 1], [0, 0]),
        (layers.SiLU(), [0, inf], [0, 1]),
        (layers.GELU(), [0, inf], [0, 1]),
        (layers.GELU("tanh"), [0, inf], [0, 1]),
        (layers.ReLU(), [0, inf], [0, 1]),
        (layers.LeakyReLU(0.5), [-inf, inf], [0.5, 1]),
        (layers.ELU(), [-1, inf], [0, 1]),
        (layers.CELU(), [-1, inf], [0, 1]),
        (layers.Softplus(), [0, inf], [0, 1]),
        (layers.Mish(), [0, inf], [0, 1]),
        (layers.Hardtanh(), [-1, 1], [0, 0]),
        (layers.Hardswish(), [0, inf], [0, 1]),
        (layers.Hardsigmoid(), [0, 1], [0, 0]),
    ],
    ids=repr,
)
def test_infinite_and_huge_arguments_have_the_limits(layer, y, dx, dtype):
    for ends in ([-inf, inf], [-np.finfo(dtype).max, np.finfo(dtype).max], [-1e30, 1e30]):
        value = Tape(training=True).input(np.array(ends, dtype))
        result = layer(value)
        result.backward(np.ones(2, dtype))
        limits = [ends[i] * abs(s) if np.isinf(s) else s for i, s in enumerate(y)]
        if isinstance(layer, layers.LeakyReLU):
            limits = [0.5 * ends[0], ends[1]]
        assert result.array.tolist() == np.array(limits, dtype).tolist() or np.isinf(y).any()
        finite = np.isfinite(y)
        assert result.array[finite].tolist() == np.array(y)[finite].tolist()
        assert not np.isnan(result.array).any()
        assert value.grad.tolist() == dx
        assert layer(value.array).tobytes() == result.array.tobytes()


@either
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0, -inf], [1, 0]),
        ([0, -1e30, -200], [1, 0, 0]),
        ([inf, 0, -inf], [1, 0, 0]),
        ([-inf], [1]),
        ([inf, inf], [nan, nan]),
        ([-inf, -inf], [nan, nan]),
        ([nan, 0, 1], [nan, nan, nan]),
    ],
    ids=str,
)
def test_softmax_has_its_limits(x, y, dtype):
    # Several rows, as they are computed side by side.
    rows = np.array([[0.0] * len(x), x, x], dtype)
    result = layers.Softmax()(rows)
    if dtype == np.float64:
        y = [np.exp(-200) if e == -200 else p for e, p in zip(x, y, strict=True)]
    np.testing.assert_allclose(result[1:], [y, y], rtol=1e-14)
    np.testing.assert_allclose(result[0], 1 / len(x), rtol=1e-6)


SOFTMAX, BINARY = layers.SoftmaxCrossEntropy(), layers.BinaryCrossEntropy()


@either
@pytest.mark.parametrize(
    ("loss", "x", "target", "value", "dx"),
    [
        (SOFTMAX, [0, -inf], 0, 0, [0, 0]),
        (SOFTMAX, [0, -inf], 1, inf, [1, -1]),
        (SOFTMAX, [0, -inf, 0], 2, np.log(2), [0.5, 0, -0.5]),
        (SOFTMAX, [inf, 0], 0, 0, [0, 0]),
        (SOFTMAX, [inf, 0], 1, inf, [1, -1]),
        (SOFTMAX, [0, -inf, 0], [0.5, 0, 0.5], np.log(2), [0, 0, 0]),
        (SOFTMAX, [0, -inf, 0], [0, 1, 0], inf, [0.5, -1, 0.5]),
        (SOFTMAX, [inf, 0], [1, 0], 0, [0, 0]),
        (SOFTMAX, [0, nan], 0, nan, [nan, nan]),
        (SOFTMAX, [0, nan], [1, 0], nan, [nan, nan]),
        (BINARY, [inf], [1], 0, [0]),
        (BINARY, [-inf], [0], 0, [0]),
        (BINARY, [inf], [0], inf, [1]),
        (BINARY, [-inf], [1], inf, [-1]),
        (BINARY, [-inf], [0.5], inf, [-0.5]),
        (BINARY, [3e38], [0.5], 1.5e38, [0.5]),
        (BINARY, [nan], [1], nan, [nan]),
    ],
)
def test_losses_have_their_limits(loss, x, target, value, dx, dtype):
    logits = Tape().input(np.array([x], dtype))
    soft = isinstance(target, list)
    result = loss(logits, np.array([target], dtype if soft else np.int64))
    result.backward()
    np.testing.assert_allclose(result.array, value, rtol=1e-6)
    np.testing.assert_allclose(logits.grad[0], dx, rtol=1e-6)


def test_tanh_form_of_gelu_has_a_slope_where_the_square_of_its_argument_has_none():
    value = Tape(training=True).input(np.array([-1e25, 1e25], np.float32))
    layers.GELU("tanh")(value).backward(np.ones(2, np.float32))
    assert value.grad.tolist() == [0, 1]


@pytest.mark.parametrize("layer", [layers.LayerNorm(3), layers.RMSNorm(3)], ids=repr)
def test_rows_whose_squares_overflow_are_not_lost_in_norms(layer):
    y = layer(np.array([[1e25, -1e25, 3e25], [1, 2, 4]], np.float32))
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


# ---- all layers


def subnormal(*arrays):
    """Return whether any of the arrays holds a number below the normal ones."""
    return any(
        ((x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny)).any()
        for x in arrays
        if x is not None and x.dtype.kind == "f"
    )


@of_cases(CASES)
@pytest.mark.parametrize("scale", [300, 1e-30], ids=["x 300", "x 1e-30"])
def test_nothing_below_the_normal_numbers_comes_out(case, scale):
    layer, inputs = make(case)
    first, *rest = inputs
    if first.dtype.kind == "f":
        inputs = (first * first.dtype.type(scale), *rest)
    with np.errstate(all="ignore"):
        run = Run(case, layer, inputs)
        vanishing = Run(case, layer, inputs, dy=run.dy * np.float32(1e-37))
    assert not subnormal(run.y, *run.dx, *run.gradients)
    assert not subnormal(*vanishing.dx, *vanishing.gradients)


@of_cases(case for case in CASES if case.per_sample)
def test_nan_of_a_sample_is_not_lost(case):
    layer, inputs = make(case)
    floating = [x for x in inputs if x.dtype.kind == "f" and len(x) == BATCH]
    if not floating:
        return
    # This sample sees others, and itself, in every case with lengths or masks.
    floating[0][4] = nan
    with np.errstate(all="ignore"):
        y = Run(case, layer, inputs).y
    assert np.isnan(y[4] if y.ndim and len(y) == BATCH else y).any()


# ---- maxima, minima, powers: as NumPy has them, and gradients that go where the value came from


A, B = np.array([nan, 1, nan, 2, 2, 3, inf, -inf]), np.array([1, nan, nan, 2, 3, 2, nan, nan])


@pytest.mark.parametrize(
    ("ours", "theirs", "to_a"),
    [
        (layers.maximum, np.maximum, [1, 0, 1, 1, 0, 1, 0, 0]),
        (layers.minimum, np.minimum, [1, 0, 1, 1, 1, 0, 0, 0]),
    ],
    ids=["maximum", "minimum"],
)
def test_nan_is_greatest_and_smallest(ours, theirs, to_a):
    tape = Tape()
    a, b = tape.input(A), tape.input(B)
    y = ours(a, b)
    y.sum().backward()
    np.testing.assert_array_equal(y.array, theirs(A, B))
    np.testing.assert_array_equal(ours(A, B), theirs(A, B))
    np.testing.assert_array_equal(ours(a, 2.0).array, theirs(A, 2.0))
    assert a.grad.tolist() == to_a
    assert b.grad.tolist() == [1 - g for g in to_a]


@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_gradient_of_an_extreme_goes_to_the_first_nan(kind, axis):
    x = np.array([[1, nan, 3], [4, 5, nan], [0, nan, 2.0]])
    value = Tape().input(x)
    y = getattr(value, kind)(axis=axis)
    y.sum().backward()
    np.testing.assert_array_equal(y.array, getattr(np, kind)(x, axis=axis))
    theirs = torch.tensor(x, requires_grad=True)
    if axis is not None:
        getattr(theirs, kind)(axis).values.sum().backward()
        np.testing.assert_array_equal(value.grad, theirs.grad.numpy())
    else:
        assert np.argwhere(value.grad).tolist() == [[0, 1]]


def test_gradient_of_a_rectifier_passes_nan_on_with_its_neighbours_and_alone():
    x = np.array([[nan, 1, -1]], np.float32)
    for layer in (layers.ReLU(), layers.Sequential(layers.MaxPool2d(1), layers.ReLU())):
        value = Tape(training=True).input(x if isinstance(layer, layers.ReLU) else x[None, None])
        layer(value).backward(np.ones_like(value.array))
        assert value.grad.reshape(-1).tolist() == [1, 1, 0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_powers_have_the_gradients_of_pytorch_at_0_and_at_infinity():
    a = np.array([0, 0, 0, 0, 0, 0, 2, -2, -2, nan, nan, inf, 2])
    b = np.array([0, 1, 2, -1, 0.5, -0.5, -1, 2, 3, 0, 1, 2, 0.0])
    tape = Tape()
    x, y = tape.input(a), tape.input(b)
    power = x**y
    power.sum().backward()
    p, q = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    theirs = p**q
    theirs.sum().backward()
    np.testing.assert_allclose(power.array, theirs.detach().numpy())
    np.testing.assert_allclose(x.grad, p.grad.numpy())
    np.testing.assert_allclose(y.grad, q.grad.numpy())
