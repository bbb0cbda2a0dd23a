"""Rounds of workers that train apart: their end, how they are called, and their states."""

import numpy as np
import pytest

import ddbp
from ddbp.data.order import permutation
from ddbp.seldom.fragment import cut
from layers import BatchNorm, Dropout

from .exchanges import EVEN, EXCHANGES, common
from .small import LABELS, X, make, network

# The end of a run


@pytest.mark.parametrize(
    "exchange",
    [ddbp.LocalSGD(4, 1000), ddbp.DiLoCo(4, 1000, outer_rate=1.0, outer_momentum=0.0, fragments=2)],
    ids=str,
)
def test_a_run_shorter_than_a_round_ends_with_the_mean_of_the_workers_and_says_so(exchange):
    stepped = make(exchange=exchange)
    for epoch in range(3):
        order = permutation(80, 0, epoch)
        for start in range(0, 80, 20):
            rows = order[start : start + 20]
            stepped.train_step(EVEN.x[rows], LABELS[rows])
    stepped._update.rest()
    trainer = make(exchange=exchange)
    with pytest.warns(RuntimeWarning, match="at most the batches of the whole run; got every=1000"):
        history = trainer.fit(EVEN, epochs=3, validation=EVEN)
    expected = stepped._update._values.mean(axis=0)
    np.testing.assert_allclose(trainer._flat.values, expected, rtol=1e-4, atol=1e-6)
    assert [record["step"] for record in history] == [0, 0, 1]
    assert history[-1]["validation_loss"] < history[1]["validation_loss"]


class Stopping(ddbp.Callback):
    """Stops a run at the end of its second epoch."""

    def on_epoch_end(self, trainer, record):
        trainer.stop = record["epoch"] == 2


class Steps(ddbp.Callback):
    """Notes what it is told of steps."""

    def __init__(self):
        self.losses = []

    def on_step_end(self, trainer, step, loss):
        self.losses.append(loss)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_run_that_is_stopped_loses_nothing_that_workers_have_trained(exchange):
    steps = Steps()
    trainer = make(exchange=exchange, callbacks=[Stopping(), steps])
    history = trainer.fit(EVEN, epochs=9)
    update = trainer._update
    for values in update._values:
        np.testing.assert_array_equal(values, trainer._flat.values)
    assert len(history) == 2
    assert len(steps.losses) == trainer.step_count
    assert np.isfinite(steps.losses).all()
    # There is nothing left that another end of a run would change.
    before = trainer.parameters_sha256()
    assert not update.close(trainer.step_count, ())
    assert trainer.parameters_sha256() == before


def test_fragments_that_have_just_been_exchanged_are_not_moved_again_where_a_run_is_stopped():
    exchange = ddbp.DiLoCo(4, 8, fragments=2)
    trainer = make(exchange=exchange, callbacks=[Stopping()])
    kept = Keeping(2)
    other = make(exchange=exchange, callbacks=[kept])
    trainer.fit(EVEN, epochs=9)
    other.fit(EVEN, epochs=9)
    first, second = cut(trainer._flat, 2)
    before = make(exchange=exchange)
    before.load_state(kept.state)
    # Eight batches are over: the second fragment has had its turn.
    after, then = trainer._flat.values, before._flat.values
    np.testing.assert_array_equal(after[second], then[second])
    assert not np.array_equal(after[first], then[first])


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_round_that_is_ended_leaves_all_workers_with_what_they_have_trained(exchange):
    steps = Steps()
    stepped = make(exchange=exchange, callbacks=[steps])
    for _ in range(3):
        stepped.train_step(X[:20], LABELS[:20])
    exchanges = stepped.step_count
    workers = stepped._update._values.copy()
    loss = stepped.end_round()
    update = stepped._update
    for values in update._values:
        np.testing.assert_array_equal(values, stepped._flat.values)
    if isinstance(exchange, ddbp.LocalSGD) and not exchange.after:
        np.testing.assert_allclose(stepped._flat.values, workers.mean(axis=0), rtol=1e-4, atol=1e-6)
    fragmented = exchange.fragments > 1
    if exchange.due(3) is None:
        assert np.isfinite(loss)
    if exchange.due(3) is None or fragmented:
        assert stepped.step_count == exchanges + 1 == len(steps.losses)
    # Nothing is left.
    before = stepped.parameters_sha256()
    assert np.isnan(stepped.end_round())
    assert stepped.parameters_sha256() == before
    # Workers go on, and what they train then is exchanged, by the step itself or with the round.
    told = stepped.train_step(X[:20], LABELS[:20]), stepped.end_round()
    assert np.isfinite(told).any()
    assert stepped.parameters_sha256() != before


def test_the_loss_of_a_round_that_is_ended_is_the_mean_of_its_batches():
    trainer = make(exchange=ddbp.LocalSGD(2, 100), optimizer=ddbp.SGD(1e-12))
    for start in (0, 20):
        trainer.train_step(X[start : start + 20], LABELS[start : start + 20])
    found = trainer.evaluate(ddbp.ArrayDataset(X[:40], LABELS[:40]))["loss"]
    assert trainer.end_round() == pytest.approx(found, rel=1e-6)


def test_where_gradients_are_exchanged_in_each_step_there_is_no_round_to_end():
    trainer = make()
    trainer.train_step(X[:20], LABELS[:20])
    before = trainer.parameters_sha256()
    assert np.isnan(trainer.end_round())
    assert (trainer.step_count, trainer.parameters_sha256()) == (1, before)


class Ending(ddbp.Callback):
    """Ends rounds within a fit."""

    def on_step_end(self, trainer, step, loss):
        trainer.end_round()

    def on_epoch_end(self, trainer, record):
        trainer.end_round()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_rounds_that_callbacks_end_are_counted_once_in_the_losses_of_epochs(exchange):
    trainer = make(exchange=exchange, callbacks=[Ending()], optimizer=ddbp.SGD(1e-12))
    for record in trainer.fit(EVEN, epochs=3, validation=EVEN):
        assert record["loss"] == pytest.approx(record["validation_loss"], rel=1e-6)


# How it is called


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_steps_on_given_batches_and_loops_have_the_bits_of_fit(exchange):
    fitted = make(exchange=exchange)
    fitted.fit(EVEN, epochs=5)
    looped = make(exchange=exchange)
    for batch in looped.batches(EVEN, epochs=5):
        looped.step(looped.loss(looped.model(batch.x), batch.y))
    left, stepped = make(exchange=exchange), make(exchange=exchange)
    for batch in left.batches(EVEN, epochs=6):
        if left.epoch == 5:
            break
        left.step(left.loss(left.model(batch.x), batch.y))
    for epoch in range(5):
        order = permutation(80, 0, epoch)
        for start in range(0, 80, 20):
            rows = order[start : start + 20]
            stepped.train_step(EVEN.x[rows], LABELS[rows])
    for other, same in ((looped, fitted), (stepped, left)):
        np.testing.assert_array_equal(common(other), common(same))
        assert other.step_count == same.step_count > 0


def test_a_step_without_an_exchange_has_no_loss_yet():
    trainer = make(exchange=ddbp.LocalSGD(2, 3))
    losses = [trainer.train_step(X[:20], LABELS[:20]) for _ in range(6)]
    assert [np.isnan(loss) for loss in losses] == [True, True, False] * 2
    assert trainer.step_count == 2


def test_what_a_script_makes_of_the_parameters_is_what_all_workers_go_on_with():
    trainer = make(exchange=ddbp.DiLoCo(2, 4, fragments=2), optimizer=ddbp.SGD(1e-12))
    trainer.train_step(X[:20], LABELS[:20])
    with ddbp.modify_parameters(trainer) as mine:
        assert mine
        trainer.model.parameters()[0].value = np.full((16, 6), 3.0)
    trainer.fit(EVEN, epochs=3)
    np.testing.assert_allclose(trainer.model.parameters()[0].value, 3.0, rtol=1e-5)


BESIDE = {
    "evaluate": lambda trainer, average: trainer.evaluate(EVEN),
    "predict": lambda trainer, average: trainer.predict(X[:3]),
    "predict, refused": lambda trainer, average: _refused(trainer),
    "digest": lambda trainer, average: trainer.parameters_sha256(),
    "average": lambda trainer, average: average.updates and _applied(trainer, average),
}


def _applied(trainer, average):
    with average.applied(trainer):
        trainer.evaluate(EVEN)


def _refused(trainer):
    with pytest.raises(ValueError, match="input must have shape"):
        trainer.predict(X[:3, :2])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=[*BESIDE])
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_is_asked_in_the_midst_of_a_round_changes_no_bit(beside, by_hand, after):
    def trained(beside):
        average = ddbp.ExponentialMovingAverage(0.9)
        model = network(Dropout(0.2), BatchNorm(16))
        trainer = make(model, exchange=ddbp.LocalSGD(4, 3), callbacks=[average])
        for batch in trainer.batches(EVEN, epochs=2):
            loss = trainer.loss(trainer.model(batch.x), batch.y)
            if beside is not None and not after:
                beside(trainer, average)
            if by_hand:
                loss.backward()
            (trainer.update if by_hand else trainer.step)(loss)
            if beside is not None and after:
                beside(trainer, average)
        return trainer.parameters_sha256()

    assert trained(beside) == trained(None)


def test_best_weights_are_those_that_workers_had_in_common():
    best = ddbp.BestWeights("validation_loss", restore=True)
    trainer = make(exchange=ddbp.LocalSGD(2, 3), callbacks=[best], optimizer=ddbp.SGD(5.0))
    history = trainer.fit(EVEN, epochs=4, validation=EVEN)
    assert trainer.evaluate(EVEN)["loss"] == min(each["validation_loss"] for each in history)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_configuration_holds_the_exchange_as_a_text(exchange, tmp_path):
    trainer = make(exchange=str(exchange), run_dir=tmp_path)
    assert trainer.options.exchange == exchange
    trainer.fit(EVEN, epochs=1)
    assert ddbp.TrainerOptions.read(tmp_path).exchange == exchange


# States


class Keeping(ddbp.Callback):
    """Keeps the state at the end of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, trainer, record):
        if record["epoch"] == self.epoch:
            self.state = trainer.state()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
@pytest.mark.parametrize("epochs", [1, 3])
def test_training_goes_on_from_a_state_to_the_same_bits(exchange, epochs):
    whole = make(network(Dropout(0.2), BatchNorm(16)), exchange=exchange)
    whole.fit(EVEN, epochs=5)
    keeping = Keeping(epochs)
    first = make(network(Dropout(0.2), BatchNorm(16)), exchange=exchange, callbacks=[keeping])
    first.fit(EVEN, epochs=5)
    other = make(network(Dropout(0.2), BatchNorm(16)), exchange=exchange)
    other.load_state(keeping.state)
    other.fit(EVEN, epochs=5)
    assert other.parameters_sha256() == whole.parameters_sha256()


def test_other_workers_go_on_from_a_state_if_told_so():
    first = make(exchange=ddbp.DiLoCo(4, 4), optimizer=ddbp.Adam(0.01))
    first.fit(EVEN, epochs=2)
    state = first.state()
    more = make(exchange=ddbp.DiLoCo(5, 4), optimizer=ddbp.Adam(0.01))
    with pytest.raises(ValueError, match="same shards"):
        more.load_state(state)
    more._load(state, ["exchange", "shards"])
    assert more.parameters_sha256() == first.parameters_sha256()
    moments = [each.moments["mean"] for each in more._update._optimizers]
    np.testing.assert_array_equal(moments[4], moments[0])
    assert not np.array_equal(moments[1], moments[0])
    assert [each.steps for each in more._update._optimizers] == [8] * 5


def test_a_state_and_the_end_of_a_round_between_two_workers_are_refused():
    trainer = make(exchange=ddbp.LocalSGD(2, 3))
    for batch in trainer.batches(EVEN, epochs=1):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        for call in (trainer.state, trainer.end_round):
            with pytest.raises(RuntimeError, match="between two batches of all workers"):
                call()
        break
