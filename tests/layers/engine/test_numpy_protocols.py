"""NumPy's functions on values are recorded, or refused: none takes a value off its tape unseen."""

import re

import numpy as np
import pytest

import layers
from layers import Tape
from layers.engine.operators.numpy_protocols import CONSTANT, RECORDED

ONES = np.ones((2, 3), np.float32)


@pytest.fixture
def x():
    return Tape().input(np.linspace(0.5, 3, 6, dtype=np.float32).reshape(2, 3))


# Each is called with a value and must give what it gives for the array, recorded.
CALLS = {
    np.add: lambda x: np.add(ONES, x),
    np.subtract: lambda x: ONES - x,
    np.multiply: lambda x: np.multiply(x, 2),
    np.divide: lambda x: np.divide(1, x),
    np.power: lambda x: np.power(x, 2.5),
    np.matmul: lambda x: np.matmul(ONES, x.T),
    np.square: np.square,
    np.reciprocal: np.reciprocal,
    np.positive: np.positive,
    np.negative: np.negative,
    np.absolute: np.abs,
    np.fabs: np.fabs,
    np.exp: np.exp,
    np.expm1: np.expm1,
    np.log: np.log,
    np.log1p: np.log1p,
    np.sqrt: np.sqrt,
    np.sin: np.sin,
    np.cos: np.cos,
    np.tanh: np.tanh,
    np.maximum: lambda x: np.maximum(x, 1.2),
    np.minimum: lambda x: np.minimum(2 * ONES, x),
    np.where: lambda x: np.where(ONES > 0, x, 0),
    np.clip: lambda x: np.clip(x, 1, 2),
    np.sum: lambda x: np.sum(x, axis=0),
    np.mean: lambda x: np.mean(x, axis=1, keepdims=True),
    np.max: lambda x: np.max(x, axis=0),
    np.amax: np.amax,
    np.min: lambda x: np.min(x, axis=-1),
    np.amin: np.amin,
    np.prod: np.prod,
    np.var: lambda x: np.var(x, axis=0, ddof=1),
    np.std: np.std,
    np.cumsum: lambda x: np.cumsum(x, axis=1),
    np.linalg.norm: lambda x: np.linalg.norm(x, axis=1),
    np.dot: lambda x: np.dot(x, ONES.T),
    np.einsum: lambda x: np.einsum("ij,kj->ik", x, ONES),
    np.reshape: lambda x: np.reshape(x, (3, -1)),
    np.ravel: np.ravel,
    np.transpose: np.transpose,
    np.matrix_transpose: np.matrix_transpose,
    np.swapaxes: lambda x: np.swapaxes(x, 0, 1),
    np.moveaxis: lambda x: np.moveaxis(x, 0, -1),
    np.squeeze: lambda x: np.squeeze(x[:1]),
    np.expand_dims: lambda x: np.expand_dims(x, 1),
    np.broadcast_to: lambda x: np.broadcast_to(x, (4, 2, 3)),
    np.flip: np.flip,
    np.roll: lambda x: np.roll(x, 1),
    np.take: lambda x: np.take(x, [0, 2, 2], axis=1),
    np.take_along_axis: lambda x: np.take_along_axis(x, np.array([[1], [0]]), axis=1),
    np.repeat: lambda x: np.repeat(x, 2, axis=0),
    np.tile: lambda x: np.tile(x, 2),
    np.pad: lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=7),
    np.concatenate: lambda x: np.concatenate([x, ONES], axis=1),
    np.stack: lambda x: np.stack([ONES, x]),
    np.split: lambda x: np.split(x, 3, axis=1)[1],
    np.sort: lambda x: np.sort(x, axis=0),
}


def test_every_recorded_function_of_numpy_is_tried():
    assert CALLS.keys() == RECORDED.keys()
    assert not RECORDED.keys() & CONSTANT


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_function_of_numpy_is_recorded_with_its_result(function, x):
    y = CALLS[function](x)
    assert isinstance(y, layers.Value)
    expected = CALLS[function](x.array)
    assert (y.dtype, y.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(y.array, expected, rtol=1e-6)
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.any()


def test_what_has_no_gradient_in_any_case_is_given_by_the_array(x):
    assert np.argmax(x) == 5
    assert np.shape(x) == (2, 3)
    assert np.zeros_like(x).dtype == np.float32
    assert not np.isnan(x).any()
    assert np.allclose(x, x.array)
    assert np.array_equal(np.argsort(x, axis=1), [[0, 1, 2], [0, 1, 2]])


def test_comparison_is_made_element_by_element_and_a_value_still_has_a_hash(x):
    assert (x == x.array).all()
    assert (x.array == x).all()
    assert (x != 0.5).tolist() == [[False, True, True], [True, True, True]]
    assert {x: "known"}[x] == "known"
    assert bool(x.sum() > 3)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)


def test_value_of_one_element_is_formatted_as_a_number(x):
    assert f"{x.sum():.2f}" == "10.50"
    assert f"{x.sum()}".startswith("Value(")


def in_place(x):
    array = ONES.copy()
    array += x


# (what is done with a value, what the message must say is to be written instead)
REFUSED = [
    (np.asarray, "value.array"),
    (np.array, "value.array"),
    (lambda x: np.array([x, x]), "value.array"),
    (lambda x: ONES.copy().__setitem__(0, x[0]), "value.array"),
    (in_place, "Write array = array + value"),
    (lambda x: np.add(x, x, out=ONES.copy()), "Write array = array + value"),
    (lambda x: np.sum(x, axis=0, out=np.empty(3, np.float32)), "Leave out= away"),
    (lambda x: np.exp(x, where=ONES > 0), "It is recorded with (x) alone"),
    (lambda x: np.sum(x, dtype=np.float64), "It is recorded with (x, axis, keepdims) alone"),
    (np.add.reduce, "Write value.sum()"),
    (np.log2, "Write layers.log(value) / np.log(2)"),
    (np.arctan, "Write np.arctan(value.array)"),
    (np.linalg.inv, "Write np.linalg.inv(value.array)"),
    (lambda x: np.vstack([x, x]), "Write layers.concatenate(values)"),
    (lambda x: x.__setitem__(0, 1), "Use layers.where(mask, new, value)"),
]


@pytest.mark.parametrize(("function", "instead"), REFUSED, ids=[fix for _, fix in REFUSED])
def test_what_would_leave_the_tape_is_refused_with_what_to_write(function, instead, x):
    with pytest.raises(TypeError, match=rf"^Value: .*; got .*\. .*{re.escape(instead)}"):
        function(x)


def test_gradient_of_a_norm_and_of_a_deviation_is_0_where_they_are():
    x = Tape().input(np.zeros((2, 3)))
    (layers.norm(x, axis=1).sum() + x.std()).backward()
    assert not x.grad.any()


@pytest.mark.parametrize("size", [1e30, 1e-25, 2.5e38, 2e-38])
def test_norm_of_very_large_and_small_numbers_is_as_exact_as_others(size):
    x = Tape().input(np.array([[0.6 * size, 0.8 * size], [0.6, 0.8]], np.float32))
    y = layers.norm(x, axis=1)
    y.sum().backward()
    np.testing.assert_allclose(y.array, [size, 1], rtol=3e-7)
    np.testing.assert_allclose(x.grad, [[0.6, 0.8], [0.6, 0.8]], rtol=3e-7)


def test_norm_of_float64_neither_overflows_nor_underflows():
    x = np.array([[3e300, 4e300], [3e-300, 4e-300], [np.inf, 1], [0, 0]])
    y = layers.norm(Tape().input(x), axis=1).array
    np.testing.assert_allclose(y, [5e300, 5e-300, np.inf, 0], rtol=1e-15)


def test_norm_takes_the_order_under_the_name_it_has_in_numpy():
    x = np.array([[3.0, -4.0], [1.0, 2.0]])
    for order in (1, 2, np.inf):
        y = np.linalg.norm(Tape().input(x), ord=order, axis=1)
        np.testing.assert_allclose(y.array, np.linalg.norm(x, ord=order, axis=1), rtol=1e-15)


def test_gradient_of_a_maximum_goes_to_the_first_nan():
    x = Tape().input(np.array([1.0, np.nan, 3.0, np.nan]))
    x.max().backward()
    assert x.grad.tolist() == [0, 1, 0, 0]


def test_nan_of_either_side_is_not_swallowed_by_maximum_minimum_and_clip():
    nan = np.array([np.nan, 1.0])
    for function in (layers.maximum, layers.minimum):
        assert np.isnan(function(nan, np.zeros(2))).tolist() == [True, False]
        assert np.isnan(function(np.zeros(2), nan)).tolist() == [True, False]
    assert np.isnan(layers.clip(nan, 0, 1)).tolist() == [True, False]


def test_top_k_gives_indices_of_the_greatest_and_the_first_of_equals():
    x = Tape().input(np.array([[1.0, 3.0, 3.0, 2.0]]))
    values, indices = layers.top_k(x, 3)
    assert values.array.tolist() == [[3, 3, 2]]
    assert indices.tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="top_k: k must be at most the size of the axis, 4; got 5"):
        layers.top_k(x, 5)


def test_logsumexp_neither_overflows_nor_underflows():
    x = Tape().input(np.array([[1000.0, 1000.0], [-1000.0, -1000.0], [-np.inf, 0.0]]))
    y = layers.logsumexp(x, axis=1)
    np.testing.assert_allclose(y.array, [1000 + np.log(2), -1000 + np.log(2), 0], rtol=1e-15)
    y.sum().backward()
    np.testing.assert_allclose(x.grad, [[0.5, 0.5], [0.5, 0.5], [0, 1]], rtol=1e-15)


def test_gradient_of_logsumexp_at_infinities_is_the_limit():
    inf = np.inf
    x = Tape().input(np.array([[inf, 0.0], [inf, -inf], [inf, inf], [-inf, -inf]]))
    y = layers.logsumexp(x, axis=1)
    assert y.array.tolist() == [inf, inf, inf, -inf]
    y.sum().backward()
    assert x.grad.tolist() == [[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk,kl->il", [(2, 2)] * 3),
        ("ii->i", [(2, 2)]),
        ("ij,jk", [(2, 3), (2, 3)]),
        ("i...->i", [(2, 2)]),
    ],
)
def test_einsum_refuses_what_it_does_not_do(subscripts, shapes):
    with pytest.raises(ValueError, match=r"^einsum: .* must fit the letters.*; got "):
        layers.einsum(subscripts, *map(np.zeros, shapes))


def test_sums_are_the_same_whatever_else_is_summed():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 37, 70)).astype(np.float32)
    for axis in (0, 1, 2, (0, 2), None):
        whole = Tape().input(x).sum(axis).array
        np.testing.assert_allclose(whole, x.astype(float).sum(axis), rtol=1e-5, atol=1e-5)
    rows = Tape().input(x).sum((1, 2)).array
    apart = [Tape().input(x[i : i + 1]).sum((1, 2)).array[0] for i in range(5)]
    assert rows.tolist() == apart


def test_stack_of_products_has_the_rows_of_each_product_alone():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 1, 4, 50)).astype(np.float32)
    b = rng.standard_normal((2, 50, 6)).astype(np.float32)
    whole = (Tape().input(a) @ b).array
    assert whole.shape == (3, 2, 4, 6)
    for i, j in np.ndindex(3, 2):
        assert (Tape().input(a[i, 0, 1:2]) @ b[j]).array.tobytes() == whole[i, j, 1].tobytes()


def test_sine_of_a_huge_number_is_that_of_its_remainder():
    x = np.array([1e22, -1e300, np.inf, 2.0**50])
    with np.errstate(invalid="ignore"):
        expected = [-0.8522008497671888, 0.8178819121159085, np.nan, np.sin(2.0**50)]
    np.testing.assert_allclose(layers.sin(x), expected, rtol=1e-14)


@pytest.mark.parametrize(("shift", "axis"), [((1, 2), (0, 1)), ((1, 2), None), (1, (0, 1))])
def test_rolling_several_axes_at_a_time_is_refused_in_words(shift, axis):
    with pytest.raises(TypeError, match=r"^roll: shift and axis must be a number each; got shift"):
        np.roll(Tape().input(np.ones((2, 3))), shift, axis)
