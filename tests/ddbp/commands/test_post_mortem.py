"""Where ranks were, from what they left: the status that a trainer writes, and what is said of
it.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import ddbp
from ddbp import settings
from ddbp.commands import post_mortem
from ddbp.observers import rank_status
from ddbp.observers.observer import StepPhase
from layers import Dropout, Layer, Linear, ReLU, Sequential, SoftmaxCrossEntropy

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5)).astype(np.float32), RNG.integers(0, 3, 12)


class Spy(Layer):
    """The identity, which notes what the status says while it runs."""

    def __init__(self, look):
        self._look, self.seen = look, []

    def __repr__(self):
        return "Spy()"

    def forward(self, call, x):
        self.seen.append(self._look())
        return x

    def backward(self, call, dy):
        self.seen.append(self._look())
        return (dy,)


class ReplayedSpy(Spy):
    """The identity, which is replayed, and notes what the status says then, too."""

    __module__ = "layers.spy"
    replayable = True

    def forward(self, call, x):
        y = call.buffer("y", x.shape, x.dtype)
        call.run(np.copyto, y, x)
        call.run(self.note)
        return y

    def backward(self, call, dy):
        call.run(self.note)
        return (dy,)

    def note(self):
        self.seen.append(self._look())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder for the status of ranks; this process has none, neither now nor after."""
    monkeypatch.setattr(rank_status, "_OWN", [])
    monkeypatch.setenv(settings.STATUS, str(tmp_path))
    return tmp_path


def leave(folder, rank, pid, phase, step=0):
    """Leave the status of a rank as its process would."""
    status = rank_status.RankStatus(folder, rank)
    status.words[:3] = memoryview(np.array([pid, phase, step]).tobytes()).cast("q")


def trainer(model):
    return ddbp.Trainer(
        model, loss=SoftmaxCrossEntropy(), optimizer=ddbp.SGD(0.1), batch_size=12, quiet=True
    )


def test_status_says_step_and_layer(folder):
    spy = Spy(lambda: rank_status.read(folder, 0).where)
    trained = trainer(
        Sequential(Linear(5, 4, rng=RNG), ReLU(), Sequential(spy, Linear(4, 3, rng=RNG)))
    )
    assert rank_status.read(folder, 0).where == "before the first step"
    for _ in range(3):
        trained.train_step(X, Y)
    assert rank_status.read(folder, 0).where == "after step 2"
    trained.evaluate(ddbp.ArrayDataset(X, Y))
    name = "layers.2.layers.0: Spy()"
    assert spy.seen[-3:] == [
        f"in forward of step 2, at {name}",
        f"in backward of step 2, at {name}",
        f"in an evaluation, at {name}",
    ]
    assert rank_status.read(folder, 0).pid == os.getpid()


@pytest.mark.parametrize(
    "options", [{}, {"shards": 4}, {"accumulate": 3, "shards": "ranks"}], ids=str
)
def test_steps_are_replayed_and_the_status_says_all_that_it_does_in_ordinary_ones(
    options, folder, monkeypatch
):
    def run():
        spy = ReplayedSpy(lambda: rank_status.read(folder, 0).where)
        rng = np.random.default_rng(1)
        model = Sequential(Linear(5, 4, rng=rng), ReLU(), spy, Linear(4, 3, rng=rng))
        trained = ddbp.Trainer(
            model,
            loss=SoftmaxCrossEntropy(),
            optimizer=ddbp.SGD(0.1),
            batch_size=4,
            quiet=True,
            **options,
        )
        between = []
        for batch in trained.batches(ddbp.ArrayDataset(X, Y), epochs=6):
            prediction = model(batch.x)
            between.append(rank_status.read(folder, 0).where)
            trained.step(trained.loss(prediction, batch.y))
            between.append(rank_status.read(folder, 0).where)
        trained.fit(ddbp.ArrayDataset(X, Y), epochs=2)
        seen = [where for where in spy.seen if "step" in where]
        return between, seen, trained.parameters_sha256(), trained._workspace.replay.steps

    *told, replayed = run()
    assert replayed >= 6
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    *expected, ordinary = run()
    assert ordinary == 0
    assert told[0] == expected[0]
    assert told[2] == expected[2]
    # What is tried before it is trusted is seen more often.
    assert list(dict.fromkeys(told[1])) == list(dict.fromkeys(expected[1]))
    assert "in backward of step 3, at layers.2: Spy()" in told[1]


def test_layer_of_a_former_trainer_is_not_taken_for_one_of_the_present(folder):
    spies = [Spy(lambda: rank_status.read(folder, 0).where) for _ in range(2)]
    trainers = [
        trainer(Sequential(*[Dropout(0.1)] * number, spy, Linear(5, 3, rng=RNG)))
        for number, spy in enumerate(spies)
    ]
    for trained in (*trainers, *trainers):
        trained.train_step(X, Y)
    assert spies[0].seen[-1].endswith("at layers.0: Spy()")
    assert spies[1].seen[-1].endswith("at layers.1: Spy()")


@pytest.mark.parametrize("value", [None, "nowhere"])
def test_nothing_watches_a_trainer_unless_there_is_a_folder(value, folder, monkeypatch):
    if value is None:
        monkeypatch.delenv(settings.STATUS)
    else:
        monkeypatch.setenv(settings.STATUS, str(folder / value))
    trained = trainer(Linear(5, 3, rng=RNG))
    assert trained.tape_watchers.hooks is None
    assert not trained._hooks.phase


def test_status_follows_a_loop_of_the_scripts_own(folder):
    def where():
        return rank_status.read(folder, 0).where

    model = Linear(5, 3, rng=RNG)
    trained = trainer(model)
    for step, batch in enumerate(trained.batches(ddbp.ArrayDataset(X, Y), epochs=2)):
        assert where() == f"in forward of step {step}"
        loss = trained.loss(model(batch.x), batch.y)
        assert where() == f"in forward of step {step}, at the loss, {trained.loss!r}"
        with trained.no_sync():
            trained.step(loss)
        assert where() == f"after backward of step {step}"
        loss = trained.loss(model(trained.batch(X, Y).x), Y)
        assert where() == f"in forward of step {step}, at the loss, {trained.loss!r}"
        loss.backward()
        trained.update(loss)
        assert where() == f"after step {step}"
    trained.evaluate(ddbp.ArrayDataset(X, Y))
    assert where() == "after step 1"


def test_ranks_are_grouped_by_where_they_were(folder):
    phases = [StepPhase.EXCHANGE, StepPhase.EXCHANGE, StepPhase.BACKWARD, StepPhase.EXCHANGE]
    for rank, phase in enumerate(phases):
        leave(folder, rank, 100 + rank, phase, 7)
    others = "ranks 0, 1 and 3 (processes 100, 101 and 103) were in the gradient exchange of step 7"
    assert post_mortem.lines(folder, 4, 102) == [
        "rank 2 (process 102) died in backward of step 7",
        others,
    ]


@pytest.mark.parametrize("aborted", [False, True])
def test_crashed_rank_is_named_though_another_has_raised_an_exception_for_it(aborted, folder):
    leave(folder, 0, 100, StepPhase.EXCEPTION, 7)
    leave(folder, 1, 101, StepPhase.BACKWARD, 7)
    leave(folder, 2, 102, StepPhase.EXCHANGE, 7)
    assert post_mortem.lines(folder, 3, 102, {102: "killed"}, aborted=aborted) == []
    (folder / "rank1.fault").write_text("Fatal Python error: Aborted\n")
    causes = {101: "killed by SIGABRT", 102: "killed by SIGKILL"}
    said = post_mortem.lines(folder, 3, 102, causes, aborted=aborted)
    assert said[0] == "rank 1 (process 101) died in backward of step 7: killed by SIGABRT"
    assert "rank 2 (process 102) was in the gradient exchange of step 7" in said


def test_without_knowing_who_died_all_are_listed(folder):
    leave(folder, 0, 100, StepPhase.UPDATE, 7)
    assert post_mortem.lines(folder, 2, None) == [
        "rank 0 (process 100) was in the update of step 7",
        "rank 1 was before its trainer",
    ]


@pytest.mark.parametrize(
    "phases", [[], [StepPhase.END, StepPhase.END], [StepPhase.EXCEPTION, StepPhase.EXCHANGE]]
)
def test_nothing_is_said_where_nothing_is_to_be_told(phases, folder):
    for rank, phase in enumerate(phases):
        leave(folder, rank, 100 + rank, phase)
    assert post_mortem.lines(folder, 2, 100) == []


@pytest.fixture
def sleepers():
    """Return processes that sleep."""
    processes = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(3)
    ]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def meet(watch):
    """Wait until all ranks are watched."""
    while watch._strangers:
        time.sleep(0.01)


def end(process, number):
    """End a process, which nobody waits for yet: signals are not always obeyed in the order in
    which they were sent.
    """
    process.send_signal(number)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_watch_tells_which_process_ended_first(order, folder, sleepers):
    for rank, process in enumerate(sleepers):
        leave(folder, rank, process.pid, StepPhase.EXCHANGE)
    watch = post_mortem.Watch(folder, 3)
    with watch.running():
        meet(watch)
        for number in order:
            end(sleepers[number], signal.SIGKILL)
    assert watch.first == sleepers[order[0]].pid


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
def test_watch_does_not_guess_who_ended_before_it_looked(folder, sleepers):
    for process in sleepers[:2]:
        end(process, signal.SIGKILL)
    for rank, process in enumerate(sleepers):
        leave(folder, rank, process.pid, StepPhase.EXCHANGE)
    watch = post_mortem.Watch(folder, 3)
    with watch.running():
        meet(watch)
    assert watch.first is None


def test_ranks_that_others_survive_are_told_with_how_each_died(folder):
    phases = [StepPhase.END, StepPhase.UPDATE, StepPhase.EXCHANGE, StepPhase.END]
    for rank, phase in enumerate(phases):
        leave(folder, rank, 100 + rank, phase, 7)
    assert post_mortem.lost(folder, 4, {101: "killed by SIGKILL"}) == (
        [
            "rank 1 (process 101) died in the update of step 7: killed by SIGKILL",
            "rank 2 (process 102) died in the gradient exchange of step 7",
        ],
        True,
    )


def test_job_of_which_no_rank_has_come_to_its_end_is_no_success(folder):
    leave(folder, 0, 100, StepPhase.UPDATE, 7)
    leave(folder, 1, 101, StepPhase.EXCHANGE, 7)
    assert not post_mortem.lost(folder, 4, {})[1]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
def test_watch_tells_how_each_process_was_killed(folder, sleepers):
    for rank, process in enumerate(sleepers):
        leave(folder, rank, process.pid, StepPhase.EXCHANGE)
    watch = post_mortem.Watch(folder, 3)
    with watch.running():
        meet(watch)
        for process in sleepers:
            end(process, signal.SIGTERM)
    assert watch.causes == dict.fromkeys(
        [process.pid for process in sleepers], "killed by SIGTERM (Terminated)"
    )


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
@pytest.mark.parametrize(
    ("phase", "kills"), [(StepPhase.EXCEPTION, True), (StepPhase.EXCHANGE, False)]
)
def test_launcher_that_does_not_end_after_an_error_is_killed(phase, kills, folder, monkeypatch):
    monkeypatch.setattr(post_mortem, "_LOOK_FOR_ERRORS", 0.0)
    monkeypatch.setattr(post_mortem.end_signals, "GRACE", 0.2)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as launcher:
        watch = post_mortem.Watch(folder, 1)
        watch.began(launcher.kill)
        leave(folder, 0, os.getpid(), phase)
        with watch.running():
            if kills:
                assert launcher.wait(30) == -signal.SIGKILL
            else:
                time.sleep(1)
                assert launcher.poll() is None
        launcher.kill()
    assert watch.killed == kills
