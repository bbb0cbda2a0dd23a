"""A rank that is killed cannot say anything, and MPICH's launcher kills the others at once; `ddbp
launch` tells where all were.
"""

import pytest

# Kernels are compiled before, so that no rank waits for one that compiles.
pytestmark = pytest.mark.usefixtures("without_misdeed")
PROGRAM = "engine_misdeeds.py"
CAUSE = ": killed by SIGKILL, by somebody: the system has killed nothing for want of memory"


def said(finished):
    """Return what `ddbp launch` said, each line without its beginning."""
    start = "ddbp launch: "
    return [
        line.removeprefix(start) for line in finished.err.splitlines() if line.startswith(start)
    ]


def test_killed_rank_is_named_with_its_process_and_step(launched, tmp_path):
    finished = launched(3, PROGRAM, "be killed in the update", tmp_path)
    assert finished.status != 0
    first, *others = said(finished)
    pids = [(tmp_path / f"pid{rank}").read_text() for rank in range(3)]
    assert first == f"rank 1 (process {pids[1]}) died in the update of step 3{CAUSE}"
    assert all(pid in "\n".join(others) for pid in (pids[0], pids[2]))


def test_exception_keeps_its_one_traceback(launched, tmp_path):
    finished = launched(3, PROGRAM, "raise in the update", tmp_path)
    assert finished.status != 0
    assert "[rank 1 of 3] RuntimeError: the misdeed" in finished.err
    assert finished.err.count("Traceback") == 1
    assert said(finished) == []


def test_nothing_is_said_of_a_run_that_ends_well(launched, tmp_path):
    finished = launched(3, PROGRAM, "nothing", tmp_path)
    assert finished.status == 0
    assert said(finished) == []


def test_ranks_that_waited_for_the_killed_one_are_named_together(launched, tmp_path):
    finished = launched(3, PROGRAM, "be killed while others wait", tmp_path)
    assert finished.status != 0
    pids = [(tmp_path / f"pid{rank}").read_text() for rank in range(3)]
    place = "in the gradient exchange of step 3"
    assert said(finished) == [
        f"rank 1 (process {pids[1]}) died {place}{CAUSE}",
        f"ranks 0 and 2 (processes {pids[0]} and {pids[2]}) were {place}",
    ]
