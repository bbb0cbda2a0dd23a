"""Gradients that travel during backward: ranks that are elsewhere are found out before a sum is
used, and nobody waits for ever.
"""

import re

import pytest

from .ranks import either, in_full

PROGRAM = "bucket_misdeeds.py"
# Every rank is a host.
HOSTS = {"DDBP_SHARED_MEMORY": "0", "DDBP_BUCKET": "4"}
MISDEEDS = {
    "skip a step": "must be in the same step .*; got step 3 "
    + either("after 4 batches here, after 5 on rank 1", "after 5 batches here, after 4 on rank 0"),
    "take another batch": "must be in the same step .*; got step 3 "
    + either(
        "with 12 samples here, step 3 with 7 on rank 1",
        "with 7 samples here, step 3 with 12 on rank 0",
    ),
    "raise and go on alone": (
        r"all ranks must (be in the same step|have begun to exchange gradients equally often)"
    ),
    "hang in backward": (
        r"all ranks must take part in the gradient exchange of step 3; got nothing from rank 1 for"
        r" ([6-9]|\d\d+) s\. .*\n"
        r".*Gradients that have not come: layers\.[0-9]\.weight.* of rank 1[.;]"
    ),
    "leave in backward": (
        r"all ranks must take part in the gradient exchange of step 3; got rank 1 ended\. .*\n"
        r".*Gradients that have not come: layers\.[0-9]\.weight.* of rank 1[.;]"
    ),
    "hang in the exchange": (
        r"all ranks must take part in the gradient exchange of step 0; got nothing from rank 1 for"
        r" ([6-9]|\d\d+) s\. .*\n"
        r".*Gradients that have not come: layers\.[0-9]\.weight.* of rank 1[.;]"
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _compiled(run_ranks):
    """Compile the kernels, so that no rank waits for one that compiles."""
    assert run_ranks(3, PROGRAM, "nothing", **HOSTS)[0]["buckets"] > 1


# The others are found in the same way, or on ranks that share memory in test_failure.
DEFAULT = ("raise and go on alone", "hang in backward")
OTHERS = [misdeed for misdeed in MISDEEDS if misdeed not in DEFAULT]


@pytest.mark.parametrize("misdeed", [*DEFAULT, *in_full(*OTHERS)])
def test_rank_that_does_something_else_ends_all_ranks_and_is_named(misdeed, mpirun, tmp_path):
    finished = mpirun(3, PROGRAM, tmp_path, misdeed, DDBP_TIMEOUT="6", **HOSTS)
    assert finished.status != 0
    assert re.search(MISDEEDS[misdeed], finished.err), finished.err[-3000:]
    assert "has finished" not in finished.out


def test_rank_that_is_killed_in_backward_is_named_with_step_and_layer_by_the_launcher(
    launched, tmp_path
):
    finished = launched(3, PROGRAM, tmp_path, "be killed in backward", **HOSTS)
    assert finished.status != 0
    died = (
        r"^ddbp launch: rank 1 \(process \d+\) died in backward of step 3, at layers\.2:"
        r" Trouble\(\): killed by SIGKILL"
    )
    assert re.search(died, finished.err, re.MULTILINE), finished.err[-3000:]
    assert "has finished" not in finished.out


def test_backward_that_fails_on_all_ranks_may_be_repeated(run_alone, run_ranks):
    expected = run_alone(PROGRAM, "raise and go on")["parameters"]
    for result in run_ranks(3, PROGRAM, "raise and go on", **HOSTS):
        assert result["parameters"].tobytes() == expected.tobytes()
