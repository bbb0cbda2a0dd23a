"""A search for the learning rate is the same to the last bit on any number of ranks."""

import pytest

from .ranks import ODD_AND_EVEN, ONE_HOST, PLAIN, differences

PROGRAM = "rate_search.py"


@pytest.mark.parametrize(
    ("ranks", "environment"),
    [(2, ONE_HOST), (3, ODD_AND_EVEN), (2, PLAIN)],
    ids=["one host", "two", "plain"],
)
def test_losses_and_what_is_trained_on_are_the_same_on_all_ranks(
    ranks, environment, alone, run_ranks
):
    found = run_ranks(ranks, PROGRAM, **environment)
    assert [differences(result, alone) for result in found] == [[]] * ranks
