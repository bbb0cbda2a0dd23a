"""Which processes have ended, as others than their parent see it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ddbp.comm.processes import Processes, start_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def sleeper():
    """Return a process that sleeps; nobody waits for it before the test is over."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def refuse(pid):
    raise OSError("not allowed")


@pytest.fixture(params=["pidfd", "refused", "unknown"])
def processes(request, monkeypatch):
    """Return what watches processes, by pidfds and without."""
    if request.param == "refused":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    elif request.param == "unknown":
        monkeypatch.delattr(os, "pidfd_open")
    return Processes()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(1e-3)


def test_process_that_nobody_has_waited_for_has_ended(sleeper, processes):
    assert processes.follow(7, sleeper.pid, start_of(sleeper.pid))
    assert processes.ended() == set()
    os.kill(sleeper.pid, signal.SIGKILL)
    wait_for(processes.ended)
    assert processes.ended() == {7}
    os.kill(sleeper.pid, 0)


def test_process_is_killed_under_its_name(sleeper, processes):
    processes.follow(7, sleeper.pid, start_of(sleeper.pid))
    processes.kill(8)
    processes.kill(7)
    wait_for(processes.ended)
    assert sleeper.wait() == -signal.SIGKILL


def test_stranger_with_the_number_of_another_process_is_not_watched(sleeper, processes):
    assert not processes.follow(7, sleeper.pid, start_of(sleeper.pid) + 1)
    assert not processes.follow(7, 0, 0)
    processes.kill(7)
    assert processes.ended() == set()
    assert sleeper.poll() is None
