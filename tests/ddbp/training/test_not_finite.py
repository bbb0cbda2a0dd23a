"""Gradients and parameters that are not finite are refused, and named."""

import numpy as np
import pytest

import ddbp
from layers import Layer

from . import small
from .small import LABELS, make, network, parameters

X, ROWS = small.X.astype(np.float32), slice(0, 24)


class Poison(Layer):
    """Passes on what it gets, and in one backward pass NaN instead of a gradient."""

    def __init__(self, number):
        self._passes, self._number = 0, number

    def forward(self, call, x):
        return x

    def backward(self, call, dy):
        self._passes += 1
        return (np.full_like(dy, np.nan),) if self._passes == self._number else (dy,)


def trainer(number, **options):
    """Return a trainer whose first layer gets a NaN in backward pass `number`, though the loss is
    finite.
    """
    return make(network(Poison(number)), batch_size=24, **options)


def step(trainer):
    return trainer.train_step(X[ROWS], LABELS[ROWS])


@pytest.mark.parametrize("shards", [1, 4])
def test_gradient_whose_norm_is_not_finite_is_refused_before_the_update(shards):
    poisoned, other = (
        trainer(3, clip_norm=1.0, shards=shards),
        trainer(0, clip_norm=1.0, shards=shards),
    )
    for _ in range(2):
        step(poisoned)
        step(other)
    before = parameters(poisoned)
    text = r"the gradient must be finite; got nan in step 2 for layers\.0\.weight\. Look for"
    with pytest.raises(FloatingPointError, match=text):
        step(poisoned)
    assert parameters(poisoned).tobytes() == before.tobytes()
    # Nothing is lost: training goes on as if that step had not been.
    assert step(poisoned) == step(other)
    assert parameters(poisoned).tobytes() == parameters(other).tobytes()


def test_parameters_that_are_not_finite_are_named_by_the_next_step():
    poisoned = trainer(2)
    step(poisoned)
    assert np.isfinite(step(poisoned))
    text = (
        r"the loss must be finite; got nan in step 2; layers\.0\.weight is not finite, since the"
        r" update of step 1 or a change"
    )
    with pytest.raises(FloatingPointError, match=text):
        step(poisoned)


def test_last_update_of_an_epoch_is_looked_at():
    data = ddbp.ArrayDataset(X[:72], LABELS[:72])
    text = (
        r"the parameters must be finite; got NaN or inf in layers\.0\.weight after step 2\. A"
        r" gradient was not finite"
    )
    with pytest.raises(FloatingPointError, match=text):
        trainer(3).fit(data, epochs=1)
    assert len(trainer(0).fit(data, epochs=1)) == 1
