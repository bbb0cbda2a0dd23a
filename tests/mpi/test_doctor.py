"""What the doctor finds of several ranks: what differs between them is named, to the last bit, and
where nothing does it is silent.
"""

import json
import os
import re

import pytest

from ddbp.doctor import finding
from ddbp.doctor.rules import RULES

from .ranks import HALVES, ODD_AND_EVEN, ONE_HOST, PLAIN, SURVIVE, WHOLE, in_full

PROGRAM = "sick_ranks.py"
RANKS = 3
BETWEEN = "on rank 1 than on ranks 0, 2"
SICK = {
    "state": ("ranks_differ", ONE_HOST, "layers.1.running_mean", f"other bits {BETWEEN}"),
    "copy": ("ranks_differ", PLAIN, "layers.0.weight", f"other bits {BETWEEN}"),
    "rate": (
        "ranks_differ",
        ONE_HOST,
        "",
        "the rate of the optimizer is 0.0005 on rank 1, and 0.001 on ranks 0, 2",
    ),
    "data": ("data_differ", ONE_HOST, "", f"the training data's x is another array {BETWEEN}"),
    "batch": ("data_differ", ONE_HOST, "", f"the batch's x is another array {BETWEEN}"),
    "package": (
        "versions_differ",
        ONE_HOST,
        "",
        "ddbp is other ddbp on rank 1, and 0.",
    ),
    "module": ("versions_differ", ONE_HOST, "", "the module module_of_ranks is "),
    "value": (
        "memory_corrupted",
        ONE_HOST,
        "",
        "a bit has flipped in the value of layers.",
    ),
    "moment": (
        "memory_corrupted",
        ONE_HOST,
        "",
        "a bit has flipped in the moment 'square' of layers.",
    ),
}


@pytest.fixture
def found(pooled, tmp_path):
    """Return the function that trains, and returns what the doctor has found, and has said."""

    def run(what, ranks=RANKS, **environment):
        finished = pooled(ranks, PROGRAM, tmp_path, what, **environment)
        assert finished.status == 0, finished.err
        told = [
            json.loads((tmp_path / f"findings{rank}.json").read_text()) for rank in range(ranks)
        ]
        assert told == [told[0]] * ranks
        assert [each.__dict__ for each in finding.read(tmp_path / "run")] == told[0]
        return told[0], finished.err

    return run


@pytest.mark.parametrize("what", SICK)
def test_what_is_wrong_on_one_rank_is_named_once_and_everywhere(what, found):
    rule, environment, layer, evidence = SICK[what]
    (only,), said = found(what, **environment)
    assert (only["rule"], only["layer"]) == (rule, layer)
    assert only["evidence"].startswith(evidence)
    assert said.count("doctor: ") == 1
    if what in ("value", "moment"):
        # It is told of in the step after the one that has found it.
        assert "ahead of the update of step 11 on rank 1" in only["evidence"]
        assert only["step"] == 13


@pytest.mark.parametrize(
    ("ranks", "environment"),
    [(2, ONE_HOST), (2, PLAIN), (2, SURVIVE), *in_full((4, HALVES), (3, ODD_AND_EVEN | WHOLE))],
)
def test_ranks_that_are_alike_are_not_alarmed(ranks, environment, found):
    assert found("nothing", ranks, **environment)[0] == []


def test_ranks_that_share_a_core_are_told_what_that_costs(found):
    (only,), _ = found("crowded", 2)
    assert only["rule"] == "cores_oversubscribed"
    assert re.fullmatch(
        r"2 ranks share 1 core, and wait for one for \d\d% of the time", only["evidence"]
    )


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each of two ranks")
def test_slow_rank_is_named_with_what_it_costs(found):
    (only,), _ = found("slow", 2)
    assert only["rule"] == "rank_slow"
    assert only["evidence"].startswith("rank 1 needs ")
    assert only["numbers"]["rank"] == 1
    assert only["numbers"]["waited"] > 0.5


def test_every_rule_of_several_ranks_has_a_patient():
    of_ranks = [each.name for each in RULES if each.look.__module__.endswith("ranks")]
    assert {*of_ranks} <= {rule for rule, *_ in SICK.values()}
