"""What differs between ranks, and who has it otherwise, in words; which of them share cores."""

import math

import pytest

from ddbp.comm.agreement import named_ranks
from ddbp.doctor.ranks import OfRanks, difference
from ddbp.doctor.rules.time import _crowd

HOSTS = ["a", "a", "b", "b"]


def test_the_minority_is_named_with_its_host():
    told = [{"x": "1", "y": "1"}, {"x": "1", "y": "1"}, {"x": "1", "y": "2"}, {"x": "1", "y": "1"}]
    found = difference(told, HOSTS)
    assert (found.name, found.here, found.there) == ("y", "1", "2")
    assert (found.others, found.most) == ("rank 2 (on b)", "ranks 0, 1, 3 (on a, b)")
    assert found.doubt == ""


def test_of_as_many_on_either_side_nobody_is_said_to_be_right():
    found = difference([{"x": "2"}, {"x": "1"}], ["a", "a"])
    assert (found.others, found.most) == ("rank 1", "rank 0")
    assert found.doubt == " (which of them is right is not known)"


def test_what_only_some_ranks_have_is_no_difference():
    # A module that rank 0 alone needs.
    assert difference([{"x": "1", "plots": "1"}, {"x": "1"}, {"x": "1"}], HOSTS) is None


def test_ranks_are_named_without_hosts_where_there_is_one():
    assert named_ranks([1], ["a", "a"]) == "rank 1"
    assert named_ranks([0, 2], HOSTS) == "ranks 0, 2 (on a, b)"


@pytest.mark.parametrize(
    ("hosts", "cores", "quota", "words"),
    [
        ("aaaa", [[0, 1]] * 4, [("", math.inf)] * 4, "4 ranks share 2 cores"),
        ("aabb", [[0, 1]] * 4, [("", math.inf)] * 4, ""),
        ("aabb", [[0, 1]] * 2 + [[3]] * 2, [("", math.inf)] * 4, "2 ranks share 1 core of b"),
        # Each rank has a core of its own, or two of them the same one.
        ("aaa", [[0], [1], [2]], [("", math.inf)] * 3, ""),
        ("aaa", [[0], [1], [1]], [("", math.inf)] * 3, "2 ranks share 1 core"),
        ("aaa", [[0, 1, 2]] * 3, [("g", 2.0)] * 3, "3 ranks share the time of 2 cores of g"),
        ("aaa", [[0, 1, 2]] * 3, [("g", 2.5)] * 3, ""),
        ("aa", [[0, 1]] * 2, [("g/0", 1.0), ("g/1", 1.0)], ""),
        ("aa", [[], []], [("", math.inf)] * 2, ""),
    ],
)
def test_ranks_that_have_no_core_each_are_counted_exactly(hosts, cores, quota, words):
    assert _crowd(OfRanks(hosts=[*hosts], cores=cores, quota=quota)) == words
