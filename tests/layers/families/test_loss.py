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


# ---- weights of samples and positions, in every loss

SIGNS = np.random.default_rng(4).choice((-1, 1), (N, T))
PROBABILITIES = np.random.default_rng(5).dirichlet((1, 1, 1), (N, T))
# Of each loss: itself, the shape of a position's prediction, and the targets (N, T, …).
WEIGHTED = [
    (layers.SoftmaxCrossEntropy(0.1), (3,), np.maximum(data()[1], 0) % 3),
    (layers.SoftmaxCrossEntropy(class_weights=(1, 1, 1)), (3,), np.maximum(data()[1], 0) % 3),
    (layers.SoftmaxCrossEntropy(), (3,), PROBABILITIES),
    (layers.KLDivergence(), (3,), PROBABILITIES),
    (layers.MultiClassHinge(), (3,), np.maximum(data()[1], 0) % 3),
    (layers.CosineDistance(), (3,), PROBABILITIES),
    (layers.MeanSquaredError(), (3,), PROBABILITIES),
    (layers.MeanAbsoluteError(), (3,), PROBABILITIES),
    (layers.Huber(0.5), (3,), PROBABILITIES),
    (layers.SmoothL1(0.5), (3,), PROBABILITIES),
    (layers.BinaryCrossEntropy(), (3,), PROBABILITIES),
    (layers.BinaryCrossEntropy((1, 2, 3)), (3,), PROBABILITIES),
    (layers.Hinge(), (), SIGNS),
    (layers.PoissonNLL(), (), SIGNS + 1),
]


@pytest.mark.parametrize("axes", [1, 2], ids=["samples", "positions"])
@pytest.mark.parametrize(("loss", "rest", "targets"), WEIGHTED, ids=lambda each: str(each)[:40])
def test_weights_make_a_mean_over_what_counts(loss, rest, targets, axes):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((N, T, *rest))
    weights = rng.random((N, T)[:axes]) * rng.integers(0, 2, (N, T)[:axes])
    value = layers.Tape(shards=(0, 2, N)).input(x)
    whole = loss(value, targets, weights)
    whole.backward()
    each = np.zeros((N, T))
    gradients = np.zeros_like(x)
    for i in np.ndindex(N, T):
        one = layers.Tape().input(x[i][np.newaxis])
        part = loss(one, targets[i][np.newaxis])
        part.backward()
        each[i], gradients[i] = part.item(), one.grad[0]
    of_positions = np.broadcast_to(weights.reshape(N, -1), (N, T))
    share = of_positions / of_positions.sum()
    np.testing.assert_allclose(whole.item(), (share * each).sum(), rtol=1e-12)
    expected = share.reshape(N, T, *[1] * len(rest)) * gradients
    np.testing.assert_allclose(value.grad, expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize(("loss", "rest", "targets"), WEIGHTED, ids=lambda each: str(each)[:40])
def test_what_weighs_nothing_may_hold_anything(loss, rest, targets):
    x = np.random.default_rng(7).standard_normal((N, T, *rest))
    weights = np.ones(N)
    weights[2] = 0
    expected = loss(np.delete(x, 2, axis=0), np.delete(targets, 2, axis=0), np.delete(weights, 2))
    x[2] = np.nan
    value = layers.Tape().input(x)
    found = loss(value, targets, weights)
    found.backward()
    np.testing.assert_allclose(found.item(), expected, rtol=1e-12)
    assert np.isfinite(value.grad).all()


@pytest.mark.parametrize("weights", [np.ones((N, T, 4)), np.ones(3), "x", np.full(N, np.inf)])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be"):
        layers.Huber()(np.ones((N, T, 3)), np.ones((N, T, 3)), weights)


def test_a_prediction_of_several_parts_may_be_a_tuple():
    a, b = np.random.default_rng(8).uniform(0.5, 2, (2, 4, 3))
    for loss, target in ((layers.GaussianNLL(), a + 1), (layers.CosineEmbedding(), np.ones(4))):
        assert loss((a, b), target) == loss(a, b, target)


# ---- accepted because it happened to fit


def one_column():
    return np.zeros((4, 1), np.float32)


REFUSED = {
    "labels as probabilities": (
        layers.SoftmaxCrossEntropy(),
        (one_column(), np.array([[0], [1], [2], [1]])),
        ["two classes or more; got (4, 1)", "BinaryCrossEntropy()"],
    ),
    "one-hot integers": (
        layers.SoftmaxCrossEntropy(),
        (np.zeros((2, 3)), np.eye(3, dtype=int)[:2]),
        ["probabilities, of a floating type; got int64", "y.astype(np.float32)"],
    ),
    "negative probabilities": (
        layers.SoftmaxCrossEntropy(),
        (np.zeros((1, 2)), np.array([[-1.0, 2.0]])),
        ["at least 0 and sum to 1; got -1 at least and a sum of 1 in row 0"],
    ),
    "counts as probabilities": (
        layers.SoftmaxCrossEntropy(0.1),
        (np.zeros((2, 2)), np.array([[0.5, 0.5], [5.0, 5.0]])),
        ["a sum of 10 in row 1", "Divide each row by its sum"],
    ),
    "no distribution for a divergence": (
        layers.KLDivergence(),
        (np.zeros((1, 2)), np.array([[0.2, 0.2]])),
        ["KLDivergence(): target probabilities must", "a sum of 0.4"],
    ),
    "labels for a divergence": (
        layers.KLDivergence(),
        (np.zeros((2, 3)), np.array([0, 1])),
        ["SoftmaxCrossEntropy() takes labels"],
    ),
    "a column of labels for a hinge": (
        layers.MultiClassHinge(),
        (np.zeros((4, 3)), np.zeros((4, 1), int)),
        ["labels (4,)", "y[:, 0]"],
    ),
    "a label that is no class for a hinge": (
        layers.MultiClassHinge(),
        (np.zeros((2, 3)), np.array([0, 3])),
        ["0..2 for 3 logits; got 3 in row 1"],
    ),
    "labels of signs": (
        layers.BinaryCrossEntropy(),
        (one_column(), np.array([[-1], [1], [1], [1]])),
        ["targets must be in [0, 1]; got -1.0"],
    ),
    "signs of labels": (
        layers.Hinge(),
        (one_column(), np.array([[0], [1], [1], [1]])),
        ["targets must be -1 or 1; got 0.0", "2 * y - 1"],
    ),
    "NaN targets": (
        layers.BinaryCrossEntropy(2.0),
        (one_column(), np.full((4, 1), np.nan)),
        ["targets must be in [0, 1]; got nan"],
    ),
    "negative counts": (
        layers.PoissonNLL(),
        (one_column(), np.full((4, 1), -2)),
        ["must not be negative; got -2.0"],
    ),
    "negative variances": (
        layers.GaussianNLL(),
        (one_column(), one_column() - 1, one_column()),
        ["variances must not be negative; got -1"],
    ),
    "pairs that are labelled otherwise": (
        layers.CosineEmbedding(),
        (np.ones((2, 3)), np.ones((2, 3)), np.array([0, 1])),
        ["labels must be 1 or -1; got 0"],
    ),
    "weights of other classes": (
        layers.SoftmaxCrossEntropy(class_weights=(1, 2)),
        (np.zeros((2, 3)), np.array([0, 1])),
        ["logits must be of 2 classes, as class_weights are; got 3"],
    ),
    "weights of other features": (
        layers.BinaryCrossEntropy((1, 2)),
        (np.zeros((2, 3)), np.zeros((2, 3))),
        ["must have 2 features, as pos_weight has; got (2, 3)"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "arrays"])
def test_what_only_happens_to_fit_is_refused(name, recorded):
    loss, (prediction, *others), words = REFUSED[name]
    if recorded:
        prediction = layers.Tape().input(prediction)
    with pytest.raises((ValueError, TypeError)) as caught:
        loss(prediction, *others)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.Huber(0), "delta must be positive and finite; got 0"),
        (lambda: layers.SmoothL1(-1), "beta must be positive"),
        (lambda: layers.MultiClassHinge(np.inf), "margin must be positive and finite"),
        (lambda: layers.GaussianNLL(0), "least must be positive"),
        (lambda: layers.CosineEmbedding(2), r"margin must be in \[-1, 1\]; got 2"),
        (lambda: layers.BinaryCrossEntropy(-1), "pos_weight must be .* at least 0; got -1"),
        (lambda: layers.BinaryCrossEntropy([[1]]), "pos_weight must be"),
        (lambda: layers.SoftmaxCrossEntropy(class_weights=3), "class_weights must be"),
        (lambda: layers.SoftmaxCrossEntropy(class_weights=(1, np.nan)), "class_weights must be"),
    ],
)
def test_wrong_options_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_infinite_logits_that_agree_cost_nothing_where_positives_are_weighted():
    x, t = np.array([np.inf, -np.inf]), np.array([1, 0])
    assert layers.BinaryCrossEntropy(3.0)(x, t) == layers.BinaryCrossEntropy()(x, t) == 0
