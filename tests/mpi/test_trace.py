"""The timeline of several ranks: one file, one clock, and waits where a rank is slow."""

import json

import numpy as np
import pytest

from .programs.traced import SLOW, STEPS
from .ranks import ODD_AND_EVEN

RANKS = 3
AHEAD = 5.0
MILLISECONDS = 5
"""A busy machine has ranks wait for a core in each meeting; a quiet one needs a twentieth."""


def traced(pooled, folder, program="traced.py", **environment):
    """Return the intervals of each rank, in microseconds, and facts of the clocks."""
    finished = pooled(RANKS, program, folder, **environment)
    assert finished.status == 0, finished.err
    found = json.loads((folder / "trace.json").read_text())
    ranks = [[] for _ in range(RANKS)]
    for event in found["traceEvents"]:
        if event["ph"] == "X":
            ranks[event["pid"]].append(event)
    return ranks, found["otherData"]


@pytest.fixture(scope="module")
def events(pooled, tmp_path_factory):
    ranks, facts = traced(pooled, tmp_path_factory.mktemp("trace"))
    assert facts["clock_offsets_ns"] == [0] * RANKS
    return ranks


def of(events, name):
    return [event for event in events if event["name"] == name]


def test_all_ranks_are_in_one_file_with_all_of_their_steps(events):
    for rank in events:
        steps = [event["name"] for event in rank if event["cat"] == "step"]
        assert steps == [f"step {number}" for number in range(2, 2 + STEPS)]
        assert len(of(rank, "reduction")) == STEPS
        assert len([event for event in rank if event["cat"] == "backward"]) == 3 * STEPS


def assert_meet(events, error=0.0):
    """See to it that no rank ends a reduction before all have begun it, but for an error of clocks
    in microseconds: that holds on one clock only.
    """
    for step in range(STEPS):
        intervals = [of(rank, "reduction")[step] for rank in events]
        last = max(event["ts"] for event in intervals)
        assert all(event["ts"] + event["dur"] >= last - error for event in intervals)


def test_no_rank_ends_a_reduction_before_all_have_begun_it(events):
    assert_meet(events)


def test_clocks_of_hosts_that_are_seconds_apart_are_aligned_to_what_the_file_says(pooled, tmp_path):
    # MPI numbers ranks, ddbp hosts: rank 2 is the one that is alone.
    events, facts = traced(pooled, tmp_path, "apart_in_time.py", **ODD_AND_EVEN)
    error = facts["clock_error_ns"]
    off = np.array(facts["clock_offsets_ns"]) - [0, 0, int(1e9 * AHEAD)]
    assert off[:2].tolist() == [0, 0]
    assert abs(off[2]) <= error < 1e6 * MILLISECONDS
    assert_meet(events, 2 * error / 1e3)


def waits(rank):
    """Return the seconds of each step that a rank has waited in its reduction."""
    found = of(rank, "wait: the gradient exchange")
    return [
        sum(e["dur"] for e in found if 0 <= e["ts"] - step["ts"] <= step["dur"]) / 1e6
        for step in of(rank, "reduction")
    ]


def test_the_others_wait_for_the_slow_rank(events):
    # In most steps: in some, another one may be without a core for longer.
    first, slow, last = (np.median(waits(rank)) for rank in events)
    assert min(first, last) > 0.5 * SLOW
    assert slow < min(first, last)
