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
    before = threading.active_count()
    with SurvivingMPICommunicator._limited(SimpleNamespace(rank=1)):
        time.sleep(0.3)
        end = time.monotonic() + 30
        while given_up and not raised and time.monotonic() < end:
            time.sleep(0.01)
    said = "rank 1: the ranks that are left must come together; got no answer for 0 s. "
    assert [text.startswith(said) for text in raised] == [True] * given_up
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() == before
