"""Attention in bfloat16: where its arithmetic between products is exact, the contract's bits."""

import numpy as np
import pytest

from layers import Attention, Tape, set_precision
from layers.kernels import underflow

from ..bf16 import NAMES, PRODUCTS, rounded

in_bf16 = pytest.mark.parametrize("name", NAMES)
KEYS, STRIP = 96, 32


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def wide(*shape, seed=0):
    """Return numbers of so many sizes that the order of their sum shows in its bits."""
    rng = np.random.default_rng([seed, *shape])
    numbers = rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 12, shape)
    return numbers.astype(np.float32)


@pytest.fixture(autouse=True)
def flushing():
    """Take subnormal numbers for 0, as a tape does."""
    mode = underflow.flush()
    yield
    underflow.restore(mode)


def passed(layer, *inputs, dy=None):
    tape = Tape(training=True)
    values = [tape.input(x) for x in inputs]
    y = layer(*values)
    result = y.array.copy()
    y.backward(dy if dy is not None else np.ones_like(result))
    return result, *(value.grad.copy() for value in values)


@in_bf16
@pytest.mark.parametrize("features", [3, 32, 50])
def test_scores_are_products_of_rounded_queries_and_keys(features, name):
    # Of two keys one is 0: y is the logistic function of the score, whose inverse is exact enough.
    q, k = draw(1, 40, features) * 0.2, np.zeros((1, 2, features), np.float32)
    k[0, 0], v = draw(features), np.zeros((1, 2, features), np.float32)
    v[0, 0] = 1
    layer = Attention(1)
    set_precision(layer, name)
    y, *_ = passed(layer, q, k, v)
    scores = (rounded(q[0]) @ rounded(k[0, 0])) / features**0.5
    # p is rounded before it is multiplied with v.
    np.testing.assert_allclose(y[0, :, 0], 1 / (1 + np.exp(-scores)), rtol=2**-8)
    assert (y[0] == y[0, :, :1]).all()


@in_bf16
@pytest.mark.parametrize(("keys", "features"), [(1, 5), (33, 16), (128, 33), (256, 70)])
def test_values_are_summed_block_by_block_of_keys(keys, features, name):
    product = PRODUCTS[name]
    q, k = np.zeros((1, 3, features), np.float32), draw(1, keys, features)
    v, dy = wide(1, keys, features, seed=1), wide(1, 3, features, seed=2)
    layer = Attention(1)
    set_precision(layer, name)
    y, _, _, dv = passed(layer, q, k, v, dy=dy)
    # All scores are 0: each e^0 is 1, and the probabilities are 1 / keys.
    total = np.zeros((3, features), np.float32)
    for start in range(0, keys, KEYS):
        block = v[0, start : start + KEYS]
        total = total + product(np.ones((3, len(block)), np.float32), block)
    inverse = np.float32(1) / np.float32(keys)
    np.testing.assert_array_equal(y[0], total * inverse)
    np.testing.assert_array_equal(dv[0], product(np.full((keys, 3), inverse), dy[0]))


@in_bf16
def test_gradients_of_values_are_summed_strip_by_strip_of_queries(name):
    product, (queries, keys, features) = PRODUCTS[name], (75, 128, 20)
    q, k = np.zeros((1, queries, features), np.float32), draw(1, keys, features)
    v, dy = wide(1, keys, features, seed=1), wide(1, queries, features, seed=2)
    layer = Attention(1)
    set_precision(layer, name)
    *_, dv = passed(layer, q, k, v, dy=dy)
    total = None
    for start in range((queries - 1) // STRIP * STRIP, -1, -STRIP):
        strip = dy[0, start : start + STRIP]
        part = product(np.full((keys, len(strip)), 1 / keys, np.float32), strip)
        total = part if total is None else part + total
    np.testing.assert_array_equal(dv[0], total)


@in_bf16
@pytest.mark.parametrize("causal", [False, True])
def test_samples_and_heads_have_the_bits_that_they_have_alone(causal, name):
    x, dy = draw(3, 100, 3 * 2 * 20), draw(3, 100, 2 * 20)
    layer, single = Attention(2, causal=causal), Attention(1, causal=causal)
    for each in (layer, single):
        set_precision(each, name)
    y, dx = passed(layer, x, dy=dy)
    for n in range(3):
        for h in range(2):
            of = [slice(40 * part + 20 * h, 40 * part + 20 * (h + 1)) for part in range(3)]
            parts = [np.ascontiguousarray(x[n : n + 1, :, columns]) for columns in of]
            alone, *gradients = passed(single, *parts, dy=dy[n : n + 1, :, of[0]].copy())
            np.testing.assert_array_equal(y[n, :, of[0]], alone[0])
            for columns, gradient in zip(of, gradients, strict=True):
                np.testing.assert_array_equal(dx[n, :, columns], gradient[0])
