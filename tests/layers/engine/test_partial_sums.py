"""Partial sums: gradients of neighbouring shards, added up by the fixed tree, in memory that is
used again.
"""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest

import layers
from layers import FlatParameters, Linear, Sequential, Tape
from layers.engine.gradients import Gradients
from layers.engine.partial_sums import ShardMemory

from ..fixed_tree import tree

GROUPS = [[2], [8], [1, 2], [2, 2, 1], [1, 4, 1], [4, 4, 2, 1]]


def model():
    rng = np.random.default_rng(11)
    return Sequential(Linear(5, 70, rng=rng), layers.Tanh(), Linear(70, 30, rng=rng))


def backward(net, shards, passes=1, dy=1.0):
    """Propagate a batch, of rows whose gradients cancel in part, so that other orders of summation
    give other bits.
    """
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3 * shards, 5)).astype(np.float32)
    for _ in range(passes):
        y = net(Tape(shards=range(0, 3 * shards + 1, 3)).input(x))
        y.backward(
            (dy * rng.standard_normal(y.shape) * 10.0 ** rng.integers(-3, 4, y.shape)).astype(
                np.float32
            )
        )


def kept_apart(shards, passes=1):
    """Return the gradients of all shards (S, n)."""
    net = model()
    flat = FlatParameters(net, shards)
    backward(net, shards, passes)
    return flat.gradients


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("sizes", GROUPS, ids=str)
def test_groups_are_summed_by_the_tree(sizes, passes):
    net, shards = model(), sum(sizes)
    flat = FlatParameters(net, sizes)
    backward(net, shards, passes)
    assert flat.complete() == []
    apart = kept_apart(shards, passes)
    ends = np.cumsum([0, *sizes])
    expected = [tree(list(apart[a:b])) for a, b in pairwise(ends)]
    assert flat.gradients.tobytes() == np.array(expected).tobytes()


@pytest.mark.parametrize("sizes", [[2], [2, 1], [4, 4, 2, 1]], ids=str)
def test_gradient_is_that_of_all_shards_before_and_after_they_are_added_up(sizes):
    net, shards = model(), sum(sizes)
    flat = FlatParameters(net, sizes)
    assert not any(parameter.gradient.any() for parameter in net.parameters())
    backward(net, shards)
    before = [parameter.gradient.copy() for parameter in net.parameters()]
    assert all(len(parameter.gradients) == shards for parameter in net.parameters())
    flat.complete()
    assert all(parameter.gradients is None for parameter in net.parameters())
    expected = tree(list(kept_apart(shards)))
    for first, parameter, (_, _, start, stop) in zip(
        before, net.parameters(), flat.segments(), strict=True
    ):
        assert parameter.gradient.tobytes() == first.tobytes() == expected[start:stop].tobytes()


def test_nothing_is_added_to_what_has_been_added_up():
    net = model()
    flat = FlatParameters(net, [4])
    backward(net, 4)
    flat.complete()
    once = flat.gradients.copy()
    assert flat.complete() == []
    assert (flat.gradients == once).all()
    with pytest.raises(
        ValueError,
        match=r"must not be added to; got another backward pass\. Zero the gradients first\.",
    ):
        backward(net, 4)
    flat.zero_gradients()
    backward(net, 4)
    flat.complete()
    assert flat.gradients.tobytes() == once.tobytes()


def test_parameters_without_contributions_are_zero():
    net = model()
    flat = FlatParameters(net, [2, 1])
    flat.gradients[...] = np.nan
    net[2](Tape(shards=(0, 1, 2, 3)).input(np.ones((3, 70), np.float32))).backward(
        np.ones((3, 30), np.float32)
    )
    # A contribution that was called off leaves nothing.
    net[0](Tape(shards=(0, 1, 2, 3)).input(np.ones((3, 5), np.float32))).backward(
        np.ones((3, 70), np.float32)
    )
    net[0].weight.zero_gradient()
    net[0].bias.zero_gradient()
    assert flat.complete() == ["layers.0.weight", "layers.0.bias"]
    assert not net[0].weight.gradient.any()
    assert not flat.gradients[:, : flat.starts[2]][:, np.r_[0:350]].any()
    assert (net[2].bias.gradient == 3).all()


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_gradients_of_other_shards_are_not_added_up(shards):
    net = model()
    flat = FlatParameters(net, [2, 1])
    backward(net, shards)
    with pytest.raises(ValueError, match=rf"must hold {shards} shard gradients; got 3\."):
        flat.complete()


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=["deepcopy", "pickle"],
)
def test_copies_have_values_and_no_gradients(copied):
    net = model()
    FlatParameters(net, [4])
    backward(net, 4)
    other = copied(net)
    for parameter, original in zip(other.parameters(), net.parameters(), strict=True):
        assert (parameter.value == original.value).all()
        assert type(parameter.store) is Gradients
        assert (parameter.gradients, parameter.store.stale) == (None, True)
        assert parameter.regularized == original.regularized
    backward(other, 1)
    assert len(other[0].weight.gradients) == 1


def test_gradient_check_leaves_partial_sums_as_they_are():
    net = model()
    FlatParameters(net, [4])
    backward(net, 4)
    before = [
        (parameter.store, parameter.gradients.copy(), parameter.store.stale)
        for parameter in net.parameters()
    ]
    layers.gradcheck(
        lambda x: net(x), np.random.default_rng(0).standard_normal((4, 5))
    ).raise_if_wrong()
    for parameter, (store, gradients, stale) in zip(net.parameters(), before, strict=True):
        assert parameter.store is store
        assert store.stale is stale
        assert parameter.gradients.tobytes() == gradients.tobytes()


# ---- Memory


def test_memory_is_used_again_by_what_has_room_in_it():
    memory = ShardMemory(np.float32)
    large, small = memory.take((4, 100)), memory.take((4, 10))
    places = large.ctypes.data, small.ctypes.data
    memory.give_back(large)
    memory.give_back(small)
    again = memory.take((2, 15))
    assert again.shape == (2, 15)
    assert again.ctypes.data == places[1]
    assert memory.take((3, 100)).ctypes.data == places[0]


def test_memory_without_room_is_given_up():
    memory = ShardMemory(np.float64)
    for size in range(1, 50):
        memory.give_back(memory.take((size,)))
    largest = memory.take((49,))
    address = largest.ctypes.data
    memory.give_back(largest)
    assert [memory.take((1,)).ctypes.data == address for _ in range(2)] == [True, False]


def test_memory_that_is_taken_is_nobody_elses():
    memory = ShardMemory(np.float32)
    arrays = [memory.take((3, size)) for size in (40, 5, 7, 40)]
    for number, array in enumerate(arrays):
        array[...] = number
    assert [np.unique(array).tolist() for array in arrays] == [[0], [1], [2], [3]]
