"""The shard contract: which rows and which partial sums a rank has, and sums that do not depend on
it.
"""

import numpy as np
import pytest

from ddbp import settings
from ddbp.reduction.shards import RANKS, ShardPlan, chosen, cut, dyadic
from layers.engine.fixed_tree import tree_sum

SHARDS = range(1, 18)


@pytest.mark.parametrize(("ranks", "shards"), [(1, 8), (3, 8), (8, 8), (9, 16), (16, 16), (17, 32)])
def test_unasked_there_are_eight_shards_or_a_power_of_two_for_more_ranks(ranks, shards):
    assert chosen(None, ranks) == shards
    assert chosen(RANKS, ranks) == ranks
    assert chosen(5, ranks) == 5


def test_shards_are_counted_by_the_ranks_in_the_beginning(monkeypatch):
    monkeypatch.setenv(settings.RANKS, "12")
    assert [chosen(shards, 3) for shards in (None, RANKS, 5)] == [16, 12, 5]
    monkeypatch.setenv("DDBP_SHARDS", "7")
    assert [chosen(shards, 3) for shards in (None, RANKS, 5)] == [7, 7, 5]


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("total", [0, 1, 5, 8, 50, 173])
def test_cut_parts_are_neighbours_and_differ_by_one_at_most(total, parts):
    bounds = cut(total, parts)
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, total)
    assert sizes.max() - sizes.min() <= 1
    assert sizes.min() >= 0


@pytest.mark.parametrize("shards", SHARDS)
def test_dyadic_pieces_cover_their_shards_once_in_order(shards):
    for first in range(shards):
        for last in range(first, shards + 1):
            covered = [
                shard for begin, size in dyadic(first, last) for shard in range(begin, begin + size)
            ]
            assert covered == list(range(first, last))


@pytest.mark.parametrize("shards", SHARDS)
def test_dyadic_pieces_are_aligned_powers_of_two(shards):
    for first in range(shards):
        for begin, size in dyadic(first, shards):
            assert size & (size - 1) == 0
            assert begin % size == 0


def test_dyadic_pieces_are_as_large_as_they_can_be():
    assert dyadic(3, 13) == [(3, 1), (4, 4), (8, 4), (12, 1)]
    assert dyadic(0, 8) == [(0, 8)]


@pytest.mark.parametrize("ranks", range(1, 8))
def test_ranks_own_all_shards_once_and_each_at_least_one(ranks):
    plans = [ShardPlan(7, ranks, rank) for rank in range(ranks)]
    owned = [shard for plan in plans for shard in range(*plan.owned(plan.rank))]
    assert owned == list(range(7))
    assert all(plan.local >= 1 for plan in plans)


@pytest.mark.parametrize("samples", [3, 8, 50, 173])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_content_of_a_shard_does_not_depend_on_the_ranks(samples, ranks):
    found = [0]
    for rank in range(ranks):
        start, stop, bounds = ShardPlan(8, ranks, rank).rows(samples)
        assert (start, stop) == (found[-1], start + bounds[-1])
        found += (start + bounds[1:]).tolist()
    assert found == cut(samples, 8).tolist()


@pytest.mark.parametrize("shards", SHARDS)
def test_sum_does_not_depend_on_what_was_summed_before(shards):
    # Terms of very different size: any other order rounds otherwise.
    rng = np.random.default_rng(shards)
    parts = rng.standard_normal((shards, 40)) * 10.0 ** rng.integers(-8, 8, (shards, 40))
    expected = tree_sum(parts)
    for ranks in range(1, shards + 1):
        pieces = [
            piece
            for rank in range(ranks)
            for piece in dyadic(*ShardPlan(shards, ranks, rank).owned(rank))
        ]
        partial = np.array([tree_sum(parts[begin : begin + size]) for begin, size in pieces])
        total = tree_sum(partial, np.array([size for _, size in pieces]))
        assert total.tobytes() == expected.tobytes()


def test_another_order_would_give_other_bits():
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((8, 40)) * 10.0 ** rng.integers(-8, 8, (8, 40))
    one_after_the_other = np.add.accumulate(parts)[-1]
    assert one_after_the_other.tobytes() != tree_sum(parts).tobytes()
