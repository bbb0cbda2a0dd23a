"""The last batch of an epoch: left out, or too small for BatchNorm."""

import numpy as np
import pytest

import ddbp
from ddbp.data.order import permutation
from layers import (
    LSTM,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
)

from .sentences import RNG
from .small import DATA, LABELS, X, make, network


def test_last_batch_may_be_left_out():
    whole, dropping, by_hand = make(), make(drop_last=True), make()
    history = dropping.fit(DATA, epochs=2)
    assert [record["step"] for record in history] == [4, 8]
    for epoch in range(2):
        order = permutation(83, 0, epoch)
        losses = [by_hand.train_step(X[rows], LABELS[rows]) for rows in np.split(order[:80], 4)]
        assert history[epoch]["loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert dropping.parameters_sha256() == by_hand.parameters_sha256()
    whole.fit(DATA, epochs=2)
    assert whole.step_count == 10


def test_dropped_batch_ends_a_group_and_a_loop():
    trainer, steps = make(drop_last=True, accumulate=3), []
    trainer.fit(DATA, epochs=2)
    assert trainer.step_count == 4
    for batch in trainer.batches(DATA, epochs=2):
        steps.append(trainer.step(trainer.loss(trainer.model(batch.x), batch.y)))
        assert batch.samples == 20
    assert np.isnan(steps).tolist() == [True, True, False, False] * 2


@pytest.mark.parametrize("truncate", [None, 3])
def test_steps_per_epoch_are_counted_without_the_dropped_batch(truncate):
    class Count(ddbp.Callback):
        def on_fit_begin(self, trainer, epochs, steps_per_epoch):
            self.expected = epochs * steps_per_epoch

    counting = Count()
    data = ddbp.ArrayDataset(RNG.standard_normal((10, 7, 4)), RNG.standard_normal((10, 7, 5)))
    trainer = make(
        LSTM(4, 5, rng=np.random.default_rng(0)),
        loss=MeanSquaredError(),
        batch_size=4,
        drop_last=True,
        truncate=truncate,
        callbacks=[counting],
    )
    trainer.fit(data, epochs=3)
    assert trainer.step_count == counting.expected == 6 * (3 if truncate else 1)


def test_state_from_the_midst_of_an_epoch_that_drops_goes_on():
    def looped(trainer, stop=None):
        for number, batch in enumerate(trainer.batches(DATA, epochs=3), 1):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
            if number == stop:
                break

    undisturbed, first, second = (make(drop_last=True) for _ in range(3))
    looped(undisturbed)
    looped(first, stop=4)
    second.load_state(first.state())
    looped(second)
    assert second.parameters_sha256() == undisturbed.parameters_sha256()
    with pytest.raises(ValueError, match="the same drop_last; got True in the state, False here"):
        make().load_state(first.state())


def test_data_smaller_than_a_batch_are_refused_where_it_would_be_dropped():
    data = ddbp.ArrayDataset(X[:19], LABELS[:19])
    with pytest.raises(ValueError, match="the data set must hold a batch of 20; got 19 samples"):
        next(make(drop_last=True).batches(data))


def single(samples, **options):
    """Return a trainer of a network with BatchNorm, and so many samples."""
    data = ddbp.ArrayDataset(np.resize(X, (samples, 6)), np.resize(LABELS, samples))
    return make(network(BatchNorm(16)), **options), data


def test_batch_norm_that_would_meet_a_single_sample_is_refused_before_training():
    trainer, data = single(81)
    before = trainer.parameters_sha256()
    said = (
        "Trainer.fit: BatchNorm needs more than one value per channel in each shard of a batch; got"
        r" a last batch of 1 in 1 shards. Pass drop_last=True"
    )
    with pytest.raises(ValueError, match=said):
        trainer.fit(data, epochs=1)
    with pytest.raises(ValueError, match=said.replace("fit", "batches")):
        next(trainer.batches(data))
    assert (trainer.step_count, trainer.parameters_sha256()) == (0, before)
    trainer, data = single(81, drop_last=True)
    trainer.fit(data, epochs=1)


def test_shards_of_one_sample_are_refused_before_training():
    trainer, data = single(88, shards=6)
    with pytest.raises(ValueError, match=r"a last batch of 8 in 6 shards. Pass drop_last=True"):
        trainer.fit(data, epochs=1)
    trainer, data = single(80, shards=12)
    with pytest.raises(ValueError, match=r"got a batch of 20 in 12 shards. Use fewer shards"):
        trainer.fit(data, epochs=1)


def test_single_images_and_synchronized_statistics_are_enough():
    rng = np.random.default_rng(0)
    layers = Conv2d(1, 4, 3, rng=rng), BatchNorm(4), ReLU(), GlobalAveragePool()
    model = Sequential(*layers, Linear(4, 3, rng=rng))
    make(model).fit(ddbp.ArrayDataset(rng.standard_normal((41, 5, 5, 1)), LABELS[:41]), epochs=1)
    synchronized = make(network(BatchNorm(16, synchronized=True)), shards=6)
    synchronized.fit(single(88)[1], epochs=1)


def test_loop_that_gives_the_model_something_else_is_not_refused_its_batches():
    trainer, _ = single(81)
    noise = np.zeros((81, 3), np.float32)
    batches = trainer.batches(ddbp.ArrayDataset(noise, np.resize(LABELS, 81)))
    assert [batch.samples for batch in batches] == [20, 20, 20, 20, 1]
