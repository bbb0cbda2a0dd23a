"""When the watchdog of a rank takes it, or another one, to have stalled: by looks at a trainer, and
a clock that the test sets.
"""

import os
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from ddbp import settings
from ddbp.comm.base import CollectiveKind, FixedRanks
from ddbp.observers import watchdog
from ddbp.observers.watchdog import Watchdog
from layers import Linear

ME, OTHER = 0, 1
EXCHANGE = (CollectiveKind.EXCHANGE, 7)


class Ranks(FixedRanks):
    """Two ranks of a host, this one and one that the test is."""

    def __init__(self):
        self.rank, self.size = ME, 2
        self.waiting, self.aborted = None, None
        self.words = {rank: np.zeros(8, np.int64) for rank in (ME, OTHER)}

    def signs(self):
        return self.words

    def abort(self, status):
        self.aborted = status


def in_step(watched):
    """Look from within a step of the trainer."""
    watched.look()


@pytest.fixture
def watched(monkeypatch):
    """Return a watchdog without a thread, its ranks and trainer, and how to look."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(watchdog, "WHERE", [])
    clock.monotonic = lambda: clock.now
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + 1.0)
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "insist", lambda: None)
    states = {}
    monkeypatch.setattr(watchdog, "state_of", lambda pid: states.get(pid, "S"))
    made = SimpleNamespace(clock=clock, ranks=Ranks(), states=states)

    def make(limit=None, timeout="300"):
        monkeypatch.setenv(settings.TIMEOUT, timeout)
        made.dog = Watchdog(made.ranks, limit)
        made.dog._thread = threading.Thread()
        made.dog._stacks = SimpleNamespace(
            descriptor=0, arm=lambda _: None, of_threads=lambda _: "", of_process=lambda *_: ""
        )
        made.dog._slow = SimpleNamespace(look=lambda *_: None)
        update, model = SimpleNamespace(batches=5), Linear(1, 1, rng=np.random.default_rng(0))
        made.trainer = Holder(step_count=5, _update=update, model=model)
        made.dog.watch(made.trainer, (in_step,))
        return made

    def look(seconds=1.0):
        clock.now += seconds
        made.dog._look_once()
        made.ranks.words[OTHER][:2] += (1, 0)
        made.ranks.words[OTHER][1] = 4711

    made.make, made.look = make, look
    return made


class Holder(SimpleNamespace):
    """A trainer, as far as a watchdog knows it; weakly referenced."""

    __hash__ = object.__hash__


def seconds_until_ended(watched, within, most=5000):
    """Return after how many seconds without progress the run is ended."""
    for second in range(most):
        if watched.ranks.aborted is not None:
            return second
        in_step(watched) if within else watched.look()
    return None


def step(watched):
    watched.trainer.step_count += 1


def test_step_has_a_minute_however_fast_steps_are(watched):
    watched.make()
    for _ in range(10):
        step(watched)
        in_step(watched)
    assert 60 <= seconds_until_ended(watched, within=True) <= 63


def test_time_limit_of_steps_is_learned_from_their_pauses(watched):
    watched.make()
    for _ in range(3):
        for _ in range(9):
            in_step(watched)
        step(watched)
    assert 155 <= seconds_until_ended(watched, within=True) <= 165


def test_long_pauses_are_forgotten(watched):
    watched.make()
    for pause in (30, *[2] * watchdog._PAUSES):
        for _ in range(pause):
            in_step(watched)
        step(watched)
    assert seconds_until_ended(watched, within=True) <= 63


def test_what_a_script_does_between_steps_has_no_limit_unless_one_is_given(watched, capsys):
    watched.make()
    assert seconds_until_ended(watched, within=False) is None
    watched.make(limit=8.0)
    assert 8 <= seconds_until_ended(watched, within=False) <= 10
    assert "[rank 0 of 2] gets no further since " in capsys.readouterr().err


def test_pauses_outside_of_steps_teach_nothing(watched):
    watched.make()
    for _ in range(500):
        watched.look()
    step(watched)
    assert seconds_until_ended(watched, within=True) <= 63


def test_first_batches_may_take_as_long_as_others_wait(watched):
    watched.make(limit=8.0, timeout="100")
    watched.trainer._update.batches = watchdog._FIRST - 1
    assert 100 <= seconds_until_ended(watched, within=True) <= 102


@pytest.mark.parametrize("module", watchdog._ASIDE)
def test_what_may_take_long_has_the_time_that_others_wait(module, watched):
    watched.make(limit=8.0, timeout="100")
    space = {"__name__": module, "until": seconds_until_ended, "watched": watched}
    exec("def run():\n    return until(watched, within=False)", space)
    assert 100 <= space["run"]() <= 102


def test_rank_that_waits_for_others_has_not_stalled(watched):
    watched.make(limit=8.0)
    watched.ranks.waiting = EXCHANGE
    assert seconds_until_ended(watched, within=True) is None


def test_time_begins_anew_after_a_wait(watched):
    watched.make(limit=8.0)
    watched.ranks.waiting = EXCHANGE
    for _ in range(100):
        in_step(watched)
    watched.ranks.waiting = None
    assert 8 <= seconds_until_ended(watched, within=True) <= 10


def test_time_in_which_the_process_did_not_run_does_not_count(watched):
    watched.make(limit=8.0)
    for _ in range(3):
        watched.look(3600.0)
    assert watched.ranks.aborted is None


@pytest.mark.parametrize(
    ("limit", "state", "expected"),
    [
        (None, "T", 60),
        (None, "D", 300),
        (8.0, "T", 8),
        (8.0, "R", 8),
        # Its debugger holds it, or it has ended.
        (8.0, "t", None),
        (8.0, "Z", None),
        (8.0, "", None),
    ],
)
def test_rank_without_a_pulse_is_found_by_one_that_waits_for_it(
    limit, state, expected, watched, capsys
):
    watched.make(limit=limit)
    watched.look()
    watched.ranks.waiting = EXCHANGE
    watched.states[4711] = state
    looks = 0
    while watched.ranks.aborted is None and looks < 500:
        looks += 1
        watched.clock.now += 1.0
        watched.dog._look_once()
    if expected is None:
        assert watched.ranks.aborted is None
        return
    assert expected <= looks <= expected + 3
    err = capsys.readouterr().err
    assert "[rank 0 of 2] waits in the gradient exchange of step 7" in err
    stopped = "is stopped, as by SIGSTOP" if state == "T" else "does not answer"
    assert f"[rank 0 of 2] rank 1 (process 4711) {stopped}" in err


def test_rank_that_gets_on_is_no_concern_of_those_who_do_not_wait(watched):
    watched.make(limit=8.0)
    watched.look()
    for _ in range(100):
        watched.clock.now += 1.0
        step(watched)
        watched.dog._look_once()
    assert watched.ranks.aborted is None


def test_rank_that_does_not_speak_waits_until_the_one_that_does_has_told(watched):
    watched.make(limit=8.0)
    ranks, clock = watched.ranks, watched.clock
    ranks.rank, silent = 1, np.zeros(8, np.int64)
    silent[watchdog._PID] = 4712
    speaker = np.zeros(8, np.int64)
    speaker[watchdog._ALARM] = 1
    ranks.words = {0: speaker, 1: np.zeros(8, np.int64), 2: silent}
    begin = clock.now

    def sleep(seconds):
        clock.now += 1.0
        silent[watchdog._TOLD] = clock.now > begin + 5

    clock.sleep = sleep
    assert not watched.dog.tell_of_all()
    assert clock.now == begin + 6
    # Nobody takes it to hang meanwhile.
    assert ranks.words[1][watchdog._PULSE] == 6


def test_where_others_go_on_the_stalled_rank_alone_is_killed(watched, monkeypatch):
    killed = []
    watched.make(limit=8.0)
    watched.dog._processes = SimpleNamespace(follow=lambda *_: True, kill=killed.append)
    watched.ranks.survives = True
    watched.look()
    watched.ranks.waiting = EXCHANGE
    watched.states[4711] = "T"
    for _ in range(12):
        watched.clock.now += 1.0
        watched.dog._look_once()
    assert killed == [4711]
    assert watched.ranks.aborted is None


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("12.5", 12.5), ("inf", float("inf"))])
def test_limit_is_that_of_the_environment(text, seconds, monkeypatch):
    monkeypatch.delenv(settings.STALL_TIMEOUT, raising=False)
    if text is not None:
        monkeypatch.setenv(settings.STALL_TIMEOUT, text)
    assert settings.stall_timeout() == seconds


def test_limit_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv(settings.STALL_TIMEOUT, "soon")
    with pytest.raises(ValueError, match="DDBP_STALL_TIMEOUT must be a positive number of seconds"):
        settings.stall_timeout()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_stacks_of_a_process_that_runs_nothing_are_read_by_others(run_python, tmp_path):
    code = '''
import ctypes, os, subprocess, sys
from ddbp.observers.stacks import Stacks
stacks, (reading, writing) = Stacks(), os.pipe()
look = f"""
import os, time
from ddbp.observers.stacks import Stacks
found, end = "", time.monotonic() + 60
while "in held" not in found and time.monotonic() < end:
    time.sleep(0.05)
    found = Stacks.of_process({os.getpid()}, {stacks.descriptor}, 0)
print(found, flush=True)
os.write({writing}, b"!")
"""
reader = subprocess.Popen([sys.executable, "-c", look], pass_fds=[writing])
def held():
    stacks.arm(0.2)
    # It keeps the interpreter until somebody has read what stands there.
    ctypes.PyDLL(None).read(reading, ctypes.create_string_buffer(1), 1)
held()
reader.wait()
'''
    finished = run_python("-c", code)
    assert "in held" in finished.out, finished.err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_of_a_process_with_a_timer_comes_to_its_end(run_python):
    code = """
import os, sys
from ddbp.observers.stacks import Stacks
stacks = Stacks()
stacks.arm(300.0)
pid = os.fork()
if pid:
    stacks.arm(300.0)
    print(os.waitpid(pid, 0)[1])
"""
    assert run_python("-c", code).out == "0\n"
