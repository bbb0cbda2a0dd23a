"""A run that was stopped in the midst of an epoch goes on elsewhere, on any number of ranks, to the
bits of the run that was not.
"""

import pytest

from .ranks import BUCKETS, HALVES, ONE_HOST, PLAIN, WHOLE, differences, in_full

PROGRAM = "resume.py"
ENVIRONMENTS = {1: ONE_HOST, 2: ONE_HOST, 3: PLAIN | BUCKETS, 4: HALVES | WHOLE}


@pytest.fixture(scope="module")
def stopped(run_alone, run_ranks, tmp_path_factory):
    """Return, by the number of ranks, the folder of the states of runs that were stopped there, and
    what each rank says of them.
    """

    def stop(ranks):
        states = tmp_path_factory.mktemp("states")
        found = run_ranks(ranks, PROGRAM, "--stop", states, **ENVIRONMENTS[ranks])
        return states, found

    return {ranks: stop(ranks) for ranks in ENVIRONMENTS}


def test_states_are_the_same_on_all_ranks_and_for_any_number_of_them(stopped):
    (_, (expected,)), *others = stopped.values()
    for _, results in others:
        assert [differences(result, expected) for result in results] == [[]] * len(results)


# Each layout stops once and goes on once.
PAIRS = [(1, 2), (2, 3), (3, 4), (4, 1)]


@pytest.mark.parametrize(("before", "after"), [*PAIRS, *in_full((2, 1), (3, 1), (4, 2))])
def test_run_goes_on_to_the_bits_of_the_undisturbed_one(before, after, alone, stopped, run_ranks):
    states, _ = stopped[before]
    results = run_ranks(after, PROGRAM, "--load", states, **ENVIRONMENTS[after])
    assert len(alone) >= 36
    assert [differences(result, alone) for result in results] == [[]] * after


@pytest.fixture(scope="module")
def forked(run_alone):
    """Return what a process alone says of runs that try other options on the way."""
    return run_alone(PROGRAM, "--forks")


def test_a_run_with_forks_has_the_bits_of_the_one_without(alone, forked):
    forks = {name: losses for name, losses in forked.items() if name.endswith(": forks")}
    assert sum(losses.size > 0 for losses in forks.values()) >= 20
    assert differences(forked, alone | forks) == []


# Of two hosts with shared memory: what ranks do within a host, and between hosts.
@pytest.mark.parametrize("ranks", [4, *in_full(2, 3)])
def test_forks_have_the_same_losses_on_any_number_of_ranks(ranks, forked, run_ranks):
    results = run_ranks(ranks, PROGRAM, "--forks", **ENVIRONMENTS[ranks])
    assert [differences(result, forked) for result in results] == [[]] * ranks
