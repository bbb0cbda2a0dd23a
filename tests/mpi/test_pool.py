"""Programs that run one after the other on ranks that stay: none sees the one before, and a failure
is told at once.
"""

import pytest

LEFT = """
import os, sys
import ddbp
if ddbp.communicator().rank == 0:
    print(os.getppid(), *sys.argv[1:], os.environ.get("DDBP_BUCKET"))
"""
FAILS = """
import numpy as np, ddbp
comm = ddbp.communicator()
if comm.rank == 1:
    raise RuntimeError("the misdeed")
comm.all_gather(np.zeros(1))
"""
HANGS = """
import time, ddbp
if ddbp.communicator().rank == 1:
    time.sleep(600)
"""


@pytest.fixture
def run(pooled, tmp_path):
    """Return the function that runs a text as a script on two ranks."""

    def run_text(text, *arguments, **options):
        path = tmp_path / "script.py"
        path.write_text(text)
        return pooled(2, path, *arguments, **options)

    return run_text


def test_programs_share_processes_and_nothing_else(run):
    first = run(LEFT, "a b", DDBP_BUCKET="4").out.split()
    second = run(LEFT).out.split()
    assert first[1:] == ["a", "b", "4"]
    assert second[1:] == ["None"]
    assert first[0] == second[0]


def test_exception_on_one_rank_is_told_though_others_wait_and_the_next_program_runs(run):
    before = run(LEFT).out.split()
    failed = run(FAILS)
    assert failed.status != 0
    assert failed.err.count("RuntimeError: the misdeed") == 1
    assert "Traceback" in failed.err
    after = run(LEFT).out.split()
    assert after[0] != before[0]


def test_program_that_hangs_is_ended_with_the_ranks_that_still_run(run):
    with pytest.raises(TimeoutError, match=r"ran past its limit of 3 s; ranks \[1\] still run"):
        run(HANGS, timeout=3)
