"""exp, tanh, sigmoid and GELU of the kernels, in units of the last place (ulp) of the true
value.
"""

import math
from functools import partial

import numpy as np
import pytest
from scipy import special

from layers.kernels import elementwise
from layers.kernels.jit import kernel
from layers.kernels.llvm.simd_math import exp_of_nonpositive_row, exp_row
from layers.kernels.llvm.vmath import exp, sigmoid, tanh

DTYPES = [np.float32, np.float64]
either = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


# Code of tests has no business in the cache on disk.
compiled = partial(kernel, cache=False)


@compiled
def _exps(y, x):
    """Writes y = e^x."""
    for i in range(y.size):
        y[i] = exp(x[i])


@compiled
def _tanhs(y, x):
    """Writes y = tanh(x)."""
    for i in range(y.size):
        y[i] = tanh(x[i])


@compiled
def _sigmoids(y, x):
    """Writes y = 1 / (1 + e^-x)."""
    for i in range(y.size):
        y[i] = sigmoid(x[i])


@compiled
def _exp_row(y, x):
    """Writes y = e^x."""
    exp_row(y, x)


@compiled
def _exp_of_nonpositive_row(y, x):
    """Writes y = e^x, x <= 0."""
    exp_of_nonpositive_row(y, x)


EXPONENTIALS = [_exps, _exp_row, _exp_of_nonpositive_row]
# What rows are computed by, for what numbers are.
ROWS = {_exps: _exp_row, _tanhs: elementwise.tanh_forward, _sigmoids: elementwise.sigmoid_forward}


def run(function, x):
    y = np.empty_like(x)
    function(y, x)
    return y


def ulps(y, exact):
    """Return the largest error in ulps; `exact` is wider, or the true values rounded."""
    unit = np.spacing(np.abs(exact).astype(y.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(y.astype(np.longdouble) - exact) / unit))


def points(dtype, low, high, seed=0):
    """Return numbers all over [low, high], many of them small, and the ends."""
    rng = np.random.default_rng(seed)
    small = rng.choice((-1, 1), 20000) * 10 ** rng.uniform(-6, 0, 20000)
    x = np.concatenate(
        [rng.uniform(low, high, 60000), small[(small > low) & (small < high)], [low, high, 0.0]]
    )
    return x.astype(dtype)


def wide(x):
    return x.astype(np.longdouble)


# ---- accuracy on 80 000 points: seen were at most 1.0, 2.6 and 2.2 ulps, and 3.2 and 4.5 eps for
# the two forms of GELU


@either
def test_exp_is_within_one_and_a_half_ulps(dtype):
    x = points(dtype, *((-87, 88) if dtype == np.float32 else (-708, 709)))
    assert ulps(run(_exps, x), np.exp(wide(x))) <= 1.5


@either
def test_tanh_is_within_three_ulps(dtype):
    x = points(dtype, -20, 20)
    assert ulps(run(_tanhs, x), np.tanh(wide(x))) <= 3


@either
def test_sigmoid_is_within_three_ulps(dtype):
    x = points(dtype, *((-80, 20) if dtype == np.float32 else (-700, 40)))
    assert ulps(run(_sigmoids, x), 1 / (1 + np.exp(-wide(x)))) <= 3


@either
def test_gelu_is_right_to_its_own_size_and_relatively_until_far_out(dtype):
    x = points(dtype, -5, 8)
    exact = x.astype(float) * special.ndtr(x.astype(float))
    y = run(elementwise.gelu, x)
    eps = np.finfo(dtype).eps
    assert np.max(np.abs(y - exact)) <= 5 * eps
    # The exponent x²/2 is rounded, so the relative error grows as x² eps.
    assert np.all(np.abs(y - exact) <= eps * (8 + x.astype(float) ** 2) * np.abs(exact))


@either
def test_tanh_form_of_gelu_is_right_to_its_own_size(dtype):
    x = points(dtype, -5, 8)
    w = wide(x)
    exact = (
        w
        * (1 + np.tanh(np.sqrt(2 / np.longdouble(math.pi)) * (w + np.longdouble(0.044715) * w**3)))
        / 2
    )
    assert np.max(np.abs(run(elementwise.gelu_tanh, x) - exact)) <= 6 * np.finfo(dtype).eps


# ---- ends of the range, and what is not a number


@either
def test_nan_stays_nan(dtype):
    x = np.full(9, np.nan, dtype)
    for function in (
        _exps,
        _tanhs,
        _sigmoids,
        elementwise.gelu,
        elementwise.gelu_tanh,
        elementwise.relu,
        elementwise.silu,
    ):
        assert np.isnan(run(function, x)).all(), function


@either
def test_infinities_and_large_numbers_go_to_the_limits(dtype):
    huge = np.finfo(dtype).max
    x = np.array([-np.inf, -huge, -1e4, 1e4, huge, np.inf], dtype)
    assert run(_tanhs, x).tolist() == [-1, -1, -1, 1, 1, 1]
    assert run(_sigmoids, x).tolist() == [0, 0, 0, 1, 1, 1]
    y, slope = np.empty(6, dtype), np.empty(6, dtype)
    elementwise.gelu_with_slope(y, slope, x)
    assert y.tolist() == [0, 0, 0, 1e4, huge, np.inf]
    assert slope.tolist() == [0, 0, 0, 1, 1, 1]


@either
@pytest.mark.parametrize("function", EXPONENTIALS, ids=["numbers", "rows", "nonpositive rows"])
def test_exp_is_0_just_where_it_is_below_the_normal_numbers(dtype, function):
    least = np.finfo(dtype).minexp * np.log(np.longdouble(2))
    x = np.array([-np.inf, -np.finfo(dtype).max, -1e4, least, least, -1, -0.0], dtype)
    while x[3] >= least:
        x[3] = np.nextafter(x[3], dtype(-np.inf))
    while x[4] < least:
        x[4] = np.nextafter(x[4], dtype(0))
    y = run(function, x)
    assert (y[:4] == 0).all()
    assert (y[4:] >= np.finfo(dtype).tiny).all()
    assert ulps(y[4:], np.exp(wide(x[4:]))) <= 1.5


@either
@pytest.mark.parametrize("function", EXPONENTIALS[:2], ids=["numbers", "rows"])
def test_exp_is_inf_just_where_it_is_above_the_numbers(dtype, function):
    greatest = np.log(wide(np.finfo(dtype).max))
    x = np.linspace(greatest - 1, greatest, 1000).astype(dtype)
    x = x[x <= greatest]
    assert ulps(run(function, x), np.exp(wide(x))) <= 1.5
    beyond = np.array([np.nextafter(dtype(greatest), dtype(np.inf)), 1e4, np.inf], dtype)
    beyond[0] = np.nextafter(beyond[0], dtype(np.inf))
    assert (run(function, beyond) == np.inf).all()


@either
def test_sigmoid_is_0_just_where_it_is_below_the_normal_numbers(dtype):
    low = np.finfo(dtype).minexp * np.log(2)
    x = points(dtype, 1.2 * low, 0.8 * low)
    exact = 1 / (1 + np.exp(-wide(x)))
    exact[exact < np.finfo(dtype).tiny] = 0
    for function in (_sigmoids, elementwise.sigmoid_forward):
        y = run(function, x)
        assert ((y == 0) == (exact == 0)).all()
        assert ulps(y[y > 0], exact[y > 0]) <= 3


@either
def test_exact_values_are_exact(dtype):
    zero = np.zeros(3, dtype)
    assert (run(_exps, zero) == 1).all()
    assert (run(_tanhs, zero) == 0).all()
    assert (run(_sigmoids, zero) == 0.5).all()
    assert (run(elementwise.gelu, zero) == 0).all()


@either
def test_small_arguments_keep_their_relative_accuracy_in_tanh(dtype):
    x = (10.0 ** np.arange(-30, -5)).astype(dtype)
    assert ulps(run(_tanhs, x), np.tanh(wide(x))) <= 2


@either
def test_bits_do_not_depend_on_the_place_in_the_array(dtype):
    x = points(dtype, -6, 6)[:1000]
    for function in (*ROWS.values(), _exps, _tanhs, _sigmoids, elementwise.gelu, elementwise.silu):
        whole = run(function, x)
        for start, stop in ((0, 1), (1, 8), (3, 20), (500, 1000), (997, 1000)):
            assert run(function, x[start:stop].copy()).tobytes() == whole[start:stop].tobytes()


@either
@pytest.mark.parametrize("number", ROWS, ids=["exp", "tanh", "sigmoid"])
def test_rows_have_the_bits_of_numbers(dtype, number):
    x = points(dtype, -6, 6)[:1000]
    assert run(ROWS[number], x).tobytes() == run(number, x).tobytes()


@either
@pytest.mark.parametrize(
    ("function", "low", "high"),
    [(_exps, -20, 20), (_tanhs, -0.5, 0.5), (_sigmoids, -20, 8)],
    ids=["exp", "tanh", "sigmoid"],
)
def test_functions_rise_where_neighbours_are_far_apart(dtype, function, low, high):
    x = np.linspace(low, high, 3000).astype(dtype)
    assert (np.diff(run(function, x)) > 0).all()


# ---- complex numbers, for the complex step


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (_exps, np.exp),
        (_tanhs, lambda x: 1 - np.tanh(x) ** 2),
        (_sigmoids, lambda x: special.expit(x) * special.expit(-x)),
    ],
    ids=["exp", "tanh", "sigmoid"],
)
def test_imaginary_part_of_a_complex_step_is_the_derivative(function, derivative):
    x = np.linspace(-3, 3, 50)
    y = run(function, x + 1e-25j)
    assert np.allclose(y.imag / 1e-25, derivative(x), rtol=1e-13)
    assert np.allclose(y.real, run(function, x), rtol=1e-14)
