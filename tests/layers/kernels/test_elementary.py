"""Elementary functions that are computed in float64, in units of the last place of the true
value.
"""

import numpy as np
import pytest
from scipy import special

from layers.kernels import elementary

DTYPES = [np.float32, np.float64]


def values(kernel, *inputs):
    y = np.empty_like(inputs[0])
    kernel(y, *inputs)
    return y


def ulps(y, exact):
    exact = np.asarray(exact, np.longdouble)
    unit = np.spacing(np.abs(exact).astype(y.dtype)).astype(np.longdouble)
    return float(np.max(np.abs(y.astype(np.longdouble) - exact) / unit))


def numbers(dtype, low, high):
    rng = np.random.default_rng(0)
    small = rng.choice((-1, 1), 20000) * 10 ** rng.uniform(-6, 0, 20000)
    x = np.concatenate([rng.uniform(low, high, 60000), small[(small > low) & (small < high)]])
    return x.astype(dtype)


# The kernel, the true function, where it is asked, and how many ulps float64 may be off.
FUNCTIONS = [
    (elementary.exp_forward, np.exp, (-80, 80), 2),
    (elementary.expm1, np.expm1, (-30, 30), 4),
    (elementary.log, np.log, (1e-9, 50), 1),
    (elementary.log1p, np.log1p, (-0.99, 50), 1),
    (elementary.sin, np.sin, (-1e6, 1e6), 2),
    (elementary.cos, np.cos, (-1e6, 1e6), 2),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "exact", "ends", "most"), FUNCTIONS, ids=[row[1].__name__ for row in FUNCTIONS]
)
def test_function_is_good_to_few_ulps(kernel, exact, ends, most, dtype):
    x = numbers(dtype, *ends)
    allowed = 0.51 if dtype == np.float32 else most
    assert ulps(values(kernel, x), exact(x.astype(np.longdouble))) < allowed


@pytest.mark.parametrize("dtype", DTYPES)
def test_erf_is_good_to_few_ulps(dtype):
    x = numbers(dtype, -7, 7)
    allowed = 0.51 if dtype == np.float32 else 4
    assert ulps(values(elementary.erf, x), special.erf(x.astype(float))) < allowed


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_is_good_to_few_ulps(dtype):
    rng = np.random.default_rng(0)
    size = 7 if dtype == np.float32 else 50
    a = (10 ** rng.uniform(-5, 5, 50000)).astype(dtype)
    b = rng.uniform(-size, size, 50000).astype(dtype)
    exact = np.power(a.astype(np.longdouble), b.astype(np.longdouble))
    assert ulps(values(elementary.power, a, b), exact) < (0.51 if dtype == np.float32 else 3)


def test_functions_of_numbers_are_those_of_arrays():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, 500), rng.uniform(0, 1000, 500)
    powers = [elementary.power_of_number(*pair) for pair in zip(a, b, strict=True)]
    assert powers == values(elementary.power, a, b).tolist()
    assert [elementary.cosine_of_number(x) for x in b] == values(elementary.cos, b).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_of_the_format_are_those_of_numpy(dtype):
    special_numbers = [0, 1, -1, 2, -2, 0.5, np.inf, -np.inf, np.nan]
    x = np.array(special_numbers, dtype)
    a, b = (np.ravel(grid) for grid in np.meshgrid(x, np.array([*special_numbers, 3, -0.5], dtype)))
    with np.errstate(all="ignore"):
        for kernel, exact, *_ in FUNCTIONS:
            np.testing.assert_allclose(values(kernel, x), exact(x), rtol=1e-6)
        np.testing.assert_allclose(values(elementary.power, a, b), np.power(a, b), rtol=1e-6)
    assert values(elementary.exp_forward, np.array([800, -800], dtype)).tolist() == [np.inf, 0]


def test_logarithm_takes_numbers_that_are_not_normal():
    tiny = np.array([5e-324, 1e-310])
    assert ulps(values(elementary.log, tiny), np.log(tiny.astype(np.longdouble))) < 1
