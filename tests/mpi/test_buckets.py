"""Gradients that travel during backward: ranks that are elsewhere are found out before a sum is
used, and nobody waits for ever.
"""

import re
from pathlib import Path

import numpy as np
import pytest

PROGRAM = "bucket_misdeeds.py"
# Every rank is a host.
HOSTS = {"DDBP_SHARED_MEMORY": "0", "DDBP_BUCKET": "4"}
SECONDS = 30.0
MISDEEDS = {
    "skip a step": (
        r"must be in the same step .*; got step 3 after 4 batches here, after 5 on rank 1"
    ),
    "take another batch": (
        r"must be in the same step .*; got step 3 with 12 samples here, step 3 with 7 on rank 1"
    ),
    "raise and go on alone": (
        r"all ranks must (be in the same step|have begun to exchange gradients equally often)"
    ),
    "hang in backward": (
        r"all ranks must take part in the gradient exchange of step 3; got nothing from rank 1 for"
        r" 5 s\. .*\n"
        r".*Gradients that have not come: layers\.[0-9]\.weight.* of rank 1\."
    ),
    "leave in backward": (
        r"all ranks must take part in the gradient exchange of step 3; got rank 1 ended\. .*\n"
        r".*Gradients that have not come: layers\.[0-9]\.weight.* of rank 1\."
    ),
    "hang in the exchange": (
        r"all ranks must take part in the gradient exchange of step 0; got nothing from rank 1 for"
        r" 5 s\. .*\n"
        r".*Gradients that have not come: layers\.[0-9]\.weight.* of rank 1\."
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _compiled(mpirun, tmp_path_factory):
    """Compile the kernels, so that the times are those of failure."""
    folder = tmp_path_factory.mktemp("nothing")
    finished = mpirun(3, PROGRAM, "nothing", folder, timeout=180, **HOSTS)
    assert finished.status == 0, finished.err
    assert np.load(folder / "rank0.npz")["buckets"] > 1


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_rank_that_does_something_else_ends_all_ranks_and_is_named(misdeed, mpirun, tmp_path):
    finished = mpirun(3, PROGRAM, misdeed, tmp_path, DDBP_TIMEOUT="5", **HOSTS)
    assert finished.status != 0
    assert finished.seconds < SECONDS
    assert re.search(MISDEEDS[misdeed], finished.err), finished.err[-3000:]
    assert "has finished" not in finished.out


def test_rank_that_is_killed_in_backward_is_named_with_step_and_layer_by_the_launcher(
    launched, tmp_path
):
    finished = launched(3, PROGRAM, "be killed in backward", tmp_path, **HOSTS)
    assert finished.status != 0
    assert finished.seconds < SECONDS
    died = (
        r"^ddbp launch: rank 1 \(process \d+\) died in backward of step 3, at layers\.2:"
        r" Trouble\(\)$"
    )
    assert re.search(died, finished.err, re.MULTILINE), finished.err[-3000:]
    assert "has finished" not in finished.out


def test_backward_that_fails_on_all_ranks_may_be_repeated(mpirun, run_python, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    finished = run_python(Path(__file__).parent / "programs" / PROGRAM, "raise and go on", alone)
    assert finished.status == 0, finished.err
    finished = mpirun(3, PROGRAM, "raise and go on", tmp_path, DDBP_TIMEOUT="60", **HOSTS)
    assert finished.status == 0, finished.err
    expected = np.load(alone / "rank0.npz")["parameters"]
    for rank in range(3):
        assert np.load(tmp_path / f"rank{rank}.npz")["parameters"].tobytes() == expected.tobytes()
