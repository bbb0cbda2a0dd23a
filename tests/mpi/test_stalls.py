"""A rank that comes no further is told of with the places and stacks of all ranks, and ends the
run; one that takes its time is let alone.
"""

import re
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from ddbp.comm.abort import STALLED

from .ranks import arrays, differences, in_full, still_alive

# Kernels are compiled before, so that no rank waits for one that compiles.
pytestmark = pytest.mark.usefixtures("without_misdeed")
PROGRAM = "stalls.py"
LIMIT = "3"
"""Seconds; a rank that is well may be without a core for two."""
BEFORE, WITHIN = "after step 4", "in forward of step 5, at layers.1: Doing()"


@pytest.mark.parametrize(
    ("deed", "said", "function", "where"),
    [
        ("loop in a layer", "gets no further since ", "loop", WITHIN),
        ("hold the interpreter", "does not answer", "hold_the_interpreter", BEFORE),
        ("stop without a look", "is stopped, as by SIGSTOP", "", BEFORE),
        *in_full(
            ("stop", "is stopped, as by SIGSTOP", "", BEFORE),
            ("sleep", "gets no further since ", "<lambda>", BEFORE),
            ("leave the loop", "gets no further since ", "leave_the_loop", BEFORE),
            ("wait for a disk", "gets no further since ", "wait_for_a_disk", BEFORE),
            ("stop in a layer", "is stopped, as by SIGSTOP", "", WITHIN),
        ),
    ],
)
def test_rank_that_comes_no_further_ends_the_run_with_all_stacks(
    deed, said, function, where, launched, tmp_path
):
    finished = launched(3, PROGRAM, deed, tmp_path, DDBP_STALL_TIMEOUT=LIMIT)
    assert finished.status == STALLED
    assert re.search(rf"rank 1 .*{re.escape(said)}.*{re.escape(where)}", finished.err)
    assert not function or re.search(rf"stalls\.py\", line \d+ in {function}", finished.err)
    waiting = "waits in the gradient exchange of step 5"
    assert all(f"[rank {rank} of 3] {waiting}" in finished.err for rank in (0, 2))
    assert finished.err.count('stalls.py", line ') >= 4
    pids = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(3)]
    assert f"ddbp launch: rank 1 (process {pids[1]}) stalled {where}" in finished.err
    assert still_alive(pids) == []


@pytest.mark.parametrize(
    ("deed", "where", "killer"),
    [("stop in a layer", WITHIN, "rank [02]"), *in_full(("loop", BEFORE, "its watchdog"))],
)
def test_rank_that_comes_no_further_is_killed_where_others_survive(
    deed, where, killer, launched, tmp_path
):
    options = ("--survive", "--no-replace", "--stall-timeout", LIMIT)
    finished = launched(3, PROGRAM, deed, tmp_path, options=options)
    assert finished.status == 0, finished.err
    assert finished.out.count("has finished") == 2
    died = rf"rank 1 \(process {(tmp_path / 'pid1').read_text()}\) died {re.escape(where)}"
    cause = f"killed by {killer}, as it came no further; 2 go on"
    assert re.search(f"^ddbp launch: {died}: {cause}$", finished.err, re.MULTILINE), finished.err


def test_launch_begins_again_when_a_rank_was_stopped_and_gives_the_same_bits(
    launched, run_alone, tmp_path
):
    run, program = tmp_path / "run", "checkpointed.py"
    options = ("--max-restarts", 1, "--min-ranks", 1, "--stall-timeout", LIMIT)
    disturbance = ("--signal", "SIGSTOP", 1, 8)
    finished = launched(2, program, tmp_path, run, *disturbance, options=options)
    assert finished.status == 0, finished.err
    # Nobody has died, so none is left out.
    assert "ddbp launch: begins again on 2 ranks in 0 s" in finished.err
    undisturbed = run_alone(program, tmp_path / "undisturbed")
    assert [differences(result, undisturbed) for result in arrays(tmp_path, 2)] == [[], []]


def test_rank_that_comes_no_further_is_found_under_mpirun_alone(mpirun, tmp_path):
    finished = mpirun(2, PROGRAM, "loop in a layer", tmp_path, DDBP_STALL_TIMEOUT=LIMIT)
    assert finished.status != 0
    said = r"\[rank 1 of 2\] gets no further since [34] s, in step 5, at layers\.1: Doing\(\)"
    assert re.search(said, finished.err), finished.err
    assert "in loop" in finished.err
    assert "DDBP_STALL_TIMEOUT sets the limit in seconds" in finished.err


def test_what_takes_long_is_no_stall_and_a_slow_rank_is_told_of(launched, tmp_path):
    finished = launched(3, PROGRAM, "take time", tmp_path, DDBP_STALL_TIMEOUT=LIMIT)
    assert finished.status == 0, finished.err
    assert finished.out.count("has finished") == 3
    lines = [line for line in finished.err.splitlines() if " needs " in line]
    said = r"rank 1 needs \d+\.\d times the time of the others: \d+% of theirs is waiting for it"
    # In an interval that began before, the system's sharing of cores may have had its part.
    slow = int(re.search(r"slow from step (\d+)", finished.out)[1])
    within = [line for line in lines if int(re.search(r"in steps (\d+)", line)[1]) >= slow]
    assert within
    assert all(re.match(said, line) for line in within), lines
    # Once per interval.
    assert len(lines) <= 3


@pytest.mark.parametrize(
    ("deed", "cause", "function"),
    [
        ("crash in a layer", "killed by SIGSEGV (Segmentation fault)", "<lambda>"),
        *in_full(
            ("abort in a layer", "killed by SIGABRT (Aborted)", "forward"),
            ("leave in a layer", "it left with status 3, as by os._exit", ""),
            ("be killed in a layer", "killed by SIGKILL, by somebody: ", ""),
        ),
    ],
)
def test_launch_tells_how_a_rank_died(deed, cause, function, launched, tmp_path):
    finished = launched(3, PROGRAM, deed, tmp_path)
    assert finished.status not in (0, STALLED)
    assert f"died {WITHIN}: {cause}" in finished.err
    assert not function or re.search(rf"stalls\.py\", line \d+ in {function}", finished.err)


@pytest.fixture
def little_memory():
    """Return a prefix for commands: they and what they start may have little memory."""
    group = Path("/sys/fs/cgroup/memory/ddbp-test")
    limit = group / "memory.limit_in_bytes"
    if not group.parent.exists():
        group = Path("/sys/fs/cgroup/ddbp-test")
        limit = group / "memory.max"
    try:
        group.mkdir()
        limit.write_text(str(3 * 2**30 // 2))
    except OSError as error:
        pytest.skip(f"needs the right to make a control group of memory: {error}")
    yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    end = time.monotonic() + 60
    while group.exists():
        # Those that were killed may not be gone yet.
        with suppress(OSError) if time.monotonic() < end else nullcontext():
            group.rmdir()
        time.sleep(0.01)


def test_launch_tells_that_memory_was_wanting(little_memory, launched, tmp_path):
    finished = launched(2, PROGRAM, "want memory in a layer", tmp_path, prefix=little_memory)
    assert finished.status not in (0, STALLED)
    cause = "killed by the system, for want of memory ("
    assert f"died {WITHIN}: {cause}" in finished.err
    assert " of 1536 MiB of its control group were in use)" in finished.err
