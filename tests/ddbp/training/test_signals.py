"""Signals that ask a run to save and end, whatever it is doing then: it ends soon, and goes on to
the bits of the run that nobody has disturbed.
"""

import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
from numba.core import event

import ddbp
import layers
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint
from ddbp.checkpoint.writer import Writer
from ddbp.comm.abort import SAVED
from ddbp.training.signals import RunSaved
from layers.kernels.jit import kernel

from .small import DATA, LABELS, X, make, network, parameters

EPOCHS, STEPS = 3, 5
NAMES = ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"]


class Send(ddbp.Callback):
    """Sends this process a signal when a method is called for the time of this number."""

    def __init__(self, method, number=1, name="SIGTERM", times=1):
        self.left = number

        def send(*arguments):
            self.left -= 1
            if self.left == 0:
                for _ in range(times):
                    signal.raise_signal(signal.Signals[name])

        setattr(self, method, send)
        # Hooks that are overridden are those of the class.
        self.__class__ = type("Send", (Send,), {method: lambda self, *arguments: send()})


def trainer(path, *callbacks, model=None, resume=None, every=100, **options):
    usual = {"optimizer": ddbp.Adam(ddbp.Cosine(0.01, steps=EPOCHS * STEPS)), "shards": 3}
    checkpoints = ddbp.Checkpoints(every_steps=every)
    return make(
        model, run_dir=path, callbacks=[*callbacks, checkpoints], resume=resume, **(usual | options)
    )


def fitted(trainer):
    return trainer.fit(DATA, epochs=EPOCHS, validation=DATA)


def newest(path):
    """Return the newest checkpoint, which is whole."""
    found = Checkpoint(folder.found(path / "checkpoints")[-1])
    assert found.damages() == []
    return found


def losses(history):
    return [(record["epoch"], record["loss"], record["validation_loss"]) for record in history]


def saved(trainer):
    """Return after which step a fit that is asked to end has saved."""
    with pytest.raises(RunSaved) as caught:
        fitted(trainer)
    assert caught.value.code == SAVED == 75
    return newest(trainer.run_dir).step


def require_the_same(path):
    """Refuse a run that does not go on to what the undisturbed one has given."""
    other, whole = trainer(path, resume="auto"), trainer(path / "whole")
    history, expected = fitted(other), fitted(whole)
    assert losses(history) == losses(expected)
    assert parameters(other).tobytes() == parameters(whole).tobytes()


@pytest.fixture(autouse=True)
def handlers():
    """Refuse tests that leave another handler than there was."""
    # Where a shell has started pytest in the background, it is ignored.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {name: signal.getsignal(signal.Signals[name]) for name in NAMES}
    yield
    assert {name: signal.getsignal(signal.Signals[name]) for name in NAMES} == before
    signal.signal(signal.SIGINT, interrupt)


@pytest.mark.parametrize("name", NAMES)
def test_signal_before_the_first_step_has_that_saved(tmp_path, name):
    assert saved(trainer(tmp_path, Send("on_fit_begin", name=name))) == 1
    require_the_same(tmp_path)


def test_signal_while_kernels_are_compiled_has_the_step_saved(tmp_path):
    class Compiles(layers.Layer):
        def __repr__(self):
            return "Compiles()"

        def forward(self, call, x):
            keep(x.reshape(-1))
            return x

        def backward(self, call, dy):
            return (dy,)

    def same(x):
        """Writes x = x."""
        x[0] += 0

    class Sends(event.Listener):
        def on_start(self, event):
            if not sent:
                sent.append(True)
                signal.raise_signal(signal.SIGTERM)

        def on_end(self, event):
            pass

    sent, keep = [], kernel(same, cache=False)
    with event.install_listener("numba:compile", Sends()):
        assert saved(trainer(tmp_path, model=network(Compiles()))) == 1
    assert sent


def many_batches(path, *callbacks, **options):
    """Return a trainer that validates in many batches."""
    return trainer(path, *callbacks, batch_size=3, optimizer=ddbp.Adam(0.01), **options)


def test_signal_during_a_validation_ends_it_and_has_its_epoch_saved(tmp_path):
    calls = []

    def metric(prediction, y):
        calls.append(len(y))
        if len(calls) == 30:
            signal.raise_signal(signal.SIGTERM)
        return np.zeros(len(y))

    # An epoch has 28 batches: the second validation is the one.
    assert saved(many_batches(tmp_path, metrics={"own": metric})) == 56
    assert 30 <= len(calls) < 56 - 14
    assert newest(tmp_path).snapshot().values["stream.position"] == len(DATA)
    again, whole = (
        many_batches(path, metrics={"own": lambda prediction, y: np.zeros(len(y))}, resume=resume)
        for path, resume in ((tmp_path, "auto"), (tmp_path / "whole", None))
    )
    assert losses(fitted(again)) == losses(fitted(whole))
    assert parameters(again).tobytes() == parameters(whole).tobytes()


def test_signal_during_an_evaluation_by_a_callback_waits_for_the_next_step(tmp_path):
    class Evaluates(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            trainer.evaluate(DATA)

    send = Send("on_evaluation_begin", 2)
    assert saved(trainer(tmp_path, Evaluates(), send)) == STEPS + 1


def test_signal_during_the_last_validation_has_the_end_saved(tmp_path):
    # It has fewer batches than there are between two looks.
    callback = Send("on_evaluation_begin", EPOCHS)
    ended = []

    class Ends(ddbp.Callback):
        def on_fit_end(self, trainer, history):
            ended.append(len(history))

    assert saved(trainer(tmp_path, callback, Ends())) == EPOCHS * STEPS
    assert ended == []
    assert len(fitted(trainer(tmp_path, Ends(), resume="auto"))) == EPOCHS
    assert ended == [EPOCHS]
    require_the_same(tmp_path)


def test_signal_at_the_end_of_a_fit_does_what_it_does_without_when_that_is_over(tmp_path):
    run = trainer(tmp_path, Send("on_fit_end", name="SIGINT"))
    with pytest.raises(KeyboardInterrupt):
        fitted(run)
    assert (tmp_path / "model.safetensors").exists()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == EPOCHS


@pytest.mark.parametrize("background", [True, False])
def test_signal_while_a_checkpoint_is_written_has_the_next_step_saved(
    tmp_path, background, monkeypatch
):
    work, begun = Writer._work, []

    def slow(self, *arguments):
        begun.append(True)
        if not background and len(begun) == 1:
            signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)
        work(self, *arguments)

    class SendsThen(ddbp.Callback):
        def on_step_begin(self, trainer, step):
            if background and step == 3:
                while not begun:
                    time.sleep(0.001)
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Writer, "_work", slow)
    checkpoints = ddbp.Checkpoints(every_steps=3, background=background)
    run = make(run_dir=tmp_path, callbacks=[SendsThen(), checkpoints])
    assert saved(run) == 4
    assert [Checkpoint(path).damages() for path in folder.found(tmp_path / "checkpoints")] == [
        []
    ] * 2


def test_second_signal_ends_at_once(tmp_path):
    # The handler that there was is called.
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:
        assert saved(trainer(tmp_path, Send("on_fit_begin", times=2))) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert calls == [signal.SIGTERM]


SCRIPT = """
import signal, sys, time
import numpy as np
import ddbp, layers

class Sends(ddbp.Callback):
    def {method}(self, trainer, *arguments):
        signal.raise_signal(signal.SIGTERM)
        {then}
data = ddbp.ArrayDataset(np.ones((8, 2)), np.ones((8, 1)))
model = layers.Linear(2, 1, rng=np.random.default_rng(0))
trainer = ddbp.Trainer(model, loss="mse", optimizer="adam", batch_size=4, quiet=True,
    callbacks=[Sends(), ddbp.Checkpoints()], run_dir=sys.argv[1])
trainer.fit(data, epochs=2, validation=data)
"""


@pytest.mark.parametrize(
    ("method", "then", "status"),
    [
        ("on_step_begin", "", SAVED),
        ("on_fit_begin", "", SAVED),
        ("on_evaluation_begin", "", SAVED),
        ("on_step_begin", "signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM),
        ("on_fit_end", "", -signal.SIGTERM),
        ("on_attach", "", -signal.SIGTERM),
    ],
)
def test_status_of_a_process_that_was_asked_to_end(tmp_path, method, then, status):
    text = SCRIPT.format(method=method, then=then)
    command = [sys.executable, "-c", text, tmp_path / "run"]
    assert subprocess.run(command, timeout=300, check=False).returncode == status


# ---- in the midst of a group


def looped(trainer, *, at=None, name="SIGUSR1"):
    """Train in a loop, and send a signal before the step on batch number `at`."""
    for number, batch in enumerate(trainer.batches(DATA, epochs=EPOCHS)):
        loss = trainer.loss(trainer.model(batch.x), batch.y)
        if number == at:
            signal.raise_signal(signal.Signals[name])
        trainer.step(loss)
    return trainer


@pytest.mark.parametrize("name", NAMES)
def test_signal_in_the_midst_of_a_group_has_its_update_saved(tmp_path, name):
    with pytest.raises(RunSaved):
        looped(trainer(tmp_path, accumulate=2), at=6, name=name)
    # Groups of an epoch have 2, 2 and 1 batches.
    assert newest(tmp_path).step == 4
    other = looped(trainer(tmp_path, accumulate=2, resume="auto"))
    whole = looped(trainer(tmp_path / "whole", accumulate=2))
    assert parameters(other).tobytes() == parameters(whole).tobytes()


def held(trainer, *, at=None, stop=None):
    """Train in a loop in which a script says which batches accumulate; what is left of them at the
    end goes to an update on a batch of its own. Send a signal at batch number `at`, or leave the
    loop at batch number `stop`.
    """
    for batch in trainer.batches(DATA, epochs=EPOCHS):
        number = trainer.epoch * STEPS - (-trainer._stream.position // 20) - 1
        if number == stop:
            return trainer
        if number == at:
            signal.raise_signal(signal.SIGTERM)
        with trainer.no_sync() if number % 4 != 3 else nullcontext():
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    trainer.train_step(X[:20], LABELS[:20])
    return trainer


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("how", [{"at": 5}, {"at": 6}, {"at": 14}, {"stop": 10}], ids=str)
def test_checkpoints_of_batches_that_a_script_holds_are_right(tmp_path, how, every):
    run = trainer(tmp_path, every=every)
    with pytest.raises(RunSaved) if "at" in how else nullcontext():
        held(run, **how)
    run.callbacks[-1].wait()
    other = held(trainer(tmp_path, resume="auto"))
    whole = held(trainer(tmp_path / "whole"))
    assert parameters(other).tobytes() == parameters(whole).tobytes()
