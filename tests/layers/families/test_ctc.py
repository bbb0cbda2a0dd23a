"""The loss of sequences whose labels have no place in time: PyTorch's, and what does not fit."""

import numpy as np
import pytest

from layers import CTC, Tape

from .oracle import F, torch

N, T, C, L = 6, 40, 9, 12


def data(seed=0, scale=1.0, dtype=np.float32):
    """Return logits, their lengths, padded labels and how many there are."""
    rng = np.random.default_rng(seed)
    counts = np.array([L, 0, 1, 5, 7, L])
    labels = np.where(np.arange(L) < counts[:, np.newaxis], rng.integers(1, C, (N, L)), -1)
    labels[0, :3] = 4
    lengths = rng.integers(2 * L, T + 1, N)
    return (scale * rng.standard_normal((N, T, C))).astype(dtype), lengths, labels, counts


def theirs(x, lengths, labels, counts, **options):
    """Return PyTorch's losses of samples, and the logits."""
    logits = torch.tensor(x.astype(np.float64), requires_grad=True)
    log_p = F.log_softmax(logits, -1).transpose(0, 1)
    of = (torch.tensor(np.maximum(labels, 0)), torch.tensor(lengths), torch.tensor(counts))
    return F.ctc_loss(log_p, *of, reduction="none", **options), logits


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.1, 1, 30], ids="scale {}".format)
def test_loss_and_gradient_are_those_of_pytorch(scale, dtype):
    x, lengths, labels, counts = data(1, scale, dtype)
    value = Tape().input(x)
    loss = CTC()((value, lengths), labels)
    loss.backward()
    losses, logits = theirs(x, lengths, labels, counts)
    losses.mean().backward()
    np.testing.assert_allclose(loss.item(), losses.mean().item(), rtol=1e-6)
    np.testing.assert_allclose(value.grad, logits.grad.numpy(), rtol=0, atol=2e-7)


def test_per_label_is_the_mean_of_pytorch():
    x, lengths, labels, counts = data(2)
    losses, _ = theirs(x, lengths, labels, counts)
    expected = (losses / torch.tensor(np.maximum(counts, 1))).mean()
    found = CTC(per_label=True)((x, lengths), labels)
    np.testing.assert_allclose(found, expected.item(), rtol=1e-6)


def test_weights_are_of_samples_or_of_labels_that_are_there():
    x, lengths, labels, counts = data(3)
    weights = np.array([1, 0.5, 0, 2, 1, 3])
    counts[1] = 1
    labels[1, 0] = 2
    losses, _ = theirs(x, lengths, labels, counts)
    expected = np.average(losses.detach().numpy(), weights=weights)
    np.testing.assert_allclose(CTC()((x, lengths), labels, weights), expected, rtol=1e-6)
    # As of ragged targets, whose padding is no label.
    there = (labels >= 0) * weights[:, np.newaxis]
    padded, kept = np.maximum(labels, 0), weights > 0
    found = CTC(padding=-1)((x[kept], lengths[kept]), padded[kept], there[kept])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_follows_the_last_frame_does_not_matter():
    x, lengths, labels, _ = data(4)
    other = x.copy()
    for row, length in enumerate(lengths):
        other[row, length:] = np.nan
    assert CTC()((x, lengths), labels) == CTC()((other, lengths), labels)
    value = Tape().input(other)
    CTC()((value, lengths), labels).backward()
    assert not value.grad[np.arange(T) >= lengths[:, np.newaxis]].any()


def test_any_cut_over_shards_gives_the_same_bits():
    x, lengths, labels, _ = data(5)
    tape = Tape(shards=(0, 2, 3, N))
    value = tape.input(x)
    whole = CTC()((value, lengths), labels)
    whole.backward()
    for s, (start, stop) in enumerate(((0, 2), (2, 3), (3, N))):
        part = Tape(shards=(0, stop - start), samples=N).input(x[start:stop])
        loss = CTC()((part, lengths[start:stop]), labels[start:stop])
        loss.backward()
        assert loss.shard_sums[0] == whole.shard_sums[s]
        assert part.grad.tobytes() == value.grad[start:stop].tobytes()


def test_a_class_that_cannot_be_is_no_nan():
    x, lengths, labels, counts = data(6, dtype=np.float64)
    labels = np.where(labels == C - 1, 1, labels)
    x[..., C - 1] = -np.inf
    value = Tape().input(x)
    loss = CTC()((value, lengths), labels)
    loss.backward()
    losses, _ = theirs(np.maximum(x, -1e3), lengths, labels, counts)
    np.testing.assert_allclose(loss.item(), losses.mean().item(), rtol=1e-12)
    assert np.isfinite(value.grad).all()
    assert not value.grad[..., C - 1].any()


def test_nan_is_not_lost_and_stays_in_its_sample():
    x, lengths, labels, _ = data(7)
    x[3, 2, 5] = np.nan
    value = Tape(shards=range(N + 1)).input(x)
    loss = CTC()((value, lengths), labels)
    loss.backward()
    assert np.isnan(loss.shard_sums).tolist() == [False] * 3 + [True] + [False] * 2
    assert np.isnan(value.grad[3, : lengths[3]]).all()
    assert np.isfinite(np.delete(value.grad, 3, axis=0)).all()


def test_sequences_that_do_not_fit_are_named_or_count_as_nothing():
    x = np.random.default_rng(0).standard_normal((3, 3, 4)).astype(np.float32)
    labels = np.array([[1, 2, 3], [2, 2, 1], [1, -1, -1]])
    said = r"3 frames for 3 labels of sample 1, which need 4\. .*zero_infinity=True"
    with pytest.raises(ValueError, match=said):
        CTC()(x, labels)
    with pytest.raises(ValueError, match=r"2 frames for 3 labels of sample 0\. "):
        CTC()((x, np.array([2, 3, 3])), labels)
    value = Tape().input(x)
    loss = CTC(zero_infinity=True)(value, labels)
    loss.backward()
    assert not value.grad[1].any()
    counts = (labels >= 0).sum(axis=1)
    losses, logits = theirs(x, np.full(3, 3), labels, counts, zero_infinity=True)
    losses.mean().backward()
    np.testing.assert_allclose(loss.item(), losses.mean().item(), rtol=1e-6)
    np.testing.assert_allclose(value.grad, logits.grad.numpy(), rtol=0, atol=2e-7)


def test_no_sample_and_no_label():
    x = np.zeros((2, 3, 4), np.float32)
    np.testing.assert_allclose(CTC()(x, np.zeros((2, 0), int)), 3 * np.log(4), rtol=1e-6)
    assert CTC()(x[:0], np.zeros((0, 2), int)) == 0


@pytest.mark.parametrize(
    ("labels", "lengths", "words"),
    [
        ([[1, 0]], None, "labels must be in 0..3, and not the blank 0; got 0 in sample 0"),
        ([[1, 4]], None, "got 4 in sample 0"),
        ([[-1, 1]], None, r"nothing but padding, -1, must follow padding; got \[-1, 1\] of sample"),
        ([1, 2], None, r"targets must be integer labels \(1, L\); got \(2,\) of int64"),
        ([[1.0, 2.0]], None, r"integer labels \(1, L\); got \(1, 2\) of float64"),
        ([[1, 2]], [6], r"lengths must be integers \(1,\) in 0..5; got \(1,\) of int64, 6 to 6"),
        ([[1, 2]], [5.0], r"lengths must be integers \(1,\) in 0..5; got \(1,\) of float64"),
    ],
)
def test_wrong_labels_and_lengths_are_refused(labels, lengths, words):
    x = np.zeros((1, 5, 4), np.float32)
    with pytest.raises(ValueError, match=words):
        CTC()(x if lengths is None else (x, np.array(lengths)), np.array(labels))


def test_a_blank_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="more than 4 classes, as that is the blank one; got 4"):
        CTC(blank=4)(np.zeros((1, 5, 4), np.float32), np.array([[1]]))
