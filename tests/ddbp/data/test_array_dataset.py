"""Data sets, their order and their batches."""

import numpy as np
import pytest

from ddbp import ArrayDataset
from ddbp.data.order import batches, permutation


@pytest.mark.parametrize("samples", [1, 2, 10, 173])
def test_permutation_holds_every_sample_once(samples):
    assert sorted(permutation(samples, seed=3, epoch=2).tolist()) == list(range(samples))


def test_permutation_is_a_function_of_seed_and_epoch():
    first = permutation(100, seed=3, epoch=2)
    np.random.default_rng(0).permutation(100)
    assert permutation(100, seed=3, epoch=2).tolist() == first.tolist()


def test_every_seed_and_epoch_has_its_own_permutation():
    orders = {
        tuple(permutation(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


def test_seed_and_epoch_are_not_interchangeable():
    assert permutation(50, seed=1, epoch=2).tolist() != permutation(50, seed=2, epoch=1).tolist()


@pytest.mark.parametrize(("samples", "batch_size"), [(10, 10), (10, 3), (173, 50), (5, 1), (3, 7)])
def test_batches_hold_every_sample_once_in_order(samples, batch_size):
    order = permutation(samples, 0, 0)
    assert np.concatenate(list(batches(samples, batch_size, order))).tolist() == order.tolist()


@pytest.mark.parametrize(("samples", "batch_size"), [(10, 10), (10, 3), (173, 50), (5, 1)])
def test_only_the_last_batch_is_smaller(samples, batch_size):
    *whole, last = [len(batch) for batch in batches(samples, batch_size)]
    assert all(size == batch_size for size in whole)
    assert last == samples - batch_size * len(whole)
    assert 1 <= last <= batch_size


def test_batches_without_an_order_are_consecutive():
    assert [list(batch) for batch in batches(5, 2)] == [[0, 1], [2, 3], [4]]


def test_lists_become_arrays():
    data = ArrayDataset([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    assert data.x.shape == (2, 2)
    assert len(data) == 2


def test_floating_data_change_type_and_integers_do_not():
    data = ArrayDataset(np.zeros((3, 2)), np.arange(3)).astype(np.float32)
    assert data.x.dtype == np.float32
    assert data.y.dtype == np.int64


def test_data_that_have_the_type_are_not_copied():
    data = ArrayDataset(np.zeros((3, 2), np.float32), np.arange(3))
    assert data.astype(np.float32) is data


def test_split_parts_hold_every_sample_once():
    data = ArrayDataset(np.arange(20.0)[:, np.newaxis], np.arange(20))
    first, second = data.split(0.25, seed=1)
    assert (len(first), len(second)) == (15, 5)
    assert sorted([*first.y.tolist(), *second.y.tolist()]) == list(range(20))


def test_split_keeps_samples_and_targets_together():
    data = ArrayDataset(np.arange(20.0)[:, np.newaxis], np.arange(20))
    for part in data.split(0.5):
        assert part.x[:, 0].tolist() == part.y.tolist()


def test_split_is_a_function_of_the_seed():
    data = ArrayDataset(np.arange(20.0)[:, np.newaxis], np.arange(20))
    assert data.split(0.5, seed=1)[0].y.tolist() == data.split(0.5, seed=1)[0].y.tolist()
    assert data.split(0.5, seed=1)[0].y.tolist() != data.split(0.5, seed=2)[0].y.tolist()


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_split_leaves_a_sample_in_each_part(fraction):
    data = ArrayDataset(np.zeros((4, 1)), np.zeros(4))
    assert all(len(part) >= 1 for part in data.split(fraction))
