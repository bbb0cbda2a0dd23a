"""Dense layers where a rule keeps some of the gradients of their outputs."""

import itertools

import numpy as np
import pytest

import layers
from layers import GELU, FlatParameters, Linear, ReLU, Sequential, Tape, Workspace, set_precision
from layers.engine.rules import KeptGradients

BOUNDS = (0, 7, 16, 16, 40)


class Kept(layers.Rule):
    """Keeps the k largest."""

    def __init__(self, k, unified=False):
        self.top = KeptGradients(k, unified)

    def top_k(self, call, width):
        return self.top


class Zeroed(Kept):
    """Backpropagation of the gradients whose others have been set to 0."""

    def error(self, call, dy):
        if not isinstance(call.layer, Linear):
            return dy
        result, rows = np.zeros_like(dy), dy.reshape(-1, dy.shape[-1])
        of = result.reshape(rows.shape)
        k, unified = self.top
        bounds = call.bounds(len(rows)) if unified else range(len(rows) + 1)
        for start, stop in itertools.pairwise(bounds):
            sizes = np.zeros(rows.shape[1], dy.dtype)
            for row in rows[start:stop]:
                sizes += abs(row)
            columns = np.argsort(-sizes, kind="stable")[:k]
            of[start:stop, columns] = rows[start:stop, columns]
        return result

    def top_k(self, call, width):
        return None


def model(activation=ReLU, fuse=True):
    rng = np.random.default_rng(0)
    each = Linear(24, 60, rng=rng), activation(), Linear(60, 50, rng=rng)
    return Sequential(*each, fuse=fuse)


def step(model, rule, *, workspace=None, bounds=BOUNDS, rows=slice(None)):
    """Return the gradient of the input and the flat ones of the shards (S, n)."""
    rng = np.random.default_rng(1)
    x, dy = (rng.standard_normal((BOUNDS[-1], n)).astype(np.float32)[rows] for n in (24, 50))
    flat = FlatParameters(model, shards=len(bounds) - 1)
    tape = Tape(training=True, shards=bounds, workspace=workspace or Workspace(), owner=flat)
    value = tape.input(x.astype(model[0].weight.dtype))
    model(value).backward(dy.astype(value.dtype), rule=rule)
    return value.grad.copy(), flat.gradients.copy()


def same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("k", [1, 6, 30])
@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("activation", [ReLU, GELU, layers.Tanh])
@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16x3", "float16", "float64"])
def test_bits_are_those_of_backpropagating_zeros_for_the_others(precision, activation, unified, k):
    ours, theirs = model(activation), model(activation, fuse=False)
    for each in (ours, theirs):
        if precision == "float64":
            each.astype(np.float64)
        else:
            set_precision(each, precision)
    same(step(ours, Kept(k, unified)), step(theirs, Zeroed(k, unified)))


@pytest.mark.parametrize("unified", [False, True])
def test_all_that_are_kept_give_the_bits_of_backpropagation(unified):
    class All(layers.Rule):
        def top_k(self, call, width):
            return KeptGradients(width, unified)

    same(step(model(), All()), step(model(), None))


def test_a_sample_has_the_bits_that_it_has_alone():
    whole, _ = step(model(), Kept(3))
    for i in (0, 17, 39):
        alone, _ = step(model(), Kept(3), bounds=(0, 1), rows=slice(i, i + 1))
        np.testing.assert_array_equal(whole[i], alone[0])


@pytest.mark.parametrize("unified", [False, True])
def test_a_shard_has_the_bits_that_it_has_alone(unified):
    dx, gradients = step(model(), Kept(3, unified))
    for s, (start, stop) in enumerate(itertools.pairwise(BOUNDS)):
        bounds = (0, stop - start)
        one = step(model(), Kept(3, unified), bounds=bounds, rows=slice(start, stop))
        same(one, (dx[start:stop], gradients[s : s + 1]))


def test_columns_of_a_shard_are_the_same_for_its_rows_and_not_for_others():
    _, gradients = step(model(), Kept(3, unified=True))
    flat = FlatParameters(model(), shards=4)
    start = flat.starts[flat.names.index("layers.2.weight")]
    weights = gradients[:, start : start + 50 * 60].reshape(4, 50, 60)
    learn = (weights != 0).any(axis=2)
    assert learn.sum(axis=1).tolist() == [3, 3, 0, 3]
    assert (learn[0] != learn[1]).any()


@pytest.mark.parametrize("k", [0, 51])
def test_k_beyond_the_width_is_refused(k):
    words = rf"Kept: k must be from 1 to the 50 outputs of Linear\(60, 50\); got {k}"
    with pytest.raises(ValueError, match=words):
        step(model(), Kept(k))


@pytest.mark.parametrize("unified", [False, True])
def test_nothing_is_allocated_after_the_second_step(unified):
    workspace, ours = Workspace(), model()
    counts = []
    for _ in range(4):
        step(ours, Kept(5, unified), workspace=workspace)
        counts.append(workspace.allocations)
    assert counts[1] == counts[3]
