"""Ranks that sleep at random places train to the bits of one process; and each comparison is shown
to see what is wrong.
"""

import numpy as np
import pytest

from .ranks import (
    BUCKETS,
    ODD_AND_EVEN,
    ONE_HOST,
    PLAIN,
    arrays,
    differences,
    in_full,
)

PROGRAM = "stress.py"
LAYOUTS = {
    "one host": (ONE_HOST, [3]),
    "two hosts": (ODD_AND_EVEN, [2, 1]),
    "plain": (PLAIN, [1, 1, 1]),
}
LAYOUTS |= {
    f"{name}, buckets": (environment | BUCKETS, hosts)
    for name, (environment, hosts) in LAYOUTS.items()
}
STEPS, FEW = 200, 20


@pytest.fixture(scope="module")
def alone(run_alone):
    """Return the results without MPI, and without delays, after so many steps."""
    return {steps: run_alone(PROGRAM, "--steps", steps) for steps in (STEPS, FEW)}


@pytest.fixture
def train(pooled, mpirun, tmp_path):
    """Return the function that trains on three ranks; on new ones where meetings are broken, which
    may leave a rank waiting or a message on its way.
    """

    def run(layout, *arguments, broken=False, may_fail=False):
        environment, hosts = LAYOUTS[layout]
        start = mpirun if broken else pooled
        finished = start(3, PROGRAM, tmp_path, *arguments, timeout=180, **environment)
        if may_fail and finished.status:
            return None
        assert finished.status == 0, finished.err
        results = arrays(tmp_path, 3)
        assert results[0]["hosts"].tolist() == hosts
        return results

    return run


def different(results, expected):
    """Return the ranks whose parameters or losses are not the expected ones to the last bit."""
    return [rank for rank, result in enumerate(results) if differences(result, expected)]


@pytest.mark.parametrize(
    ("layout", "seed"),
    [("one host", 2), ("plain", 4), *in_full(("two hosts", 3))],
)
def test_delays_change_no_bit(layout, seed, train, alone):
    assert different(train(layout, "--delays", seed), alone[STEPS]) == []


@pytest.mark.parametrize(
    ("layout", "seed"),
    [("two hosts, buckets", 5), *in_full(("plain, buckets", 7))],
)
def test_delays_change_no_bit_of_what_is_sent_during_backward(layout, seed, train, alone):
    results = train(layout, "--delays", seed)
    assert different(results, alone[STEPS]) == []
    for result in results:
        # Of three buckets the first is complete at the end only, and others may be, if a rank of
        # the host was late.
        numbers, counts = np.unique(result["early"], return_counts=True)
        assert set(numbers) == {0, 1, 2}
        assert counts[1:].min() > STEPS / 4


@pytest.mark.parametrize(
    ("deed", "layout"),
    [
        ("call incomplete complete", "two hosts"),
        ("send without looking", "two hosts"),
        *in_full(("call incomplete complete", "plain")),
    ],
)
def test_bucket_that_is_sent_too_early_is_seen(deed, layout, train, alone):
    results = train(
        f"{layout}, buckets", "--steps", FEW, "--delays", 1, "--deed", deed, broken=True
    )
    assert different(results, alone[FEW]) != []


@pytest.mark.parametrize("deed", ["come too early", *in_full("come without waiting")])
def test_broken_meeting_is_seen(deed, train, alone):
    results = train("one host", "--delays", 1, "--deed", deed, broken=True, may_fail=True)
    # Ranks that do not wait may also be found at different tasks.
    assert results is None or different(results, alone[STEPS]) != []


@pytest.mark.parametrize("layout", ["one host", "two hosts"])
def test_one_changed_bit_of_one_gradient_changes_all_ranks_alike(layout, train, alone):
    results = train(layout, "--steps", FEW, "--deed", "change a gradient")
    assert different(results, alone[FEW]) == [0, 1, 2]
    assert different(results, results[0]) == []


@pytest.mark.parametrize("layout", ["one host", "two hosts"])
def test_one_changed_bit_of_a_parameter_is_carried_on_by_the_next_steps(layout, train, alone):
    assert different(train(layout, "--steps", FEW, "--deed", "change a parameter"), alone[FEW]) == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(("layout", "seeing"), [("one host", [0, 1, 2]), ("two hosts", [2])])
def test_parameters_are_one_memory_on_a_host_and_another_on_the_next(layout, seeing, train, alone):
    # Rank 2 changes a bit after the last step; of the two hosts it is alone on the second.
    assert (
        different(
            train(layout, "--steps", FEW, "--deed", "change a parameter at the end"), alone[FEW]
        )
        == seeing
    )


def test_losses_fall(alone):
    assert alone[STEPS]["losses"][-1] < 0.5 * alone[STEPS]["losses"][0]
