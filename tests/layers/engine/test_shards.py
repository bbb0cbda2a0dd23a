"""Shards: the gradients of each shard apart, the loss over the global batch; and a layer of a
user's own.
"""

import itertools

import numpy as np
import pytest

import layers
from layers import MeanSquaredError, SoftmaxCrossEntropy, Tape

from ..spy import Spy, linear


@pytest.fixture
def rng():
    return np.random.default_rng(5)


class Scale(layers.Layer):
    """The layer of a user: y = gain x."""

    def __init__(self, features):
        self.gain = layers.Parameter(np.linspace(-1, 1, features))

    def forward(self, call, x):
        call.save(x)
        return x * self.gain.value

    def backward(self, call, dy):
        (x,) = call.saved
        for gradient, rows in call.shards(self.gain, dy):
            gradient += (dy[rows] * x[rows]).sum(axis=0)
        return (dy * call.feedback(self.gain),)


def test_layer_of_a_user_has_the_gradients_of_the_same_arithmetic(rng):
    layer = Scale(3)
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    value = Tape().input(x)
    layer(value).backward(dy)
    assert (value.grad == dy * layer.gain.value).all()
    np.testing.assert_allclose(layer.gain.gradient, (dy * x).sum(axis=0), rtol=1e-14)
    assert (layer(x) == x * layer.gain.value).all()


@pytest.mark.parametrize(
    "make", [lambda rng: Scale(3), lambda rng: linear(rng, 3, 3)], ids=["user's", "linear"]
)
def test_gradient_of_each_shard_is_that_of_its_rows_alone(make, rng):
    layer = make(rng)
    x, dy = rng.standard_normal((10, 3)), rng.standard_normal((10, 3))
    bounds = (0, 4, 4, 9, 10)
    layer(Tape(shards=bounds).input(x)).backward(dy)
    whole = [p.gradients.copy() for p in layer.parameters()]
    for s, (start, stop) in enumerate(itertools.pairwise(bounds)):
        alone = layer.astype(np.float64)
        alone(Tape().input(x[start:stop])).backward(dy[start:stop])
        for parameter, gradients in zip(alone.parameters(), whole, strict=True):
            assert (gradients[s] == parameter.gradient).all()


def test_arrays_with_several_rows_per_sample_are_cut_at_samples(rng):
    layer = Scale(3)
    x = rng.standard_normal((6, 3))
    layer(Tape(shards=(0, 1, 3)).input(x)).backward(np.ones((6, 3)))
    np.testing.assert_allclose(
        layer.gain.gradients, [x[:2].sum(axis=0), x[2:].sum(axis=0)], rtol=1e-13
    )


def test_rows_that_are_no_multiple_of_the_samples_are_refused():
    with pytest.raises(ValueError, match="multiple of the 3 rows"):
        Scale(3)(Tape(shards=(0, 1, 3)).input(np.ones((4, 3)))).backward(np.ones((4, 3)))


@pytest.mark.parametrize("bounds", [(0,), (1, 2), (0, 3, 2), 5], ids=str)
def test_shards_that_are_no_increasing_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="increasing row bounds that begin with 0"):
        Tape(shards=bounds)


def test_loss_is_divided_by_the_samples_of_the_global_batch_and_reports_each_shard(rng):
    x, t = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    losses = ((x - t) ** 2).mean(axis=1)
    value = Tape(shards=(0, 2, 6), samples=24).input(x)
    loss = MeanSquaredError()(value, t)
    np.testing.assert_allclose(float(loss), losses.sum() / 24, rtol=1e-14)
    np.testing.assert_allclose(loss.shard_sums, [losses[:2].sum(), losses[2:].sum()], rtol=1e-14)
    loss.backward()
    np.testing.assert_allclose(value.grad, (x - t) / 24, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [(0, 50), (0, 1, 1, 20, 50), (0, 0, 50)], ids=str)
@pytest.mark.parametrize(
    "loss",
    [
        SoftmaxCrossEntropy(),
        SoftmaxCrossEntropy(0.1),
        MeanSquaredError(),
        layers.BinaryCrossEntropy(),
    ],
    ids=str,
)
def test_shard_sums_add_one_sample_after_the_other_in_float64(loss, bounds, dtype, rng):
    x = rng.standard_normal((50, 3)).astype(dtype)
    for t in [
        rng.dirichlet((1, 1, 1), 50).astype(dtype),
        *([rng.integers(0, 3, 50)] if isinstance(loss, SoftmaxCrossEntropy) else []),
    ]:
        samples = loss(Tape(shards=range(51)).input(x), t).shard_sums
        sums = loss(Tape(shards=bounds).input(x), t).shard_sums
        assert sums.dtype == np.float64
        for total, (start, stop) in zip(sums, itertools.pairwise(bounds), strict=True):
            twin = 0.0
            for value in samples[start:stop]:
                twin += float(value)
            assert total == twin


@pytest.mark.parametrize("loss", [MeanSquaredError(), layers.BinaryCrossEntropy()], ids=str)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_sample_that_is_not_finite_spoils_no_other(loss, bad):
    value = Tape(shards=(0, 1, 2)).input(np.array([[bad, bad], [0.5, 1.5]]))
    sums = loss(value, np.zeros((2, 2))).shard_sums
    alone = loss(Tape().input(np.array([[0.5, 1.5]])), np.zeros((1, 2))).shard_sums
    assert not np.isfinite(sums[0])
    assert sums[1] == alone[0]


def test_loss_does_not_depend_on_what_its_buffers_held(rng):
    workspace = layers.Workspace()
    x, t = rng.standard_normal((4, 2)), rng.random((4, 2))
    for loss, target in (
        (MeanSquaredError(), t),
        (layers.BinaryCrossEntropy(), t),
        (SoftmaxCrossEntropy(), np.array([0, 1, 1, 0])),
    ):
        first = float(loss(Tape(workspace=workspace).input(x), target))
        with np.errstate(invalid="ignore"):
            loss(Tape(workspace=workspace).input(np.full_like(x, np.nan)), target)
        assert float(loss(Tape(workspace=workspace).input(x), target)) == first


@pytest.mark.parametrize("count", [0, 2])
def test_backward_with_the_wrong_number_of_gradients_is_refused(count):
    class Wrong(Spy):
        def backward(self, call, dy):
            return (dy,) * count

    with pytest.raises(ValueError, match=f"must return 1 gradients; got {count}"):
        Wrong()(Tape().input(np.ones(2))).backward(np.ones(2))


def test_gradient_of_the_wrong_shape_is_refused():
    class Wrong(Spy):
        def backward(self, call, dy):
            return (dy[:1],)

    with pytest.raises(ValueError, match=r"gradient of the input's shape \(2,\)"):
        Wrong()(Tape().input(np.ones(2))).backward(np.ones(2))
