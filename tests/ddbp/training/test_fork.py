"""Forks: what they compute, that nothing is left of them, and what they refuse."""

import math

import numpy as np
import pytest

import ddbp
from ddbp.observers.observer import Request
from ddbp.training import fork
from layers import BatchNorm, Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy

RNG = np.random.default_rng(3)
DATA = ddbp.ArrayDataset(RNG.standard_normal((70, 12)), RNG.integers(0, 3, 70))


def made(optimizer=None, callbacks=(), **options):
    """Return a trainer of a network with states and random masks."""
    rng = np.random.default_rng(1)
    model = Sequential(
        Linear(12, 24, rng=rng), BatchNorm(24), ReLU(), Dropout(0.3), Linear(24, 3, rng=rng)
    )
    usual = {"loss": SoftmaxCrossEntropy(), "batch_size": 16, "shards": 2, "quiet": True}
    optimizer = optimizer or ddbp.Adam(0.01)
    return ddbp.Trainer(model, optimizer=optimizer, callbacks=callbacks, **usual | options)


class At(ddbp.Callback):
    """Does something after a step, and keeps all losses."""

    def __init__(self, step, does):
        self.step = step
        self.does = does
        self.losses = []

    def on_step_end(self, trainer, step, loss):
        self.losses.append(loss)
        if step == self.step:
            self.found = self.does(trainer)


@pytest.mark.parametrize("optimizer", [
    lambda: ddbp.SGD(0.1, momentum=0.9),
    lambda: ddbp.Adam(ddbp.WarmUp(ddbp.Cosine(0.01, steps=30), steps=5)),
    lambda: ddbp.AdamW(0.01, groups={"layers.0.*": {"learning_rate": 0.1}}),
    lambda: ddbp.RMSProp(0.01, momentum=0.9, state_bits=8),
    lambda: ddbp.LAMB(0.01),
    lambda: ddbp.Adafactor(0.01),
    lambda: ddbp.Muon(0.01),
])  # fmt: skip
@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "l2": 0.01}, {"clip_norm": 0.1}])
def test_a_fork_without_changes_is_what_the_run_does_next(optimizer, options):
    at = At(4, lambda trainer: trainer.fork(9))
    made(optimizer(), [at], **options).fit(DATA, epochs=6)
    assert at.found == at.losses[4:13]


def state(trainer):
    """Return the digest of a state."""
    return trainer.state().digest()


def test_nothing_is_left_of_a_fork():
    def tried(trainer):
        before, requested = state(trainer), trainer.requested
        many = {"learning_rate": 1.0, "momentum": 0.0, "dropout": 0.0, "clip_value": 0.1}
        trainer.fork(5, batch_size=7, l1=0.1, **many)
        trainer.fork(3, data=ddbp.ArrayDataset(DATA.x[:9], DATA.y[:9]), optimizer=ddbp.Adam(0.1))
        assert [layer.p for layer in fork.dropouts(trainer.model)] == [0.3]
        assert trainer.requested == requested
        return before, state(trainer)

    def digest(*callbacks):
        trainer = made(ddbp.SGD(0.1, momentum=0.9), callbacks)
        history = trainer.fit(DATA, epochs=3, validation=DATA)
        return trainer.parameters_sha256(), [record["validation_loss"] for record in history]

    # The last one, so that all others have been told.
    at = At(7, tried)
    average = ddbp.ExponentialMovingAverage(0.9)
    assert digest(ddbp.Instruments(1), average, at) == digest()
    before, after = at.found
    assert before == after


def test_checksums_of_parameters_and_moments_hold_after_a_fork(monkeypatch):
    monkeypatch.setenv("DDBP_CHECK_MEMORY", "1")
    at = At(3, lambda trainer: trainer.fork(5, learning_rate=1.0))
    for callbacks in ([], [at]):
        trainer = made(callbacks=callbacks)
        trainer.fit(DATA, epochs=2)
        at.digests = [*getattr(at, "digests", []), trainer.parameters_sha256()]
    assert at.digests[0] == at.digests[1]


def test_a_fork_may_learn_a_few_samples_alone():
    at = At(3, lambda trainer: trainer.fork(30, samples=5, optimizer=ddbp.Adam(0.05)))
    made(callbacks=[at], shards=1).fit(DATA, epochs=1)
    assert at.found[-1] < 0.5 * at.found[0]


def test_what_is_asked_for_in_a_fork_is_done_after_it():
    def request(trainer):
        trainer.request(Request.STOP)

    def request_and_fork(trainer):
        request(trainer)
        trainer.fork(3)

    class Heard(ddbp.Callback):
        steps = ()

        def on_step_end(self, trainer, step, loss):
            if trainer.requested:
                self.steps += (step,)

    heard = Heard()
    trainer = made(callbacks=[At(3, request), At(4, request_and_fork), heard])
    trainer._signals.asked = lambda: False
    trainer.fit(DATA, epochs=2)
    assert heard.steps == (4, 5)


def test_numbers_that_are_not_finite_end_a_fork_and_not_the_run():
    at = At(3, lambda trainer: trainer.fork(9, learning_rate=1e38))
    made(ddbp.SGD(0.1), [at]).fit(DATA, epochs=1)
    assert at.found[-1] == math.inf
    assert len(at.found) < 9
    assert np.isfinite(at.losses).all()


def test_changes_of_options_are_those_of_a_run_with_these():
    # The first step of a run, in which the learning rate shows in the second loss.
    for name, value in {"learning_rate": 0.5, "l2": 1.0, "clip_norm": 1e-3, "dropout": 0.0}.items():
        trainer = made(ddbp.SGD(0.1))
        trainer.train_step(DATA.x[:16].astype(np.float32), DATA.y[:16])
        usual, other = trainer.fork(3, data=DATA), trainer.fork(3, data=DATA, **{name: value})
        assert usual != other
        assert trainer.fork(3, data=DATA) == usual


@pytest.mark.parametrize(("changes", "words"), [
    ({"depth": 3}, "changes must be options of a fork; got depth. They are learning_rate"),
    ({"batch_size": 0}, "batch_size must be"),
    ({"learning_rate": -1.0}, "learning rate"),
    ({"dropout": 2.0}, "dropout"),
    ({"shards": 3}, "changes must be options of a fork"),
])  # fmt: skip
def test_options_that_are_none_are_refused_and_nothing_has_changed(changes, words):
    trainer = made()
    before = state(trainer)
    with pytest.raises(ValueError, match=words):
        trainer.fork(2, data=DATA, **changes)
    assert state(trainer) == before


def test_a_fork_needs_data_a_loss_and_a_place_between_two_updates():
    with pytest.raises(ValueError, match="a fork needs data"):
        made().fork(2)
    with pytest.raises(ValueError, match="must have a loss"):
        made(loss=None).fork(2, data=DATA)
    trainer = made(accumulate=2)
    trainer.train_step(DATA.x[:16].astype(np.float32), DATA.y[:16])
    with pytest.raises(RuntimeError, match="between two updates"):
        trainer.fork(2, data=DATA)
