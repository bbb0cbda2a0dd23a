"""What of ranks that survive each other between hosts needs no MPI library."""

import threading
import time
from types import SimpleNamespace

import pytest

from ddbp import settings
from ddbp.comm.ulfm import SurvivingMPICommunicator


@pytest.mark.parametrize(("limit", "given_up"), [("0.3", True), ("30", False), ("inf", False)])
def test_recovery_that_waits_for_who_cannot_be_reached_is_given_up(limit, given_up, monkeypatch):
    raised = []
    monkeypatch.setenv(settings.TIMEOUT, limit)
    monkeypatch.setattr(threading, "excepthook", lambda given: raised.append(str(given.exc_value)))
    before = {*threading.enumerate()}
    with SurvivingMPICommunicator._limited(SimpleNamespace(rank=1)):
        time.sleep(0.3)
        end = time.monotonic() + 30
        while given_up and not raised and time.monotonic() < end:
            time.sleep(0.01)
    said = "rank 1: the ranks that are left must come together; got no answer for 0 s. "
    assert [text.startswith(said) for text in raised] == [True] * given_up
    while {*threading.enumerate()} - before and time.monotonic() < end:
        time.sleep(0.01)
    assert not {*threading.enumerate()} - before


def test_ranks_that_have_not_sent_are_late_whatever_they_have_told():
    # Such as that they wait themselves: for what a lost link has swallowed.
    sent = [False, True, False]
    requests = [SimpleNamespace(Test=lambda sent=each: sent) for each in sent]
    late = []
    comm = SimpleNamespace(
        _mpi=SimpleNamespace(Request=SimpleNamespace(Testall=all)),
        _watched=lambda done: done,
        _deadline=SimpleNamespace(until=lambda done, collective, **how: late.extend(how["late"]())),
    )
    SurvivingMPICommunicator._wait(comm, [*requests, requests[0]], (0, 0), [2, 3, 2])
    assert late == [2]
