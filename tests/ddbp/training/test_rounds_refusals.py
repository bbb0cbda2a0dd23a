"""What workers that train apart cannot do is refused."""

import numpy as np
import pytest

import ddbp
from ddbp.comm.serial import SerialCommunicator

from .exchanges import EVEN
from .small import DATA, LABELS, X, make


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exchange": ddbp.LocalSGD(3, 4)}, "batch_size must be a multiple of the 3 workers"),
        ({"exchange": ddbp.LocalSGD({0: 4, 9: 6}, 4)}, "multiple of the 6 workers"),
        ({"accumulate": 2}, "a worker updates by each batch"),
        ({"truncate": 2}, "a worker takes whole sequences"),
        ({"loss_scale": ddbp.LossScale()}, "a worker has no loss scale"),
        ({"precision": "float16"}, "no loss scale, which float16 needs; got precision='float16'"),
        ({"rule": "feedback_alignment"}, "workers learn by backpropagation; got rule="),
        ({"on_nonfinite": "skip"}, "workers stop at numbers that are not finite"),
        ({"shards": 8}, "shards must be left out, as each of the 4 workers is one"),
        ({"exchange": ddbp.DiLoCo(4, 4, bits=8), "wire": "float16"}, "wire and bits"),
        ({"exchange": ddbp.DiLoCo(4, 4, bits=8), "compression": "sign"}, "compression and bits"),
        ({"exchange": "LocalSGD(4"}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": "LocalSGD(4, often=3)"}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": "LocalSGD(four, 4)"}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": 4}, "exchange must be a LocalSGD or a DiLoCo"),
        ({"exchange": ddbp.DiLoCo(4, 5, fragments=5)}, "a parameter for each fragment"),
        ({"callbacks": [ddbp.Instruments()]}, "instruments and a doctor"),
        ({"doctor": True}, "instruments and a doctor"),
    ],
    ids=str,
)
def test_what_workers_that_train_apart_have_no_use_for_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        make(**{"exchange": ddbp.LocalSGD(4, 4), **options})


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (ddbp.LocalSGD, {"workers": 0, "every": 4}, "workers"),
        (ddbp.LocalSGD, {"workers": {1: 4}, "every": 4}, "from exchange 0 on"),
        (ddbp.LocalSGD, {"workers": {0: 4, 3: 0}, "every": 4}, "workers"),
        (ddbp.LocalSGD, {"workers": 4, "every": 0}, "every"),
        (ddbp.LocalSGD, {"workers": 4, "every": 4, "after": -1}, "after"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "outer_rate": 0.0}, "outer_rate"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "outer_momentum": 1.0}, "outer_momentum"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "fragments": 3}, "a multiple of fragments"),
        (ddbp.DiLoCo, {"workers": 4, "every": 4, "bits": 3}, "bits must be 4 or 8"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(kind, options, text):
    with pytest.raises(ValueError, match=text):
        kind(**options)


def test_more_ranks_than_workers_are_refused():
    options = ddbp.TrainerOptions(batch_size=20, exchange=ddbp.LocalSGD({0: 4, 3: 2}, 4))
    assert options.on(2).shards == 4
    said = "2 workers allow at most 2 ranks; got 3. Start at most 2 ranks, or write more workers."
    with pytest.raises(ValueError, match=said):
        options.on(3)


def test_a_last_batch_too_small_for_all_workers_is_refused_before_training():
    trainer = make(exchange=ddbp.LocalSGD(4, 4))
    with pytest.raises(ValueError, match="a sample for each of the 4 workers"):
        trainer.fit(DATA, epochs=1)
    assert trainer.step_count == 0
    make(exchange=ddbp.LocalSGD(4, 4), drop_last=True).fit(DATA, epochs=1)


def test_a_batch_that_is_given_must_have_a_sample_for_each_worker():
    trainer = make(exchange=ddbp.LocalSGD(4, 2))
    before = trainer.parameters_sha256()
    with pytest.raises(ValueError, match="the batch must have a sample for each of the 4 workers"):
        trainer.train_step(X[:3], LABELS[:3])
    trainer.end_round()
    assert trainer.parameters_sha256() == before
    trainer.train_step(X[:4], LABELS[:4])


def test_calls_that_are_for_gradients_of_all_are_refused():
    trainer = make(exchange=ddbp.LocalSGD(4, 4))
    for call in (trainer.no_sync, lambda: trainer.batch(X[:20], LABELS[:20])):
        with pytest.raises(RuntimeError, match="workers that train apart"):
            call()
    trainer.fit(EVEN, epochs=1)
    assert not trainer.forkable
    with pytest.raises(RuntimeError, match="exchange gradients"):
        trainer.fork(2)
    trainer.model.parameters()[0].trainable = False
    with pytest.raises(RuntimeError, match="frozen before the trainer is made"):
        trainer.fit(EVEN, epochs=1)


def test_ranks_that_survive_each_other_are_refused(monkeypatch):
    monkeypatch.setattr(SerialCommunicator, "survives", True)
    with pytest.raises(ValueError, match="workers that train apart need ranks that stay"):
        make(exchange=ddbp.LocalSGD(4, 4))


def test_numbers_that_are_not_finite_stop_the_run():
    spoilt = X[:80].copy()
    spoilt[3] = 1e30
    trainer = make(exchange=ddbp.LocalSGD(4, 4), optimizer=ddbp.SGD(1e6))
    with pytest.raises(FloatingPointError):
        trainer.fit(ddbp.ArrayDataset(spoilt, LABELS[:80]), epochs=3)


@pytest.mark.parametrize("exchange", [ddbp.LocalSGD(4, 2), ddbp.DiLoCo(4, 4, fragments=2)], ids=str)
def test_outer_gradients_too_large_for_float16_are_found_before_the_update(exchange):
    trainer = make(exchange=exchange, compression="float16", optimizer=ddbp.SGD(1e7))
    before = trainer._flat.values.copy()
    text = 'compression="float16" needs sums of gradients of at most 65504; got larger .* in step 0'
    with pytest.raises(FloatingPointError, match=text):
        trainer.fit(EVEN, epochs=1)
    shared = np.concatenate([each.values for each in trainer._update._fragments])
    np.testing.assert_array_equal(shared, before)
