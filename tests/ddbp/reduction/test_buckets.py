"""Buckets begin where parameters begin, are owned by all ranks alike, and complete when their
parameters are.
"""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from ddbp import settings
from ddbp.comm.topology import Topology
from ddbp.reduction.buckets import BYTES, SHARE, Buckets, counts_of, room_for_counts
from layers import FlatParameters, Linear, Sequential
from layers.kernels import reduce

SIZES = (60, 300, 1, 500, 40, 200, 3)


@pytest.fixture
def flat():
    """Return the parameters of a network, most of them larger than a block."""
    rng = np.random.default_rng(0)
    return FlatParameters(
        Sequential(*(Linear(inputs, outputs, rng=rng) for inputs, outputs in pairwise(SIZES)))
    )


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("kib", ["1", "4", "20", "60"])
def test_ranges_cover_the_flat_array_at_bounds_of_blocks(kib, ranks, flat, monkeypatch):
    monkeypatch.setenv(settings.BUCKET, kib)
    buckets = Buckets(flat, ranks, several=True)
    assert len(buckets) > 1
    bounds = buckets.ranges.reshape(-1)
    assert bounds[0] == 0
    assert bounds[-1] == flat.values.size
    assert (np.diff(bounds) >= 0).all()
    assert (bounds[:-1] % reduce.BLOCK == 0)[bounds[:-1] < flat.values.size].all()
    assert (buckets.ranges[1:, 0] == buckets.ranges[:-1, -1]).all()
    sizes = np.diff(buckets.ranges[:, [0, -1]])[:, 0]
    assert (sizes[1:] * 4 >= int(kib) * 1024).all(), "only the first may be smaller"


@pytest.mark.parametrize("kib", ["4", "20"])
def test_parameter_lies_in_the_buckets_that_hold_its_elements(kib, flat, monkeypatch):
    monkeypatch.setenv(settings.BUCKET, kib)
    buckets = Buckets(flat, 3, several=True)
    bounds = buckets.ranges[:, [0, -1]].tolist()
    for (name, parameter, numbers), (_, _, start, stop) in zip(
        buckets.segments(), flat.segments(), strict=True
    ):
        assert list(numbers) == [
            k for k, (first, last) in enumerate(bounds) if first < stop and start < last
        ], name
        assert parameter is flat.parameters[flat.names.index(name)]


def test_bucket_waits_for_no_parameter_before_the_one_it_begins_with(flat, monkeypatch):
    monkeypatch.setenv(settings.BUCKET, "4")
    buckets = Buckets(flat, 2, several=True)
    for number, start in enumerate(buckets.ranges[:, 0].tolist()):
        first = next(
            begin
            for (_, _, numbers), begin in zip(buckets.segments(), flat.starts, strict=True)
            if number in numbers
        )
        assert start - reduce.BLOCK < first <= start


@pytest.mark.parametrize("kib", ["0", "1", "4", "20", "60", ""])
def test_room_for_counts_is_enough_and_little_more(kib, flat, monkeypatch):
    monkeypatch.setenv(settings.BUCKET, kib)
    hosts = np.array([0, 2, 3])
    comm = SimpleNamespace(hosts=hosts, topology=Topology(hosts, 0), size=3)
    used = np.zeros(counts_of(len(Buckets(flat, 3, several=True)), comm), np.int64).nbytes
    room = room_for_counts(flat.values.size, 4, comm)
    assert used <= room <= flat.values.nbytes
    if kib == "20":
        assert room <= 4 * used
    comm.hosts = np.array([0, 3])
    assert room_for_counts(flat.values.size, 4, comm) == 0


def test_one_host_and_zero_have_one_bucket(flat, monkeypatch):
    monkeypatch.setenv(settings.BUCKET, "4")
    assert len(Buckets(flat, 2, several=False)) == 1
    monkeypatch.setenv(settings.BUCKET, "0")
    assert len(Buckets(flat, 2, several=True)) == 1


def test_many_ranks_have_larger_buckets(monkeypatch):
    monkeypatch.delenv(settings.BUCKET, raising=False)
    rng = np.random.default_rng(0)
    flat = FlatParameters(Sequential(*(Linear(300, 300, rng=rng) for _ in range(16))))
    few, many = (Buckets(flat, ranks, several=True) for ranks in (2, 32))
    assert len(few) > len(many) > 1
    assert np.diff(few.ranges[1:, [0, -1]]).min() * 4 >= BYTES
    assert np.diff(many.ranges[1:, [0, -1]]).min() >= 32 * SHARE


def test_size_that_is_no_number_is_refused(flat, monkeypatch):
    monkeypatch.setenv(settings.BUCKET, "1 MB")
    with pytest.raises(
        ValueError,
        match=r"ddbp: DDBP_BUCKET must be a number of KiB; got '1 MB'\. Unset it for the default",
    ):
        Buckets(flat, 2, several=True)
