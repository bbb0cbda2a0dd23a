"""Parameters that the script changes itself, between two steps."""

import pytest

from .ranks import ODD_AND_EVEN, ONE_HOST, PLAIN, differences

PROGRAM = "modify_parameters.py"


@pytest.mark.parametrize(
    ("ranks", "environment"),
    [(2, ONE_HOST), (3, ODD_AND_EVEN), (2, PLAIN)],
    ids=["one host", "two", "plain"],
)
def test_all_ranks_train_on_with_what_one_has_changed(ranks, environment, alone, run_ranks):
    assert [differences(result, alone) for result in run_ranks(ranks, PROGRAM, **environment)] == [
        []
    ] * ranks


def test_change_behind_the_back_of_others_is_seen(alone, run_ranks):
    found = [differences(result, alone) for result in run_ranks(3, PROGRAM, "--alone")]
    assert found == [["losses", "parameters"]] * 3


def test_change_behind_the_back_of_others_is_refused_if_memory_is_checked(mpirun, tmp_path):
    error = mpirun(3, PROGRAM, tmp_path, "--alone", DDBP_CHECK_MEMORY="1").err
    assert "got other bits in the value of" in error
    assert "must change parameters within ddbp.modify_parameters" in error
