"""The timeline of several ranks: one file, one clock, and waits where a rank is slow."""

import json

import pytest

from .programs.traced import SLOW, STEPS

RANKS = 3


@pytest.fixture(scope="module")
def events(pooled, tmp_path_factory):
    """Return the intervals of each rank, in milliseconds."""
    folder = tmp_path_factory.mktemp("trace")
    finished = pooled(RANKS, "traced.py", folder)
    assert finished.status == 0, finished.err
    found = json.loads((folder / "trace.json").read_text())
    assert found["otherData"]["clock_offsets_ns"] == [0] * RANKS
    ranks = [[] for _ in range(RANKS)]
    for event in found["traceEvents"]:
        if event["ph"] == "X":
            ranks[event["pid"]].append(event)
    return ranks


def of(events, name):
    return [event for event in events if event["name"] == name]


def test_all_ranks_are_in_one_file_with_all_of_their_steps(events):
    for rank in events:
        steps = [event["name"] for event in rank if event["cat"] == "step"]
        assert steps == [f"step {number}" for number in range(2, 2 + STEPS)]
        assert len(of(rank, "reduction")) == STEPS
        assert len([event for event in rank if event["cat"] == "backward"]) == 3 * STEPS


def test_no_rank_ends_a_reduction_before_all_have_begun_it(events):
    # That holds on one clock only.
    for step in range(STEPS):
        intervals = [of(rank, "reduction")[step] for rank in events]
        last = max(event["ts"] for event in intervals)
        assert all(event["ts"] + event["dur"] >= last for event in intervals)


def test_the_others_wait_for_the_slow_rank(events):
    waited = [
        sum(event["dur"] for event in of(rank, "wait: the gradient exchange")) / 1e6
        for rank in events
    ]
    assert min(waited[0], waited[2]) > 0.5 * STEPS * SLOW
    assert waited[1] < min(waited[0], waited[2])
