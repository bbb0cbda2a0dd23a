"""What is averaged over the batch outside a loss layer: a share of the whole, with the same bits on
any number of ranks and shards, or refused.
"""

from itertools import pairwise

import numpy as np
import pytest

from layers import (
    MeanSquaredError,
    SoftmaxCrossEntropy,
    Tape,
    concatenate,
    cumsum,
    einsum,
    flip,
    norm,
    pad,
    prod,
    repeat,
    roll,
    sort,
    split,
    stack,
    std,
    take_along_axis,
)
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


def backwards(x):
    return np.arange(len(x))[::-1]


REFUSED = {
    "nonlinear in a mean": (lambda x: (x * x).mean() ** 2, "Power"),
    "centred by a mean": (lambda x: ((x - x.mean(axis=0)) ** 2).mean(), "other uses of call 0"),
    "divided by a mean": (lambda x: (x / (x * x).mean()).mean(), "other uses of call 1"),
    "greatest of the batch": (lambda x: x.max(axis=0).sum(), "samples must not meet"),
    "length of the batch": (lambda x: norm(x, axis=0).sum(), "samples must not meet"),
    "product of the batch": (lambda x: prod(x, axis=0).sum(), "samples must not meet"),
    "sums up to each sample": (lambda x: cumsum(x, axis=0).mean(), "samples must not meet"),
    "spread of the batch": (lambda x: std(x, axis=0).mean(), "samples must not meet"),
    "a sum of products of samples": (lambda x: (x.T @ x).sum(), "sum"),
    "a single sample": (lambda x: (x[0] * x[0]).sum(), "sum"),
    "centred by a sample": (lambda x: (x - x[0]).mean(), "samples must not meet"),
    "some samples": (lambda x: x[np.array([1, 0])].mean(), "samples must not meet"),
    "samples under a mask": (
        lambda x: x[x.array[:, 0] != x.array[0, 0]].sum(),
        "samples must not meet",
    ),
    "the first samples": (lambda x: x[:1].mean(), "samples must not meet"),
    "samples in reverse": (lambda x: (x * x[::-1]).mean(), "samples must not meet"),
    "neighbours": (lambda x: (x * roll(x, 1, axis=0)).mean(), "samples must not meet"),
    "neighbours, by NumPy": (lambda x: (x * np.roll(x, 1, axis=0)).mean(), "BatchNorm"),
    "flipped": (lambda x: (x * flip(x, 0)).mean(), "samples must not meet"),
    "sorted": (lambda x: (x * sort(x, 0)).mean(), "samples must not meet"),
    "taken": (lambda x: (x * np.take(x, backwards(x), axis=0)).mean(), "samples must not meet"),
    "taken for each column": (
        lambda x: take_along_axis(x, backwards(x)[:, None], 0).mean(),
        "samples must not meet",
    ),
    "halves": (lambda x: split(x, [1])[0].sum(), "samples must not meet"),
    "twice as many": (lambda x: concatenate([x, x]).mean(), "samples must not meet"),
    "a margin of samples": (lambda x: pad(x, ((1, 0), (0, 0)))[:, 0].sum(), "must not meet"),
    "similarities": (lambda x: (x @ x.T).mean(), "samples must not meet"),
    "similarities, by einsum": (lambda x: einsum("id,jd->ij", x, x).mean(), "must not meet"),
    "by way of all": (lambda x: (x @ (x.T @ x)).mean(), "samples must not meet"),
    "sums up to each, transposed": (lambda x: cumsum(x.T, axis=1).T.mean(), "must not meet"),
    "a quotient of means": (lambda x: (x * x).mean() / (x**4).mean(), "Divide"),
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


KEPT = {
    "columns": lambda x: x[:, 0].mean(),
    "columns from behind": lambda x: x[..., -1].mean(),
    "all rows": lambda x: x[:][None].sum(axis=0).mean(),
    "one number of each": lambda x: x[np.arange(len(x)), np.arange(len(x)) % 3].mean(),
    "sorted numbers of each": lambda x: (sort(x, axis=1) * roll(x, 1, axis=1)).mean(),
    "each twice": lambda x: repeat(x, 2, axis=0).reshape(len(x), 2, 3).mean(),
    "side by side": lambda x: concatenate([x, x], axis=1).mean(),
    "stacked": lambda x: stack([x, 2 * x]).max(axis=0).mean(),
    "products with constants": lambda x: (x @ np.eye(3, dtype=np.float32)).mean(),
    "rows of time": lambda x: x.reshape(len(x), 3, 1).transpose(1, 0, 2)[1].mean(),
    "similarities within": lambda x: einsum("ni,nj->nij", x, x).mean(),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_leaves_samples_apart_is_free_for_any_size_of_a_part(name):
    for rows in (1, 2, 3, 4):
        x = Tape(shards=(0, rows), samples=N).input(X[:rows])
        required(KEPT[name](x), "Test")


OWN_SIZES = {
    "rows": lambda x: ((x - 1) ** 2).sum() / len(x),
    "rows, in NumPy": lambda x: (x * x).sum() / np.float32(len(x)),
    "inverse": lambda x: (1 / len(x)) * (x * x).sum(),
    "elements": lambda x: ((x - 1) ** 2).sum() / x.size,
    "elements, summed twice": lambda x: (x * x).sum(axis=1).sum() / x.size,
    "before the sum": lambda x: (x * x / len(x)).sum(),
    "with another term": lambda x: squared(x, zeros(x)) + 0.1 * -((x**3).sum() / len(x)),
}


@pytest.mark.parametrize("name", OWN_SIZES)
def test_a_sum_divided_by_the_size_of_a_part_is_refused(name):
    function = OWN_SIZES[name]
    for rows in (2, 3):
        x = Tape(shards=(0, 1, rows), samples=N).input(X[:rows])
        with pytest.raises(ValueError, match=r"; got .*batch\.samples"):
            required(function(x), "Test")
    x = Tape(shards=(0, 1, N), samples=N).input(X)
    required(function(x), "Test")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x * x).sum() / N,
        lambda x: 0.5 * (x * x).sum() / N,
        lambda x: (x * x).mean() / 2,
        lambda x: squared(x, zeros(x)) / 6,
        lambda x: 1.0 * (x * x).sum(),
    ],
)
def test_a_number_that_happens_to_be_the_size_of_a_part_is_free_elsewhere(function):
    for rows in (1, 2):
        x = Tape(shards=(0, rows), samples=N).input(X[:rows])
        required(function(x), "Test")


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


def halved(x):
    return 0.5 * ((x - 1) ** 2).sum()


def test_number_of_an_earlier_batch_is_no_count_of_the_samples_of_a_later_one():
    known = set()
    for rows in (3, 2, 1, 0):
        x = Tape(shards=(0, rows), samples=N).input(X[:rows])
        required(halved(x), "Test", known)
    # Of a first batch it may be one.
    with pytest.raises(ValueError, match="got a division by 2"):
        required(halved(Tape(shards=(0, 2), samples=N).input(X[:2])), "Test")


def test_numbers_that_differ_in_each_batch_are_not_all_remembered():
    known = set()
    for number in range(1000):
        x = Tape(shards=(0, 3), samples=N).input(X[:3])
        required((x * x).sum() / (100 + number), "Test", known)
    assert len(known) < 100


@pytest.mark.parametrize("shape", [(0, -1), (0, 2, -1), (0, -1, 2, 1)])
def test_shape_that_is_worked_out_of_no_samples_is_that_of_some(shape):
    numbers = np.zeros((5, 4, 3), np.float32)
    expected = numbers.reshape(5, *shape[1:]).shape[1:]
    assert Tape().input(numbers[:0]).reshape(*shape).shape == (0, *expected)
    assert Tape().input(numbers).reshape(5, *shape[1:]).shape == (5, *expected)
