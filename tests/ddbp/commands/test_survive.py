"""`ddbp launch --survive`: what it says and returns when ranks are killed, and whom it starts."""

import re
import sys
from pathlib import Path

import pytest

from ddbp.comm import shared_memory

from ...mpi.ranks import either, in_full

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs memfd_create")

PROGRAM = Path(__file__).parents[2] / "mpi" / "programs" / "survives.py"


@pytest.fixture
def survive(run_python, tmp_path):
    """Return the function that runs the program on three ranks, having checked that nothing is left
    in memory, and returns status, lines of the launcher and who was there in the end.
    """

    def run(what, *options, **environment):
        temporary = tmp_path / "temporary"
        temporary.mkdir(exist_ok=True)
        before = {*shared_memory.folder().glob("ddbp-*")}
        launch = ("-m", "ddbp", "launch", "--survive", "-n", 3, *options)
        environment["TMPDIR"] = str(temporary)
        finished = run_python(*launch, PROGRAM, what, tmp_path, **environment)
        assert [*temporary.iterdir()] == []
        pids = re.findall(r"process (\d+)", finished.err)
        left = {*shared_memory.folder().glob("ddbp-*")} - before
        assert not [path for path in left if path.name.split("-")[1] in pids]
        lines = re.findall("^ddbp launch: (.*)", finished.err, re.MULTILINE)
        slots = {path.name: path.read_text() for path in tmp_path.glob("slots*")}
        return finished.status, lines, slots

    return run


def test_killed_rank_is_replaced_and_the_others_go_on(survive):
    status, lines, slots = survive("one is killed")
    assert status == 0
    assert re.fullmatch(
        r"rank 1 \(process \d+\) died before the first step: killed by SIGKILL.*; 2 go on", lines[0]
    )
    assert re.fullmatch(r"rank 3 \(process \d+\) is to replace rank 1", lines[1])
    assert slots == dict.fromkeys(["slots0", "slots2", "slots3"], "[0, 2, 3]")


def test_death_before_there_is_a_trainer_ends_the_job(survive):
    status, lines, slots = survive("one is killed early")
    assert (status, slots) == (1, {})
    (line,) = lines
    said = r"rank 1 \(process \d+\) died before its trainer: killed by SIGKILL.*; the job ends, as"
    assert re.match(said, line)


@pytest.mark.full
def test_nobody_is_replaced_where_that_is_not_wanted(survive):
    status, lines, slots = survive("newcomers fail", "--no-replace")
    assert status == 0
    assert len(lines) == 1
    assert slots == dict.fromkeys(["slots0", "slots2"], "[0, 2]")


@pytest.mark.parametrize("what", ["newcomers fail", *in_full("newcomers exit")])
def test_newcomers_that_fail_disturb_nobody(what, survive):
    status, _, slots = survive(what)
    assert status == 0
    assert slots == dict.fromkeys(["slots0", "slots2"], "[0, 2]")


def test_death_of_all_ends_the_job_with_the_signal(survive):
    status, lines, _ = survive("all are killed")
    assert status == 128 + 9
    assert "none go on" in lines[-1]


@pytest.mark.full
def test_death_of_all_is_followed_by_a_restart_if_there_may_be_one(survive):
    status, lines, slots = survive("all are killed once", "--max-restarts", 1)
    assert status == 0
    assert "begins again on 3 ranks in 0 s" in lines
    assert len(slots) == 3


@pytest.mark.parametrize(("status", "expected"), [(0, 1), *in_full((3, 3))])
def test_rank_that_leaves_without_a_word_ends_all(status, expected, survive):
    found, lines, slots = survive(f"leave with {status}")
    assert (found, slots) == (expected, {})
    if status == 0:
        assert "left without coming to the end of the script, as by os._exit" in lines[0]


def test_status_is_that_of_ranks_that_exit(survive):
    assert survive("exit with 75") == (75, [], {})


def test_rank_that_is_killed_when_all_is_done_is_no_success(survive):
    status, lines, _ = survive("be killed at the end")
    assert status != 0
    assert lines[0].startswith("rank 1 ")


def test_rank_that_is_killed_after_its_last_meeting_is_told_of_at_the_end(survive):
    status, lines, _ = survive("be killed before others end")
    assert status != 0
    assert "2 go on" in lines[0]
    said = r"rank 1 \(process \d+\) died after its last meeting: .* is missing"
    assert re.fullmatch(said, lines[-1])


def test_others_may_have_come_to_the_end_before_a_death_is_seen(survive):
    what = "the launcher sees too late that two are killed"
    status, lines, slots = survive(what, "--no-replace")
    assert (status, slots) == (0, {"slots0": "[0]"})
    assert all("; 1 has come to the end without it" in line for line in lines)
    assert len(lines) == 2


def test_rank_that_others_kill_as_it_does_not_come_is_said_to_be(survive):
    status, lines, slots = survive("one is stopped", "--no-replace", DDBP_TIMEOUT="1")
    assert status == 0
    # Those who go on may have come to their end before the launcher sees it.
    others = either("2 go on", "1 goes on", "2 have come to the end without it")
    said = f"killed by rank [02], as it did not come within DDBP_TIMEOUT; {others}"
    assert re.fullmatch(f"rank 1 .* died .*: {said}", lines[0])
    assert "slots1" not in slots


def test_lines_of_ranks_do_not_mix(run_python, tmp_path):
    command = ("-m", "ddbp", "launch", "--survive", "-n", 3, PROGRAM, "all speak", tmp_path)
    for unbuffered in ("", "1"):
        finished = run_python(*command, PYTHONUNBUFFERED=unbuffered)
        assert finished.status == 0, finished.err
        whole = {" ".join([*[str(slot)] * 20, "end"]) for slot in range(3)}
        assert {*finished.out.splitlines()} == whole
