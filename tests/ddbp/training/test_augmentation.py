"""Training on augmented samples, and on batches that a thread makes ahead."""

import json
import threading
import time

import numpy as np
import pytest

import ddbp
from ddbp.data.augment import Augmentation, Crop, CutOut, Flip, MixUp, Noise
from ddbp.data.prefetch import Prefetch
from ddbp.training.progress import summary
from layers import Flatten, Sequential

from .small import DATA, LABELS, X, make, network

AUGMENT = [Noise(0.3), MixUp(0.4, classes=3)]


class Broken(Augmentation):
    """Fails from an epoch on."""

    def apply(self, y, x, keys):
        if keys.epoch > 0:
            raise OSError("the file has gone")
        y[...] = x


def threads():
    return [each for each in threading.enumerate() if each.name == "ddbp-prefetch"]


def seen(augment, batch_size=20, epochs=2, **options):
    """Return what a loop gets of each sample in each epoch, inputs and targets."""
    trainer = make(augment=augment, batch_size=batch_size, **options)
    x, y = np.empty((epochs, *X.shape), np.float32), np.empty((epochs, 83, 3))
    for batch in trainer.batches(DATA, epochs=epochs):
        numbers = batch.tape.numbers
        x[trainer.epoch, numbers] = batch.x.array
        y[trainer.epoch, numbers] = batch.y
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    return x, y


def test_sample_is_the_same_in_batches_of_any_size_and_another_in_each_epoch():
    x, y = seen(AUGMENT)
    for options in ({"batch_size": 7}, {"batch_size": 33, "prefetch": True}, {"shards": 3}):
        for mine, theirs in zip((x, y), seen(AUGMENT, **options), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert (x[0] != x[1]).any(axis=1).all()
    assert (x[0] != seen(AUGMENT, seed=1)[0][0]).any(axis=1).all()


def test_evaluation_prediction_and_batches_of_your_own_are_not_augmented():
    plain, other = make(), make(augment=AUGMENT)
    assert plain.evaluate(DATA) == other.evaluate(DATA)
    np.testing.assert_array_equal(plain.predict(X), other.predict(X))
    assert plain.train_step(X[:20], LABELS[:20]) == other.train_step(X[:20], LABELS[:20])
    assert plain.parameters_sha256() == other.parameters_sha256()
    plain.fit(DATA, epochs=1)
    other.fit(DATA, epochs=1)
    assert plain.parameters_sha256() != other.parameters_sha256()


def test_samples_of_a_source_that_are_made_ahead_have_the_bits_of_those_in_memory():
    trainers = [make(augment=AUGMENT, prefetch=prefetch) for prefetch in (False, True)]
    for trainer, data in zip(trainers, (DATA, ddbp.data.ArraySource(X, LABELS)), strict=True):
        trainer.fit(data, epochs=2)
    assert trainers[0].parameters_sha256() == trainers[1].parameters_sha256()


def test_a_source_is_read_by_one_thread_at_a_time():
    class One(ddbp.data.Source):
        """Cannot be read twice at once, as a file with a place in it."""

        def __init__(self):
            self.reads, self.readers = 0, set()

        def __len__(self):
            return len(X)

        def take(self, numbers):
            self.reads += 1
            assert self.reads == 1, "is being read"
            self.readers.add(threading.current_thread().name)
            time.sleep(0.002)
            self.reads -= 1
            return ddbp.data.Rows(X[numbers], LABELS[numbers])

    class Look(ddbp.Callback):
        def on_step_begin(self, trainer, step):
            trainer.evaluate(validation)

    source = One()
    training, validation = ddbp.data.split(source, (0.7, 0.3), seed=0)
    callbacks = [Look(), ddbp.Instruments(every=1), ddbp.Doctor()]
    make(prefetch=True, callbacks=callbacks).fit(training, epochs=2, validation=validation)
    assert source.readers == {"MainThread", "ddbp-prefetch"}


def test_an_augmentation_of_your_own_is_applied():
    class Negative(Augmentation):
        def apply(self, y, x, keys):
            np.multiply(x, -1, out=y)

    x, _ = seen([Negative(), MixUp(0.2, classes=3), Negative()], epochs=1)
    y, _ = seen([Noise(1e-30), MixUp(0.2, classes=3)], epochs=1)
    np.testing.assert_allclose(x, y, atol=1e-6)


def test_options_are_in_the_run_folder_and_a_state_belongs_to_them(tmp_path):
    trainer = make(augment=AUGMENT, run_dir=tmp_path, callbacks=[ddbp.Checkpoints()])
    trainer.fit(DATA, epochs=1)
    written = json.loads((tmp_path / "config.json").read_text())["augment"]
    assert written == ["Noise(deviation=0.3)", "MixUp(alpha=0.4, classes=3)"]
    assert list(ddbp.TrainerOptions.read(tmp_path).augment) == AUGMENT
    with pytest.raises(ValueError, match=r"same augment; got .*Noise.* in the state, .*0.4.* here"):
        make(augment=[Noise(0.4)], run_dir=tmp_path, resume="auto")


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 3}, {"drop_last": True}, {"augment": AUGMENT, "shards": 4}],
    ids=repr,
)
def test_batches_that_are_made_ahead_have_the_same_bits(options):
    digests = []
    for prefetch in (False, True):
        trainer = make(prefetch=prefetch, **options)
        trainer.fit(DATA, epochs=3)
        digests.append(trainer.parameters_sha256())
        assert not threads()
    assert digests[0] == digests[1]


def test_batches_of_large_images_that_are_made_ahead_while_steps_are_slow_have_the_same_bits():
    # With one buffer in place of two the thread would write what the step reads.
    class Slow(ddbp.Callback):
        def on_phase(self, trainer, phase):
            for each in threads():
                each.join()

    rng = np.random.default_rng(3)
    data = ddbp.ArrayDataset(rng.standard_normal((83, 3, 2, 1)), LABELS)
    digests = []
    for options in ({}, {"prefetch": True, "callbacks": [Slow()]}):
        trainer = make(
            Sequential(Flatten(), network()), augment=[Flip(), Crop(1), CutOut(1)], **options
        )
        trainer.fit(data, epochs=2)
        digests.append(trainer.parameters_sha256())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("prefetch", [False, True])
def test_error_while_a_batch_is_made_comes_from_fit_with_its_own_traceback(prefetch):
    trainer = make(augment=[Broken()], prefetch=prefetch)
    with pytest.raises(OSError, match="the file has gone") as caught:
        trainer.fit(DATA, epochs=3)
    assert "apply" in [entry.name for entry in caught.traceback]
    assert trainer.step_count == 5
    for each in threads():
        each.join()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, ddbp.TrainingOver])
def test_thread_is_over_after_a_run_that_ends_early(error):
    class End(ddbp.Callback):
        def on_step_begin(self, trainer, step):
            if step == 7:
                raise error

    trainer = make(prefetch=True, augment=AUGMENT, callbacks=[End()])
    if error is ddbp.TrainingOver:
        trainer.fit(DATA, epochs=3)
        assert not threads()
    else:
        with pytest.raises(error):
            trainer.fit(DATA, epochs=3)
        for each in threads():
            each.join(10)
        assert not threads()


def test_leaving_a_loop_and_beginning_another_gives_its_own_batches():
    trainer, plain = make(prefetch=True), make()
    for each in (trainer, plain):
        for number, batch in enumerate(each.batches(DATA, epochs=3)):
            each.step(each.loss(each.model(batch.x), batch.y))
            if number == 6:
                break
    other = ddbp.ArrayDataset(X[::-1], LABELS[::-1])
    for each in (trainer, plain):
        each.fit(other, epochs=1)
    assert trainer.parameters_sha256() == plain.parameters_sha256()


def test_time_that_steps_wait_for_data_is_in_records_lines_and_timeline(
    tmp_path, capsys, monkeypatch
):
    asked, take = threading.Semaphore(0), Prefetch.take

    def taken(prefetch, *arguments):
        if prefetch._thread is not None:
            asked.release()
        return take(prefetch, *arguments)

    class Slow(Augmentation):
        def apply(self, y, x, keys):
            if threading.current_thread() in threads():
                # However long the step takes that is computed meanwhile.
                assert asked.acquire(timeout=60)
                time.sleep(0.02)
            y[...] = x

    monkeypatch.setattr(Prefetch, "take", taken)
    trainer = make(
        augment=[Slow()],
        prefetch=True,
        quiet=False,
        callbacks=[ddbp.Trace(tmp_path / "trace.json")],
    )
    (first, second) = trainer.fit(DATA, epochs=2)
    said = capsys.readouterr().err
    for record in (first, second):
        # Of the first batch of an epoch nothing is made ahead.
        assert 4 * 0.02 < record["data_seconds"] < record["seconds"]
        assert summary(record) in said
    share = first | {"seconds": 10.0, "data_seconds": 0.6}
    assert summary(share).endswith(", 6% of the time waiting for data")
    assert "waiting" not in summary(share | {"data_seconds": 0.4})
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    waits = [event for event in events if event["name"] == "wait: next batch"]
    assert len(waits) == 10
    assert sum(event["dur"] for event in waits) > 8 * 0.02 * 1e6
    assert "data_seconds" not in make().fit(DATA, epochs=1)[0]


def test_data_that_cannot_be_augmented_are_refused_before_a_step():
    trainer = make(augment=[Crop(2)])
    with pytest.raises(ValueError, match=r"Crop: samples must be images .*; got shape \(1, 6\)"):
        trainer.fit(DATA, epochs=1)
    trainer = make(augment=[MixUp()])
    with pytest.raises(ValueError, match=r"MixUp: .* Write MixUp\(classes=10\)"):
        next(iter(trainer.batches(DATA)))
    with pytest.raises(TypeError, match="Trainer: prefetch must be"):
        make(prefetch="yes")


def test_forks_train_on_augmented_samples_and_leave_the_run_as_it_was():
    trainer, plain = (make(augment=AUGMENT, prefetch=True) for _ in range(2))
    losses = []

    class Fork(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == 3:
                losses.extend([*trainer.fork(4), *trainer.fork(2, samples=9)])

    forked = make(augment=AUGMENT, prefetch=True, callbacks=[Fork()])
    for each in (trainer, forked):
        each.fit(DATA, epochs=2)
    plain.fit(DATA, epochs=1)
    assert trainer.parameters_sha256() == forked.parameters_sha256()
    assert len(losses) == 6
