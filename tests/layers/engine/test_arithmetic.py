"""Operators of values: arrays and numbers on either side."""

import numpy as np
import pytest

import layers
from layers import Tape


@pytest.fixture
def rng():
    return np.random.default_rng(5)


OPERATORS = {
    "+": (lambda a, b: a + b, lambda a, b: (1, 1)),
    "-": (lambda a, b: a - b, lambda a, b: (1, -1)),
    "*": (lambda a, b: a * b, lambda a, b: (b, a)),
    "/": (lambda a, b: a / b, lambda a, b: (1 / b, -a / b**2)),
    "**": (lambda a, b: a**b, lambda a, b: (b * a ** (b - 1), a**b * np.log(a))),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("left", ["value", "array", "number", "numpy scalar"])
def test_operator_takes_an_array_or_a_number_on_either_side(name, left, rng):
    function, slopes = OPERATORS[name]
    a = {
        "value": rng.uniform(1, 2, 3),
        "array": rng.uniform(1, 2, 3),
        "number": 1.5,
        "numpy scalar": np.float64(1.5),
    }[left]
    b = rng.uniform(1, 2, 3)
    tape = Tape()
    x = tape.input(b)
    other = tape.input(a) if left == "value" else a
    y = function(other, x)
    assert isinstance(y, layers.Value)
    np.testing.assert_allclose(y.array, function(a, b), rtol=1e-15)
    y.sum().backward()
    np.testing.assert_allclose(x.grad, np.broadcast_to(slopes(a, b)[1], 3), rtol=1e-12)
    if left == "value":
        np.testing.assert_allclose(other.grad, np.broadcast_to(slopes(a, b)[0], 3), rtol=1e-12)
        return
    mirrored = function(x, other)
    np.testing.assert_allclose(mirrored.array, function(b, a), rtol=1e-15)
    mirrored.sum().backward()
    np.testing.assert_allclose(x.grad, np.broadcast_to(slopes(b, a)[0], 3), rtol=1e-12)


def test_matrix_product_takes_an_array_on_either_side(rng):
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    tape = Tape()
    right, left = tape.input(b), tape.input(a)
    np.testing.assert_allclose((a @ right).array, a @ b, rtol=1e-14, atol=1e-15)
    ((a @ right).sum() + (left @ b).sum()).backward()
    np.testing.assert_allclose(right.grad, a.T @ np.ones((3, 2)), rtol=1e-13)
    np.testing.assert_allclose(left.grad, np.ones((3, 2)) @ b.T, rtol=1e-13)


def test_comparison_gives_an_array_of_booleans():
    x = Tape().input(np.array([1.0, 2.0, 3.0]))
    assert (x > 2).tolist() == [False, False, True]
    assert (x <= x).all()
    assert (np.array([2.0, 2.0, 2.0]) < x).tolist() == [False, False, True]


def test_float32_stays_float32_beside_python_numbers():
    x = Tape().input(np.ones(3, np.float32))
    y = ((2 * x + 1) ** 2 / 3 - 0.5).sum()
    y.backward()
    assert y.dtype == np.float32
    assert x.grad.dtype == np.float32
