"""Waits, by a clock that runs only while somebody sleeps: what is said, and when time is up."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from ddbp import settings
from ddbp.comm import deadlines, mpi_notices
from ddbp.comm.base import CollectiveKind, CommunicationError
from ddbp.comm.deadlines import Deadline
from ddbp.comm.mpi_messages import MessageTag
from ddbp.comm.mpi_notices import MPINotices

EXCHANGE = (CollectiveKind.EXCHANGE, 17)


class World:
    """A communicator to which notices come at given times, and which keeps those that are sent."""

    def __init__(self, clock, size, rank):
        self.size, self.rank, self.sent = size, rank, []
        self.coming, self._clock = [], clock

    def Isend(self, things, rank, tag):  # noqa: N802
        self.sent.append((rank, tag))
        return SimpleNamespace(Free=lambda: None)

    def Iprobe(self, source, tag, status):  # noqa: N802
        for notice in self.coming:
            if notice[0] <= self._clock.now and notice[1] == tag:
                status.source = notice[2]
                return True
        return False

    def Recv(self, things, source, tag):  # noqa: N802
        notice = next(n for n in self.coming if n[1:3] == (tag, source))
        self.coming.remove(notice)
        things[0] = 1


@pytest.fixture
def clock(monkeypatch):
    """Return a clock, which sleeping sets forward; each sleep is a second at least."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + max(seconds, 1.0))
    monkeypatch.setattr(deadlines, "time", clock)
    monkeypatch.setattr(mpi_notices, "time", clock)
    monkeypatch.setattr(deadlines, "_YIELDS", 0)
    return clock


@pytest.fixture
def wait(clock, monkeypatch):
    """Return the function that waits in vain on one of four ranks, and returns after how many
    seconds it was given up, the error and the notices that were sent.
    """
    monkeypatch.setattr(deadlines, "WHERE", [])

    def run(timeout, *, rank=0, ranks=4, coming=(), late=list, dead=list, seconds=np.inf):
        monkeypatch.setenv(settings.TIMEOUT, str(timeout))
        world = World(clock, ranks, rank)
        world.coming = [(clock.now + after, tag, source) for after, tag, source in coming]
        mpi = SimpleNamespace(Status=SimpleNamespace, ANY_SOURCE=-1)
        notices, started = MPINotices(mpi, world), clock.now
        deadline = Deadline(notices, rank, range(ranks))
        deadline.begin()
        error = ""
        try:
            deadline.until(lambda: clock.now - started > seconds, EXCHANGE, late=late, dead=dead)
        except CommunicationError as failed:
            error = str(failed)
        return clock.now - started, error, world.sent

    return run


def test_ranks_that_do_not_come_are_given_up_after_the_time_limit(wait):
    seconds, error, _ = wait(10, coming=[(1, MessageTag.WAITING, 2)])
    assert 10 < seconds < 13
    assert "got nothing from rank 1, 3 for 1" in error


def test_rank_that_compiles_is_not_missing_under_a_short_limit(wait):
    told = [(after, MessageTag.COMPILING, 1) for after in (1, 60, 150)]
    seconds, error, _ = wait(2, coming=told)
    # The last kernel may take so long.
    assert 150 + deadlines._COMPILATION + 2 < seconds < 150 + deadlines._COMPILATION + 6
    assert "nothing from rank 1, 2, 3" in error
    assert wait(2, coming=told, seconds=200)[1] == ""


def test_rank_tells_all_others_that_it_compiles_but_not_all_the_time(clock, monkeypatch):
    monkeypatch.setenv(settings.TIMEOUT, "10")
    world = World(clock, 3, 1)
    deadline = Deadline(MPINotices(SimpleNamespace(), world), 1, range(3))
    for _ in range(3):
        deadline.compiling()
    assert world.sent == [(0, MessageTag.COMPILING), (2, MessageTag.COMPILING)]
    clock.sleep(deadlines._AGAIN)
    deadline.compiling()
    assert len(world.sent) == 4


def test_launcher_that_is_to_tell_of_a_dead_rank_has_time_to_end_the_others(
    wait, monkeypatch, tmp_path
):
    seconds, error, _ = wait(100, dead=lambda: [2])
    assert seconds < 3
    assert "got the process of rank 2 gone" in error
    monkeypatch.setenv(settings.STATUS, str(tmp_path))
    assert wait(100, dead=lambda: [2], seconds=2)[1] == ""
    seconds, error, _ = wait(100, dead=lambda: [2])
    assert deadlines._LAUNCHER <= seconds < deadlines._LAUNCHER + 3
    assert "got the process of rank 2 gone" in error


def lines(err):
    return [line for line in err.splitlines() if line.startswith("[rank ")]


def test_long_wait_says_for_whom_it_is_and_where_that_is(wait, capsys, monkeypatch):
    places = {1: "in forward of step 17, at layers.3: Linear(64, 10)", 3: ""}
    deadlines.WHERE.append(places.get)
    wait(1000, coming=[(1, MessageTag.WAITING, 2)], seconds=500)
    said = lines(capsys.readouterr().err)
    who = "waits for rank 1 (in forward of step 17, at layers.3: Linear(64, 10)), rank 3"
    what = "to take part in the gradient exchange of step 17"
    assert all(
        re.fullmatch(rf"\[rank 0 of 4\] {re.escape(who)} since \d+ s, {what}", line)
        for line in said
    )
    after = [int(re.search(r"since (\d+) s", line)[1]) for line in said]
    assert [round(seconds / 30) for seconds in after] == [1, 2, 4, 8, 16][: len(after)]
    assert len(after) >= 4


def test_short_wait_says_nothing(wait, capsys):
    wait(1000, seconds=29)
    assert capsys.readouterr().err == ""


def test_of_the_ranks_that_wait_the_first_one_speaks(wait, capsys):
    others = [(1, MessageTag.WAITING, rank) for rank in (1, 3)]
    wait(1000, rank=2, coming=others, seconds=100)
    assert lines(capsys.readouterr().err) == []
    wait(1000, rank=1, coming=[(1, MessageTag.WAITING, 3)], seconds=40)
    (said,) = lines(capsys.readouterr().err)
    assert said.startswith("[rank 1 of 4] waits for rank 0, rank 2 since 3")


def test_rank_that_compiles_is_said_to(wait, capsys):
    deadlines.WHERE.append(lambda rank: "before its trainer")
    wait(1000, coming=[(20, MessageTag.COMPILING, 1)], late=lambda: [1], seconds=40)
    (said,) = lines(capsys.readouterr().err)
    assert "waits for rank 1 (compiling kernels) since 3" in said


def test_many_ranks_are_counted(wait, capsys):
    wait(1000, ranks=20, late=lambda: [*range(1, 4), *range(9, 20)], seconds=40)
    (said,) = lines(capsys.readouterr().err)
    assert "waits for rank 1, rank 2, rank 3, rank 9, 10 more since" in said
