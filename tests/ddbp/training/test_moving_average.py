"""The exponential moving average of the weights."""

import numpy as np
import pytest

import ddbp

from .small import DATA, make


def weights(model):
    """Return copies of the parameters by name."""
    return {name: parameter.value.copy() for name, parameter in model.named_parameters()}


class Diary(ddbp.Callback):
    """Keeps the weights after each update."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, trainer, step, loss):
        self.weights.append(weights(trainer.model))


def averaged(history, decay, warm_up):
    """Return the average by its equation, in plain NumPy."""
    average = history[0]
    for update, values in enumerate(history[1:], 2):
        d = min(decay, (1 + update) / (10 + update)) if warm_up else decay
        average = {name: d * average[name] + (1 - d) * values[name] for name in values}
    return average


@pytest.mark.parametrize("warm_up", [False, True])
def test_average_is_that_of_its_equation(warm_up):
    average, diary = ddbp.ExponentialMovingAverage(0.7, warm_up=warm_up), Diary()
    trainer = make(callbacks=[average, diary])
    trainer.fit(DATA, epochs=2)
    last = weights(trainer.model)
    expected = averaged(diary.weights, 0.7, warm_up)
    assert average.updates == len(diary.weights) == 10
    with average.applied(trainer):
        for name, found in weights(trainer.model).items():
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-6)
            assert (found != last[name]).any()
    assert all(
        array.tobytes() == last[name].tobytes() for name, array in weights(trainer.model).items()
    )


def test_weights_come_back_after_an_error():
    average = ddbp.ExponentialMovingAverage(0.5)
    trainer = make(callbacks=[average])
    trainer.fit(DATA, epochs=1)
    before = trainer.parameters_sha256()
    inside = []

    def fail():
        with average.applied(trainer):
            inside.append(trainer.parameters_sha256())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside != [before]
    assert trainer.parameters_sha256() == before


def test_average_is_measured_after_each_epoch_and_does_not_disturb_training():
    average = ddbp.ExponentialMovingAverage(0.5, validation=DATA)
    trainer, alone = make(callbacks=[average]), make()
    records = trainer.fit(DATA, epochs=2)
    alone.fit(DATA, epochs=2)
    assert trainer.parameters_sha256() == alone.parameters_sha256()
    with average.applied(trainer):
        found = trainer.evaluate(DATA)
    assert {name: records[-1][f"average_{name}"] for name in found} == found
    assert records[0]["average_loss"] != records[1]["average_loss"]


def test_average_begins_anew_with_another_trainer():
    average = ddbp.ExponentialMovingAverage(0.5)
    digests = []
    for _ in range(2):
        trainer = make(callbacks=[average])
        trainer.fit(DATA, epochs=1)
        average.apply(trainer)
        digests.append(trainer.parameters_sha256())
    assert digests[0] == digests[1]


def test_average_of_no_update_is_refused():
    average = ddbp.ExponentialMovingAverage()
    trainer = make(callbacks=[average])
    with pytest.raises(RuntimeError, match="there must be an average; got 0 updates"):
        average.apply(trainer)


def test_average_of_another_trainer_is_refused():
    average = ddbp.ExponentialMovingAverage()
    first = make(callbacks=[average])
    first.fit(DATA, epochs=1)
    make(callbacks=[average]).fit(DATA, epochs=1)
    with pytest.raises(RuntimeError, match="there must be an average"):
        average.apply(first)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay must be in"):
        ddbp.ExponentialMovingAverage(decay)
