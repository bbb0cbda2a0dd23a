"""Dropout: masks that do not depend on how the batch is spread, and their statistics."""

import numpy as np
import pytest

import layers
from layers import Dropout, Sequential, Tape


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def dropped(x, p=0.3, *, training=True, calls=1, **key):
    value = Tape(training=training, **key).input(x)
    y = value
    for _ in range(calls):
        y = Dropout(p)(value)
    return y


def test_masks_are_the_same_however_the_batch_is_cut():
    x = np.ones((13, 7, 3), np.float32)
    whole = dropped(x, seed=3, step=5).array
    for cuts in ([4], [1, 2, 9], list(range(1, 13))):
        parts = [
            dropped(part, seed=3, step=5, first_sample=first).array
            for part, first in zip(np.split(x, cuts), [0, *cuts], strict=True)
        ]
        assert (np.concatenate(parts) == whole).all()


@pytest.mark.parametrize(
    "other",
    [{"seed": 4}, {"step": 6}, {"first_sample": 1}, {"calls": 2}, {"seed": 3 + 2**32}],
    ids=str,
)
def test_masks_differ_with_seed_step_sample_and_call(other):
    key = {"seed": 3, "step": 5, "first_sample": 0, "calls": 1}
    x = np.ones((4, 1000))
    same = (dropped(x, 0.5, **key).array == dropped(x, 0.5, **{**key, **other}).array).mean()
    # Of 4000 fair comparisons half agree, give or take 6 standard deviations of 0.008.
    assert abs(same - 0.5) < 0.048


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("features", [1, 5, 256])
def test_fraction_dropped_is_about_p_and_the_rest_is_scaled(p, features):
    n = 200_000
    y = dropped(np.ones((n // features, features)), p, seed=1).array
    assert set(np.unique(y)) == {0, 1 / (1 - p)}
    assert abs((y == 0).mean() - p) < 6 * np.sqrt(p * (1 - p) / n)


def test_neighbouring_masks_are_uncorrelated():
    y = dropped(np.ones((2000, 64)), 0.5, seed=1).array - 1
    for a, b in ((y[:, 1:], y[:, :-1]), (y[1:], y[:-1]), (y[:, 16:], y[:, :-16])):
        assert abs((a * b).mean()) < 6 / np.sqrt(a.size)


def test_gradient_of_dropout_passes_where_the_mask_does(rng):
    x = rng.standard_normal((5, 8))
    value = Tape(training=True, seed=2).input(x)
    y = Dropout(0.4)(value)
    dy = rng.standard_normal((5, 8))
    y.backward(dy)
    np.testing.assert_allclose(value.grad, dy * y.array / x, rtol=1e-13)


def test_dropout_is_the_identity_in_evaluation_without_a_tape_and_at_p_0(rng):
    x, dy = rng.standard_normal((5, 8)), rng.standard_normal((5, 8))
    assert (Dropout(0.4)(x) == x).all()
    for y in (dropped(x, training=False), dropped(x, 0)):
        assert (y.array == x).all()
        y.backward(dy)
        assert (y.call.inputs[0].grad == dy).all()


@pytest.mark.parametrize("p", [-0.1, 1, float("nan")])
def test_impossible_probability_is_refused(p):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\)"):
        Dropout(p)


# ---- random keys


def test_draws_are_counted_along_the_tape_and_calls_are_not():
    tape = Tape(training=True, seed=1)
    x = tape.input(np.ones((4, 50)))
    first = Dropout(0.5)(x)
    for _ in range(3):
        x = x * 1.0
    assert tape.draws == 1
    second = Dropout(0.5)(x)
    assert tape.draws == 2
    assert first.array.tobytes() != second.array.tobytes()
    other = Tape(training=True, seed=1)
    y = other.input(np.ones((4, 50)))
    assert Dropout(0.5)(y * 1.0).array.tobytes() == first.array.tobytes()
    assert Dropout(0.5)(y).array.tobytes() == second.array.tobytes()


def test_nothing_is_drawn_in_evaluation_and_at_probability_0():
    for tape, p in ((Tape(), 0.5), (Tape(training=True), 0)):
        Dropout(p)(tape.input(np.ones((2, 3))))
        layers.Attention(1, dropout=p)(tape.input(np.ones((2, 3, 3))))
        assert tape.draws == 0


def test_what_is_computed_again_draws_the_same_numbers():
    tape = Tape(training=True, seed=1)
    x = tape.input(np.ones((4, 50)))
    segment = Sequential(Dropout(0.3), Dropout(0.5))
    Dropout(0.1)(x)
    before = segment(x)
    after = Dropout(0.2)(x)
    with tape.drawing_again(before.call.inputs[0].call):
        again = segment(x)
        assert tape.draws == 3
    assert again.array.tobytes() == before.array.tobytes()
    assert tape.draws == 4
    assert after.call.draws == 3


def test_call_that_failed_and_a_restarted_tape_take_their_draws_back():
    class Fails(layers.Layer):
        def forward(self, call, x):
            call.random_key()
            raise RuntimeError("broken")

    tape = Tape(training=True)
    x = tape.input(np.ones((2, 3)))
    first = Dropout()(x).array.copy()
    with pytest.raises(RuntimeError, match="broken"):
        Fails()(x)
    assert tape.draws == 1
    tape.restart()
    assert tape.draws == 0
    assert (Dropout()(x).array == first).all()
