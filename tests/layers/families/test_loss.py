"""Losses that leave positions out or weigh them: against PyTorch, and the same for any cut of the
batch.
"""

from itertools import pairwise

import numpy as np
import pytest

import layers

from ..fixed_tree import tree
from .oracle import F, torch

N, T, C = 7, 5, 11


def data(dtype=np.float64):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, (N, T))
    labels[rng.random((N, T)) < 0.4] = -1
    labels[2] = -1
    return rng.standard_normal((N, T, C)).astype(dtype), labels, rng.random((N, T)).astype(dtype)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ignored_labels_equal_those_of_pytorch(smoothing):
    x, labels, _ = data()
    value, theirs = layers.Tape().input(x), torch.tensor(x, requires_grad=True)
    loss = layers.SoftmaxCrossEntropy(smoothing, ignore=-1)(value, labels)
    options = {"ignore_index": -1, "label_smoothing": smoothing}
    expected = F.cross_entropy(theirs.reshape(-1, C), torch.tensor(labels.reshape(-1)), **options)
    loss.backward()
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-14)
    np.testing.assert_allclose(value.grad, theirs.grad.numpy(), rtol=0, atol=1e-16)


def test_weights_of_positions_are_those_of_the_mean():
    x, labels, weights = data()
    value, theirs = layers.Tape().input(x), torch.tensor(x, requires_grad=True)
    loss = layers.SoftmaxCrossEntropy(ignore=-1)(value, labels, weights)
    each = F.cross_entropy(
        theirs.reshape(-1, C), torch.tensor(labels.reshape(-1)), ignore_index=-1, reduction="none"
    )
    counted = torch.tensor((weights * (labels >= 0)).reshape(-1))
    expected = (each * counted).sum() / counted.sum()
    loss.backward()
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-14)
    np.testing.assert_allclose(value.grad, theirs.grad.numpy(), rtol=0, atol=1e-16)


@pytest.mark.parametrize(
    "bounds", [(0, 3, 7), (0, 2, 3, 7), (0, 1, 1, 7), tuple(range(8))], ids=str
)
def test_any_cut_over_processes_gives_the_same_bits(bounds):
    x, labels, weights = data(np.float32)
    layer = layers.SoftmaxCrossEntropy(ignore=-1)
    counts = []

    def everywhere(numbers):
        counts.append(numbers)
        return numbers

    tape = layers.Tape(shards=bounds, gather=everywhere)
    value = tape.input(x)
    whole = layer(value, labels, weights)
    whole.backward()
    sums, gradients = [], []
    for start, stop in pairwise(bounds):
        tape = layers.Tape(
            shards=(0, stop - start), samples=N, first_sample=start, gather=lambda _: counts[0]
        )
        part = tape.input(x[start:stop])
        loss = layer(part, labels[start:stop], weights[start:stop])
        loss.backward()
        sums.append(loss.shard_sums[0])
        gradients.append(part.grad)
    assert np.concatenate(gradients).tobytes() == value.grad.tobytes()
    assert sums == whole.shard_sums.tolist()
    np.testing.assert_allclose(sum(sums) / whole.divisor, whole.item(), rtol=1e-6)
    alone = layers.Tape().input(x)
    loss = layer(alone, labels, weights)
    np.testing.assert_allclose(loss.item(), whole.item(), rtol=1e-6)


@pytest.mark.parametrize("weights", [None, np.zeros((N, T))], ids=["all ignored", "no weight"])
def test_loss_of_nothing_is_zero(weights):
    x, labels, _ = data()
    value = layers.Tape().input(x)
    further = [] if weights is None else [weights]
    loss = layers.SoftmaxCrossEntropy(ignore=-1)(
        value, np.full_like(labels, -1) if weights is None else labels, *further
    )
    loss.backward()
    assert loss.item() == 0
    assert not value.grad.any()


@pytest.mark.parametrize("count", [0, 1])
def test_no_sample_and_a_single_one(count):
    x, labels, weights = data()
    value = layers.Tape().input(x[:count])
    loss = layers.SoftmaxCrossEntropy(ignore=-1)(value, labels[:count], weights[:count])
    loss.backward()
    assert np.isfinite(loss.item())
    assert value.grad.shape == (count, T, C)


def test_outside_a_tape_it_is_the_same():
    x, labels, weights = data()
    layer = layers.SoftmaxCrossEntropy(ignore=-1)
    assert layer(x, labels, weights) == layer(layers.Tape().input(x), labels, weights).item()


def test_what_ignored_positions_hold_does_not_matter():
    x, labels, _ = data()
    other = x.copy()
    other[labels == -1] = np.nan
    layer = layers.SoftmaxCrossEntropy(ignore=-1)
    assert layer(x, labels) == layer(other, labels)


@pytest.mark.parametrize(
    ("layer", "further", "words"),
    [
        (
            layers.SoftmaxCrossEntropy(ignore=-1),
            (np.full((2, 3), 9),),
            ["ignore=-1", "0..3", "9 in row 0"],
        ),
        (
            layers.SoftmaxCrossEntropy(ignore=0),
            (np.array([[0, 1, -1], [0, 0, 0]]),),
            ["-1 in row 2"],
        ),
        (
            layers.SoftmaxCrossEntropy(),
            (np.zeros((2, 3), int), np.ones(3)),
            ["shape (2,) or (2, 3)", "(3,)"],
        ),
        (
            layers.SoftmaxCrossEntropy(),
            (np.zeros((2, 3), int), -np.ones((2, 3))),
            ["at least 0", "-1.0"],
        ),
        (
            layers.SoftmaxCrossEntropy(ignore=1),
            (np.ones((2, 3, 4)) / 4,),
            ["must be labels", "probabilities"],
        ),
    ],
)
def test_wrong_targets_are_refused(layer, further, words):
    with pytest.raises(ValueError, match="; got ") as caught:
        layer(np.ones((2, 3, 4)), *further)
    assert all(word in str(caught.value) for word in words), caught.value


def test_wrong_option_is_refused():
    with pytest.raises(ValueError, match="ignore must be a label or None; got 'x'"):
        layers.SoftmaxCrossEntropy(ignore="x")


@pytest.mark.parametrize("shards", [1, 2, 3, 9, 12])
def test_weights_and_losses_of_shards_are_added_by_the_fixed_tree(shards):
    rng = np.random.default_rng(shards)
    rows = 20 * shards
    # Of many orders of magnitude, so that another order of additions shows in the bits.
    weights = 10.0 ** rng.integers(-9, 9, rows) * rng.random(rows)
    x, labels = rng.standard_normal((rows, C)), rng.integers(0, C, rows)
    tape = layers.Tape(shards=range(0, rows + 1, 20))
    loss = layers.SoftmaxCrossEntropy()(tape.input(x), labels, weights)
    of_shards = [sum(weights[at : at + 20].tolist()) for at in range(0, rows, 20)]
    assert loss.divisor == tree(of_shards)
    assert loss.item() == tree(loss.shard_sums.tolist()) / loss.divisor
