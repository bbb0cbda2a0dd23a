"""Where samples lie once axes are added, moved or merged: what mixes them is refused there, too,
and what leaves them apart is free, with the same bits for any number of ranks.
"""

from itertools import pairwise

import numpy as np
import pytest

from layers import (
    Attention,
    AvgPool1d,
    Dropout,
    GlobalAveragePool,
    PoolOverTime,
    Recompute,
    Softmax,
    Tanh,
    Tape,
    broadcast_to,
    concatenate,
    cumsum,
    einsum,
    expand_dims,
    flip,
    logsumexp,
    moveaxis,
    norm,
    pad,
    prod,
    repeat,
    roll,
    sort,
    split,
    squeeze,
    stack,
    std,
    swapaxes,
    take_along_axis,
    top_k,
    where,
)
from layers.engine.shares import required

N = 7
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 4)).astype(np.float32)
BOUNDS = (0, 2, 4, 7)
SHARE, MEET, FRONT = "other uses of", "samples must not meet", "samples on axis 0"
ATTENTION = Attention(1)
OF_FIVE = RNG.standard_normal((5, 4)).astype(np.float32)
SCALE = np.linspace(0.5, 1, 4, dtype=np.float32)

MIXED = {
    "outer difference": (lambda x: x[:, None] - x[None], MEET),
    "outer difference of columns": (lambda x: x[:, :1] - x[:, 0], MEET),
    "outer product": (lambda x: (x[:, None] * x[None]).sum(axis=2), MEET),
    "outer choice": (lambda x: where(x.array[0] > 0, x[:, None], x[None]), MEET),
    "contrasts": (lambda x: logsumexp((x[:, None] * x[None]).sum(axis=2), axis=1), MEET),
    "mean by None": (lambda x: x - x[None].mean(axis=1), SHARE),
    "mean by expand_dims": (lambda x: x - expand_dims(x, 0).mean(axis=1), SHARE),
    "mean by T": (lambda x: x - x.T.mean(axis=1), SHARE),
    "mean by stack": (lambda x: x + stack([x, x]).mean(axis=1)[0], SHARE),
    "mean by ravel": (lambda x: x - x.reshape(-1).mean(), SHARE),
    "mean by moveaxis": (lambda x: x - moveaxis(x, 0, 1).mean(axis=1), SHARE),
    "max by None": (lambda x: x - x[None].max(axis=1), MEET),
    "max by T": (lambda x: x - x.T.max(axis=1), MEET),
    "max by stack": (lambda x: x - stack([x, x]).max(axis=1)[0], MEET),
    "max by broadcast_to": (lambda x: broadcast_to(x, (3, *x.shape)).max(axis=1), MEET),
    "max by ravel": (lambda x: x - x.ravel().max(), MEET),
    "max of what is merged": (lambda x: x.reshape(4, -1).max(axis=0), MEET),
    "mean of what is merged": (lambda x: x - x.reshape(4, -1).mean(), MEET),
    "norm by T": (lambda x: x / norm(x.T, axis=1), MEET),
    "std by T": (lambda x: x / std(x.T, axis=1), "MatMul|other uses|must not meet"),
    "prod by T": (lambda x: x + prod(x.T, axis=1), MEET),
    "logsumexp by swapaxes": (lambda x: x - logsumexp(swapaxes(x, 0, 1), axis=1), MEET),
    "cumsum by T": (lambda x: cumsum(x.T, axis=1).T, MEET),
    "sort by T": (lambda x: sort(-(x.T) * x.T, axis=1).T, MEET),
    "top_k by T": (lambda x: top_k(x.T, 2, axis=1)[0].T, MEET),
    "roll by T": (lambda x: roll(x.T, 1, axis=1).T, MEET),
    "roll by None": (lambda x: roll(x[None], 1, axis=1)[0], MEET),
    "roll of all": (lambda x: roll(x.reshape(-1), 4).reshape(-1, 4), MEET),
    "flip by T": (lambda x: flip(x.T, 1).T, MEET),
    "flip by None": (lambda x: flip(x[None], 1)[0], MEET),
    "reverse by None": (lambda x: x[None][:, ::-1][0], MEET),
    "reverse of what is merged": (lambda x: x.reshape(4, -1)[::-1].reshape(-1, 4), MEET),
    "transpose of what is merged": (lambda x: x.reshape(4, -1).T, MEET),
    "first by None": (lambda x: x - x[None][:, :1][0], MEET),
    "first by T": (lambda x: x - x.T[:, 0], MEET),
    "first by T, kept": (lambda x: x - x.T[:, :1].T, MEET),
    "take_along_axis by T": (
        lambda x: x + take_along_axis(x.T, np.zeros((4, 1), int), axis=1).T,
        MEET,
    ),
    "concatenate by T": (lambda x: concatenate([x.T, x.T], axis=1), MEET),
    "split by T": (lambda x: split(x.T, [1], axis=1)[0], MEET),
    "pad by T": (lambda x: pad(x.T, ((0, 0), (1, 0))), MEET),
    "einsum": (lambda x: einsum("if,jf->ij", x, x), MEET),
    "einsum by a sum": (lambda x: x + einsum("if,jg->ig", x, x), SHARE),
    "matmul by T": (lambda x: x + (x.T @ x)[0], MEET),
    "matmul by None": (lambda x: x[None] @ swapaxes(x[None], 1, 2), MEET),
    "matmul of a stack": (lambda x: x @ x.reshape(len(x), 4, 1), MEET),
    "Softmax by T": (lambda x: Softmax(axis=1)(x.T).T, FRONT),
    "Softmax by None": (lambda x: Softmax(axis=1)(x[None])[0], FRONT),
    "Softmax by None, tanh between": (lambda x: Softmax(axis=1)(Tanh()(x[None])), FRONT),
    "Softmax of what is merged": (lambda x: Softmax()(x.reshape(4, -1)), FRONT),
    "Attention": (lambda x: ATTENTION(x[None], x[None], x[None]), FRONT),
    "Dropout by T": (lambda x: Dropout(0.5)(x.T), FRONT),
    "PoolOverTime": (lambda x: x - PoolOverTime("mean")(x[None]), FRONT),
    "GlobalAveragePool": (lambda x: x - GlobalAveragePool()(x[None, :, None, :]), FRONT),
    "AvgPool1d": (lambda x: AvgPool1d(3, stride=1, padding=1)(x[None])[0], FRONT),
    "within a segment": (lambda x: Recompute(Of(lambda x: roll(x.T, 1, axis=1)))(x), MEET),
    "behind a segment": (lambda x: roll(Recompute(Of(lambda x: x.T))(x), 1, axis=1), MEET),
    "before a segment": (lambda x: Recompute(Of(lambda x: roll(x, 1, axis=1)))(x.T), MEET),
    "without a gradient": (lambda x: x - x.T.detach()[:, 0], MEET),
}


class Of(Tanh):
    """A layer that is a function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", MIXED)
def test_samples_do_not_meet_wherever_they_lie(name):
    function, words = MIXED[name]
    for shards in ((0, 3), (0, 1, 3), (0, 1, 2, 3, 4, 5, 6, N)):
        x = Tape(training=True, shards=shards, samples=N).input(X[: shards[-1]])
        with pytest.raises(ValueError, match=words):
            required(function(x).sum(), "Test")


@pytest.mark.parametrize("name", MIXED)
def test_they_may_in_a_batch_that_is_one_shard(name):
    function, _ = MIXED[name]
    x = Tape(training=True, shards=(0, N), samples=N).input(X)
    required(function(x).sum(), "Test")


APART = {
    "T and back": lambda x: (x.T.T * x).mean(),
    "mean of T": lambda x: (x * x).T.mean(),
    "mean of T, axis by axis": lambda x: (x.T * x.T).mean(axis=1).sum(),
    "mean of T, features first": lambda x: (x.T * x.T).mean(axis=0).mean(),
    "features by T": lambda x: (x - x.T.max(axis=0)[:, None]).mean(),
    "sum of None": lambda x: (x[None] ** 2).sum(),
    "sum of a new last axis": lambda x: (x[..., None] ** 2).sum(),
    "mean of None": lambda x: (x[None] ** 2).mean(axis=1).mean(),
    "mean kept": lambda x: (x[None] ** 2).mean(axis=1, keepdims=True).sum(),
    "moveaxis and back": lambda x: moveaxis(Tanh()(moveaxis(x, 0, 1)), 1, 0)[:, 0].mean(),
    "expand_dims and squeeze": lambda x: squeeze(expand_dims(x, 0) * 2, 0)[:, 1].mean(),
    "within each": lambda x: logsumexp(x[:, None] - x[:, :, None], axis=2).mean(),
    "inner axes": lambda x: roll(x.reshape(len(x), 2, 2).transpose(0, 2, 1), 1, axis=1).mean(),
    "rows of each": lambda x: Softmax()(x.reshape(len(x), 1, 4)).reshape(len(x), 4)[:, 0].mean(),
    "ravel": lambda x: (x.reshape(-1) ** 2).mean(),
    "ravel, sum": lambda x: (x.ravel() ** 2).sum(),
    "ravel and back": lambda x: Softmax()((2 * x.ravel()).reshape(-1, 4))[:, 0].mean(),
    "merged and back": lambda x: Softmax()((2 * x.reshape(4, -1)).reshape(-1, 4))[:, 0].mean(),
    "tokens": lambda x: (Softmax()(concatenate([x, -x], axis=1).reshape(-1, 4)) ** 2).mean(),
    "each twice": lambda x: (repeat(x, 2, axis=0)[::2] ** 2).mean(),
    "stacked": lambda x: stack([x, x * x]).max(axis=0).mean(),
    "stacked, T": lambda x: stack([x.T, x.T * x.T], axis=1)[0, 1].mean(),
    "constants by broadcasting": lambda x: (x[:, None] - OF_FIVE).min(axis=1).mean(),
    "a constant for each feature": lambda x: (x.T * SCALE[:, None]).T[:, 1].mean(),
    "more axes by broadcasting": lambda x: (x * np.ones((3, 1, 1), np.float32))[1:].mean(),
    "product with T": lambda x: Tanh()(np.eye(9, 4, dtype=np.float32) @ x.T).mean(),
    "products of each": lambda x: (x[:, None] @ x[:, :, None]).mean(),
    "vectors of each": lambda x: (x[:, None] @ SCALE).mean(),
    "einsum": lambda x: einsum("nd,kd->kn", x, OF_FIVE).T[:, 0].mean(),
    "einsum of each": lambda x: einsum("ni,nj->jni", x, x)[1].mean(),
    "picked": lambda x: x[None][0, np.arange(len(x)), np.full(len(x), 2)].mean(),
    "picked of T": lambda x: x.T[np.array([2, 0])].mean(),
    "two lists": lambda x: x.reshape(-1, 2, 1, 2)[:, [0, 1], :, [1, 0]].max(axis=0).mean(),
    "sorted features": lambda x: (sort(x.T, axis=0) * SCALE[:, None]).mean(),
    "a margin of features": lambda x: pad(x.T, ((1, 0), (0, 0)))[1:].mean(),
    "split features": lambda x: split(x.T, 2, axis=0)[1].mean(),
    "a segment": lambda x: (Recompute(Of(lambda x: Tanh()(x.T)))(x) ** 2).mean(),
    "a segment in between": lambda x: Recompute(Of(lambda x: Tanh()(x).T))(x.T)[:, 1].mean(),
    "without a gradient": lambda x: (x.T * x.T.detach()).mean(),
}


@pytest.mark.parametrize("name", APART)
def test_what_leaves_them_apart_has_the_same_bits_for_any_cut(name):
    function = APART[name]
    found = []
    for cuts in ((0, 3), (0, 1, 2, 3), (0, 1, 3)):
        sums, gradients = [], []
        for first, last in pairwise(cuts):
            start, stop = BOUNDS[first], BOUNDS[last]
            shards = [bound - start for bound in BOUNDS[first : last + 1]]
            x = Tape(training=True, shards=shards, samples=N).input(X[start:stop])
            loss = function(x)
            sums.append(required(loss, "Test").per_sample(N))
            loss.backward()
            gradients.append(x.grad)
        found.append((np.concatenate(sums).tobytes(), np.concatenate(gradients).tobytes()))
    assert found[1:] == found[:1] * 2
    x = Tape(training=True).input(X)
    alone = function(x)
    alone.backward()
    np.testing.assert_allclose(np.frombuffer(found[0][0]).sum() / N, alone.item(), rtol=1e-5)
    expected = np.frombuffer(found[0][1], np.float32).reshape(X.shape)
    np.testing.assert_allclose(expected, x.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", APART)
def test_it_is_free_for_any_size_of_a_part(name):
    for rows in (0, 1, 2, 3, 4):
        x = Tape(training=True, shards=(0, rows), samples=N).input(X[:rows])
        required(APART[name](x), "Test")


def test_a_number_may_be_squeezed():
    x = Tape(shards=(0, 1, N), samples=N).input(X)
    assert squeeze((x * x).mean()).shape == ()
