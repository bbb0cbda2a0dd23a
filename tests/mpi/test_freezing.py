"""Parameters that are frozen and thaw during training, and trainers that play against each other:
the same bits for any number of ranks.
"""

import pytest

from .ranks import BUCKETS, HALVES, PLAIN, WHOLE, differences

PROGRAM = "freezing.py"


@pytest.mark.parametrize(
    ("ranks", "environment"),
    [(2, {}), (3, PLAIN | BUCKETS), (6, HALVES), (4, HALVES | WHOLE)],
    ids=["two", "three hosts", "six on two hosts", "whole hosts"],
)
def test_thawing_and_adversaries_have_the_bits_of_one_rank(ranks, environment, alone, run_ranks):
    assert len(alone) == 26
    results = run_ranks(ranks, PROGRAM, **environment)
    assert [differences(result, alone) for result in results] == [[]] * ranks


def test_rank_that_freezes_what_others_do_not_is_found_out(alone, pooled, tmp_path):
    finished = pooled(2, PROGRAM, tmp_path, "--apart")
    assert finished.status != 0
    assert "all ranks must have the same trainable parameters" in finished.err, finished.err
