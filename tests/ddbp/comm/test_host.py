"""Ranks without MPI go on when some are killed, wherever that happens, and let others in."""

import signal
import sys
from pathlib import Path

import pytest

from ddbp import settings
from ddbp.comm.deadlines import Deadline
from ddbp.comm.members import meeting_of

from ...mpi.programs.patience import look_for_the_missing
from ...mpi.ranks import in_full
from .survivors import ALL_LOST, LET_IN, MEETINGS, Kill, faults, job, one_step

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs memfd_create")

MEETING = ("before a meeting", "after a meeting")
REGROUPING = tuple(
    f"{when} {what}"
    for when in ("before", "after")
    for what in ("declaring", "locking", "coming to a new group")
)


@pytest.fixture
def run(tmp_path):
    """Return the function that runs a job in a folder of its own, and returns how its processes
    have ended and what is wrong with that.
    """
    jobs = 0

    def start(ranks, kills, newcomers=0):
        nonlocal jobs
        jobs += 1
        folder = Path(tmp_path, str(jobs))
        folder.mkdir()
        ended = job(folder, ranks, kills, newcomers)
        return ended, faults(ended, ranks, kills)

    return start


def killed(ended):
    return {slot for slot, (status, _) in ended.items() if status == -signal.SIGKILL}


def test_step_of_the_tests_meets_as_often_as_they_take_it_to(tmp_path):
    def work(comm, folder):
        before = meeting_of(comm._host_barrier.meetings)
        one_step(comm, 0)
        assert meeting_of(comm._host_barrier.meetings) - before == MEETINGS
        assert not comm.knocking("fit")

    ended = job(tmp_path, 2, {}, work=work)
    assert [each.status for each in ended.values()] == [0, 0]


@pytest.mark.parametrize("event", MEETING)
@pytest.mark.parametrize(("ranks", "victim"), [(2, 0), (3, 2), *in_full((2, 1), (3, 0), (3, 1))])
def test_rank_killed_at_any_meeting_of_a_step_is_lost_and_nothing_else(ranks, victim, event, run):
    wrong = {}
    for meeting in range(2 * MEETINGS, 3 * MEETINGS):
        ended, found = run(ranks, {victim: Kill(event, meeting)})
        assert killed(ended) == {victim}
        wrong |= {meeting: found} if found else {}
    assert wrong == {}


@pytest.mark.parametrize("other", [0, *in_full(1, 2)])
@pytest.mark.parametrize("event", MEETING)
def test_two_ranks_killed_at_about_the_same_meeting_are_lost(event, other, run):
    wrong = {}
    for meeting in range(MEETINGS, 2 * MEETINGS, 3):
        kills = {1: Kill("before a meeting", meeting), 2: Kill(event, meeting + other)}
        ended, found = run(4, kills)
        assert killed(ended) == {1, 2}
        wrong |= {meeting: found} if found else {}
    assert wrong == {}


@pytest.mark.parametrize("event", REGROUPING)
@pytest.mark.parametrize("second", [0, 2])
def test_rank_killed_while_a_group_forms_is_lost_too(second, event, run):
    for third in ({}, {3: Kill(event, 1)}):
        ended, found = run(4, {1: Kill("before a meeting", 30), second: Kill(event), **third})
        assert killed(ended) >= {1, second}
        assert found == []


def test_one_rank_is_enough(run):
    ended, found = run(3, {0: Kill("before a meeting", 20), 2: Kill("after a meeting", 40)})
    assert found == []
    assert ended[1].told["lost"] == [[0], [2]]
    assert (ended[1].told["rank"], ended[1].told["slots"]) == (0, [1])


def test_rank_that_stops_is_killed_when_time_is_up(run, monkeypatch):
    monkeypatch.setenv("DDBP_TIMEOUT", "1")
    monkeypatch.setattr(Deadline, "_look_for_the_missing", look_for_the_missing)
    ended, found = run(3, {1: Kill("before a meeting", 30, signal.SIGSTOP)})
    assert found == []
    assert killed(ended) == {1}


@pytest.mark.parametrize("text", ["3 4", "a b c", "3 4 -1"])
def test_place_in_a_job_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("DDBP_SURVIVE", text)
    with pytest.raises(ValueError, match="DDBP_SURVIVE must be three numbers or mpi; got "):
        settings.launched_to_survive()


# Newcomers


@pytest.mark.parametrize("newcomers", [1, 2])
@pytest.mark.parametrize("ranks", [1, 3])
def test_newcomers_are_let_in_and_work(ranks, newcomers, run):
    ended, found = run(ranks, {}, newcomers)
    assert found == []
    new = [*range(ranks, ranks + newcomers)]
    assert all(each.told["let in"] == [new] for each in ended.values())
    assert [ended[slot].told["rank"] for slot in new] == new


@pytest.mark.parametrize(
    "kill",
    [
        *(
            Kill(event, after)
            for event in ("before inviting", "after inviting")
            for after in (0, 1)
        ),
        *(Kill(event, LET_IN * MEETINGS + after) for event in MEETING for after in range(8)),
        *(Kill(f"{when} coming to a new group") for when in ("before", "after")),
    ],
    ids=str,
)
def test_newcomers_are_let_in_though_the_rank_that_invites_is_killed(kill, run):
    ended, found = run(3, {0: kill}, 2)
    assert found == []
    assert {3, 4} <= {*ended[1].told["slots"]}


@pytest.mark.parametrize(
    "kill",
    [
        *(Kill(f"{when} locking") for when in ("before", "after")),
        *(Kill(event, after) for event in MEETING for after in range(0, 9, 2)),
        *(Kill(f"{when} coming to a new group") for when in ("before", "after")),
    ],
    ids=str,
)
def test_newcomer_killed_while_it_is_let_in_disturbs_nobody(kill, run):
    ended, found = run(2, {2: kill}, 2)
    assert found == []
    assert ended[0].told["slots"] == [0, 1, 3]


def test_newcomers_leave_when_nobody_is_left_to_let_them_in(run):
    ended, _ = run(1, {0: Kill("before inviting")}, 2)
    assert [ended[slot].status for slot in (1, 2)] == [0, 0]
    ended, _ = run(1, {0: Kill("after coming to a new group")}, 1)
    assert ended[1].status in (0, ALL_LOST)


def test_newcomer_is_alone_and_does_not_lead(tmp_path):
    def work(comm, folder):
        assert comm.newcomer == (comm.slot == 1)
        assert (comm.rank, comm.size, comm.leads) == (0, 1, comm.slot == 0)
        assert comm.all_gather(comm.hosts).tolist() == [[0, 1]]

    ended = job(tmp_path, 1, {}, 1, work)
    assert [each.status for each in ended.values()] == [0, 0]
