"""What is averaged over the batch outside a loss layer: a share of the whole, with the same bits on
any number of ranks and shards, or refused.
"""

from itertools import pairwise

import numpy as np
import pytest

from layers import MeanSquaredError, SoftmaxCrossEntropy, Tape, cumsum, norm, prod, std
from layers.engine.shares import required

N = 7
X = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)
LABELS = np.array([0, 2, -1, 1, -1, -1, 0])
BOUNDS = (0, 2, 4, 7)
squared = MeanSquaredError()


def zeros(x):
    return np.zeros(x.shape, np.float32)


LOSSES = {
    "mean": lambda x, _: (x * x).mean(),
    "mean of sums": lambda x, _: (x * x).sum(axis=1).mean(),
    "mean of rows, then sum": lambda x, _: (x * x).mean(axis=0).sum(),
    "mean of rows, then mean": lambda x, _: (x * x).mean(axis=0).mean(),
    "sum": lambda x, _: (x * x).sum(),
    "sum over the samples": lambda x, _: (x * x).sum() / N,
    "mean over several axes": lambda x, _: -(x**3).mean(axis=(1, 0)),
    "loss and multiple": lambda x, _: squared(x, zeros(x)) + 0.5 * (x**3).mean(),
    "part of a loss": lambda x, _: squared(x, zeros(x)) / 2 - 1,
    "sum of a list": lambda x, _: sum([squared(x, zeros(x)), (x**3).mean()]),
    "means over different things": lambda x, labels: (
        SoftmaxCrossEntropy(ignore=-1)(x, labels) - 2 * squared(x, zeros(x))
    ),
    "halved, with weights": lambda x, labels: SoftmaxCrossEntropy(ignore=-1)(x, labels) / 2,
}


def passes(function, bounds, cuts, gather=None):
    """Return the value, shard sums and gradients of a batch whose shards are spread over tapes."""
    sums, gradients, value = [], [], 0.0
    for first, last in pairwise(cuts):
        start, stop = bounds[first], bounds[last]
        mine = [bound - start for bound in bounds[first : last + 1]]
        tape = Tape(shards=mine, samples=N, gather=gather)
        x = tape.input(X[start:stop])
        loss = function(x, LABELS[start:stop])
        found = required(loss, "Test")
        loss.backward()
        value += loss.item()
        sums.append(found.per_sample(N))
        gradients.append(x.grad)
    return value, np.concatenate(sums), np.concatenate(gradients)


def everywhere(numbers):
    """Return the numbers of labels that count in each shard of BOUNDS."""
    return np.array([[2.0], [1.0], [1.0]])


@pytest.mark.parametrize("name", LOSSES)
def test_any_cut_over_ranks_gives_the_same_bits_and_the_value_of_one_process(name):
    function = LOSSES[name]
    together = passes(function, BOUNDS, (0, 3))
    for cuts in ((0, 1, 2, 3), (0, 1, 3)):
        apart = passes(function, BOUNDS, cuts, everywhere)
        assert apart[1].tobytes() == together[1].tobytes()
        assert apart[2].tobytes() == together[2].tobytes()
    x = Tape().input(X)
    alone = function(x, LABELS)
    alone.backward()
    np.testing.assert_allclose(together[1].sum() / N, alone.item(), rtol=1e-6)
    np.testing.assert_allclose(together[2], x.grad, rtol=1e-5, atol=1e-8)


REFUSED = {
    "nonlinear in a mean": (lambda x: (x * x).mean() ** 2, "Power"),
    "centred by a mean": (lambda x: ((x - x.mean(axis=0)) ** 2).mean(), "other uses of call 0"),
    "divided by a mean": (lambda x: (x / (x * x).mean()).mean(), "other uses of call 1"),
    "greatest of the batch": (lambda x: x.max(axis=0).sum(), "only sums and means"),
    "length of the batch": (lambda x: norm(x, axis=0).sum(), "only sums and means"),
    "product of the batch": (lambda x: prod(x, axis=0).sum(), "only sums and means"),
    "sums up to each sample": (lambda x: cumsum(x, axis=0).mean(), "only sums and means"),
    "spread of the batch": (lambda x: std(x, axis=0).mean(), "only sums and means"),
    "a sum of products of samples": (lambda x: (x.T @ x).sum(), "sum"),
    "a single sample": (lambda x: (x[0] * x[0]).sum(), "sum"),
    "a product of means": (lambda x: x.mean() * x.mean(), "Multiply"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_rank_cannot_know_is_refused(name):
    function, words = REFUSED[name]
    for shards in ((0, 2), (0, 1, 2)):
        x = Tape(shards=shards, samples=N).input(X[:2])
        with pytest.raises(ValueError, match="; got ") as caught:
            required(function(x), "Test")
        assert words in str(caught.value), caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_a_whole_batch_in_one_shard_may_be_reduced_in_any_way(name):
    function, _ = REFUSED[name]
    x = Tape(shards=(0, N), samples=N).input(X)
    loss = function(x)
    assert required(loss, "Test").sums.tolist() == [loss.item() * N]


def test_a_measure_beside_the_loss_does_not_disturb():
    x = Tape(shards=(0, 2), samples=N).input(X[:2])
    beside = (x * x).mean()
    loss = squared(x, zeros(x))
    assert required(loss, "Test").sums.shape == (1,)
    assert beside.shard_sums.shape == (1,)


def test_without_a_global_batch_nothing_is_a_share():
    x = Tape().input(X)
    np.testing.assert_allclose(x.max(axis=0).array, X.max(axis=0))
    assert x.mean(axis=0).shard_sums is None
