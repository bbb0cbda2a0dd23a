"""Gradient accumulation: the update of a group of batches is that of one batch with the samples of
all of them.
"""

import math
from functools import partial

import numpy as np
import pytest

import ddbp
from layers import (
    GRU,
    BatchNorm,
    Dropout,
    Linear,
    MeanSquaredError,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)

from . import small
from .small import DATA, LABELS, X, parameters

# Gradients of groups are compared to rounding, so in double precision unless said.
network = partial(small.network, dtype=np.float64)
make = partial(small.make, dtype=np.float64, batch_size=10)
SAMPLES = len(X)
RNG = np.random.default_rng(6)
SEQUENCES = ddbp.ArrayDataset(
    RNG.standard_normal((SAMPLES, 7, 4)), RNG.standard_normal((SAMPLES, 7, 2))
)


def close(found, expected, dtype=np.float64):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2000 * np.finfo(dtype).eps)


class Steps(ddbp.Callback):
    """Writes down the steps that it is told of."""

    def __init__(self):
        self.steps, self.planned = [], None

    def on_fit_begin(self, trainer, epochs, steps_per_epoch):
        self.planned = steps_per_epoch

    def on_step_end(self, trainer, step, loss):
        self.steps.append((step, loss))


# Groups of fit

OPTIONS = {
    "plain": {},
    "Adam with a schedule": {"optimizer": lambda: ddbp.Adam(ddbp.Cosine(0.01, steps=9))},
    "clipping and penalties": {"clip_norm": 0.3, "clip_value": 0.1, "l1": 1e-3, "l2": 1e-2},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shards", [1, 4])
def test_batches_of_a_group_are_as_one_large_batch(name, dtype, shards):
    results = []
    for batch_size, accumulate in ((30, 1), (10, 3)):
        steps = Steps()
        options = {
            **OPTIONS[name],
            "optimizer": OPTIONS[name].get("optimizer", lambda: ddbp.SGD(0.1, momentum=0.9))(),
        }
        # Masks are those of the samples of the large batch; its last one has 23, in batches of 10,
        # 10 and 3.
        model = network(Dropout(0.3), dtype=dtype)
        trainer = make(
            model,
            batch_size=batch_size,
            accumulate=accumulate,
            shards=shards,
            callbacks=[steps],
            **options,
        )
        history = trainer.fit(DATA, epochs=3)
        assert (steps.planned, [step for step, _ in steps.steps], trainer.step_count) == (
            3,
            list(range(1, 10)),
            9,
        )
        results.append(
            (
                parameters(trainer),
                [loss for _, loss in steps.steps],
                [record["loss"] for record in history],
            )
        )
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected, dtype)


def test_losses_of_an_epoch_weigh_groups_by_their_samples():
    trainer = make(optimizer=ddbp.SGD(0.0), accumulate=4)
    (record,) = trainer.fit(DATA, epochs=1)
    assert record["loss"] == pytest.approx(trainer.evaluate(DATA)["loss"], rel=1e-14)


def test_group_ends_with_the_epoch():
    one, many = make(batch_size=83), make(batch_size=10, accumulate=1000)
    for trainer in (one, many):
        trainer.fit(DATA, epochs=2)
        assert trainer.step_count == 2
    close(parameters(many), parameters(one))


@pytest.mark.parametrize("steps", [3, 7])
def test_windows_of_all_batches_of_a_group_are_one_step(steps):
    results = []
    for batch_size, accumulate in ((30, 1), (10, 3)):
        rng = np.random.default_rng(1)
        model = Sequential(
            GRU(4, 5, rng=rng, dtype=np.float64), Tanh(), Linear(5, 2, rng=rng, dtype=np.float64)
        )
        callback = Steps()
        options = {
            "loss": MeanSquaredError(),
            "truncate": steps,
            "callbacks": [callback],
            "shards": 2,
        }
        trainer = make(model, batch_size=batch_size, accumulate=accumulate, **options)
        (record,) = trainer.fit(SEQUENCES, epochs=1)
        assert trainer.step_count == callback.planned == 3 * -(-7 // steps)
        results.append((parameters(trainer), [loss for _, loss in callback.steps], record["loss"]))
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected)


def test_mean_over_labels_that_count_is_exact_over_a_group():
    labels = np.where(np.arange(SAMPLES) % 7 < np.arange(SAMPLES) // 12, -1, LABELS)
    # The first batches are without, and one with hardly any labels that count.
    labels[:10] = labels[11:20] = -1
    results = []
    for sizes in ([SAMPLES], [10, 10, 30, 33]):
        trainer = make(loss=SoftmaxCrossEntropy(ignore=-1))
        rows = np.split(np.arange(SAMPLES), np.cumsum(sizes)[:-1])
        for part in rows[:-1]:
            with trainer.no_sync():
                trainer.train_step(X[part], labels[part])
        loss = trainer.train_step(X[rows[-1]], labels[rows[-1]])
        results.append((parameters(trainer), loss))
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected)
    close(results[1][1], SoftmaxCrossEntropy()(network()(X[labels >= 0]), LABELS[labels >= 0]))


# Loops


def test_loop_has_the_bits_of_fit():
    fitted, looped = (
        make(network(Dropout(0.3), BatchNorm(16, dtype=np.float64)), accumulate=3) for _ in range(2)
    )
    history = fitted.fit(DATA, epochs=2)
    losses = [
        looped.step(looped.loss(looped.model(batch.x), batch.y))
        for batch in looped.batches(DATA, epochs=2)
    ]
    assert looped.parameters_sha256() == fitted.parameters_sha256()
    # 83 samples are nine batches an epoch: groups of 30, 30 and 23.
    assert [number for number, loss in enumerate(losses) if not math.isnan(loss)] == [
        2,
        5,
        8,
        11,
        14,
        17,
    ]
    means = [loss for loss in losses[9:] if not math.isnan(loss)]
    assert np.average(means, weights=[30, 30, 23]) == pytest.approx(history[-1]["loss"], rel=1e-14)


def test_no_sync_has_the_bits_of_accumulate():
    counted, held = make(accumulate=3, shards=4), make(shards=4)
    for batch in counted.batches(DATA):
        counted.step(counted.loss(counted.model(batch.x), batch.y))
    for number, batch in enumerate(held.batches(DATA), 1):
        loss = held.loss(held.model(batch.x), batch.y)
        if number % 3:
            before = held.parameters_sha256()
            with held.no_sync():
                assert math.isnan(held.step(loss))
            assert held.parameters_sha256() == before
        else:
            assert math.isfinite(held.step(loss))
    assert held.step_count == counted.step_count == 3
    assert held.parameters_sha256() == counted.parameters_sha256()


@pytest.mark.parametrize("sizes", [[10, 10], [5, 20], [20, 5, 11], [1, 30]])
@pytest.mark.parametrize("own", [False, True])
def test_batches_of_any_sizes_count_by_their_samples(sizes, own):
    results = []
    for parts in ([sum(sizes)], sizes):
        trainer = make(optimizer=ddbp.SGD(1.0))
        for number, rows in enumerate(np.split(np.arange(sum(parts)), np.cumsum(parts)[:-1]), 1):
            batch = trainer.batch(X[rows], LABELS[rows])
            y = trainer.model(batch.x)
            # A loss of the user's own has no sums of shards.
            loss = (y**2).sum() / batch.samples if own else trainer.loss(y, batch.y)
            if number < len(parts):
                with trainer.no_sync():
                    trainer.step(loss)
            else:
                value = trainer.step(loss)
        results.append((parameters(trainer), value))
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected)


def test_what_accumulated_in_one_epoch_joins_the_next_update():
    trainer, reference = make(), make()
    with trainer.no_sync():
        for batch in trainer.batches(ddbp.ArrayDataset(X[:10], LABELS[:10])):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    assert trainer.step_count == 0
    trainer.evaluate(DATA)
    trainer.train_step(X[10:20], LABELS[10:20])
    reference.train_step(X[:20], LABELS[:20])
    close(parameters(trainer), parameters(reference))


def test_running_statistics_learn_from_every_batch_in_order():
    accumulating, stepping = (
        make(network(BatchNorm(16, dtype=np.float64)), optimizer=ddbp.SGD(0.0)) for _ in range(2)
    )
    for start in range(0, 40, 10):
        stepping.train_step(X[start : start + 10], LABELS[start : start + 10])
    with accumulating.no_sync():
        for start in range(0, 30, 10):
            accumulating.train_step(X[start : start + 10], LABELS[start : start + 10])
    assert not np.any(accumulating.model[2].running_mean.value)
    accumulating.train_step(X[30:40], LABELS[30:40])
    assert accumulating.parameters_sha256() == stepping.parameters_sha256()


def test_contexts_may_be_nested_and_end_with_an_error():
    trainer = make()
    with trainer.no_sync():
        with trainer.no_sync():
            pass
        assert math.isnan(trainer.train_step(X[:10], LABELS[:10]))
    with pytest.raises(KeyError), trainer.no_sync():
        raise KeyError
    assert math.isfinite(trainer.train_step(X[:10], LABELS[:10]))


def test_optimizer_takes_one_step_for_a_group():
    trainer = make(accumulate=4)
    trainer.fit(DATA, epochs=1)
    assert trainer.optimizer.steps == trainer.step_count == 3


def test_loss_that_is_not_finite_is_refused_by_the_update_that_names_its_batch():
    trainer = make()
    x = X.copy()
    x[3] = np.nan
    with trainer.no_sync():
        assert np.isnan(trainer.train_step(x[:10], LABELS[:10]))
    text = r"nan in step 0; .*Linear.* was given nan, in sample 3 of the batch\. Drop"
    with pytest.raises(FloatingPointError, match=text):
        trainer.train_step(X[:10], LABELS[:10])


# Bad input


@pytest.mark.parametrize("accumulate", [0, -1, 1.5, True, None])
def test_number_of_batches_that_is_no_positive_integer_is_refused(accumulate):
    with pytest.raises(
        ValueError,
        match=(
            r"Trainer: accumulate must be a positive integer; got .*\. accumulate=1 is the least\."
        ),
    ):
        make(accumulate=accumulate)


def test_update_of_a_batch_of_another_size_needs_step():
    trainer = make()
    with trainer.no_sync():
        trainer.train_step(X[:10], LABELS[:10])
    batch = trainer.batch(X[10:15], LABELS[10:15])
    loss = trainer.loss(trainer.model(batch.x), batch.y)
    loss.backward()
    with pytest.raises(
        ValueError,
        match=r"Trainer.update: .* got 5 samples after 10\. Call trainer.step\(loss\) instead",
    ):
        trainer.update(loss)


def test_fit_within_no_sync_is_refused():
    trainer = make()
    with (
        pytest.raises(
            ValueError,
            match=(
                r"Trainer.fit: fit decides itself when to update; got a call within no_sync\(\)\. "
            ),
        ),
        trainer.no_sync(),
    ):
        trainer.fit(DATA, epochs=1)


def test_windows_of_a_single_batch_do_not_accumulate():
    rng = np.random.default_rng(1)
    trainer = make(
        GRU(4, 2, rng=rng, dtype=np.float64), loss=MeanSquaredError(), truncate=3, accumulate=2
    )
    with pytest.raises(
        ValueError,
        match=(
            r"Trainer.train_step: windows of one batch cannot accumulate.*; got accumulate=2\."
            r" Use fit"
        ),
    ):
        trainer.train_step(SEQUENCES.x[:10], SEQUENCES.y[:10])
