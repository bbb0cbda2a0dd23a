"""Callbacks that watch a number of the records: early stopping, and the best weights."""

from functools import partial

import numpy as np
import pytest

import ddbp
from layers import BatchNorm

from .small import DATA, make, network


class Scores(ddbp.Callback):
    """Adds given scores to the records, and remembers the digests of the epochs' ends."""

    def __init__(self, *scores):
        self.scores = scores
        self.digests = []

    def on_epoch_end(self, trainer, record):
        record["score"] = self.scores[(record["epoch"] - 1) % len(self.scores)]
        self.digests.append(trainer.parameters_sha256())


def test_early_stopping_over_several_folds_begins_anew_with_each():
    stopping, lengths = ddbp.EarlyStopping(patience=3), []
    for _ in range(4):
        trainer = make(optimizer=ddbp.SGD(0.0), callbacks=[stopping])
        lengths.append(len(trainer.fit(DATA, epochs=20, validation=DATA)))
    assert lengths == [4, 4, 4, 4]


def test_second_fit_of_a_trainer_that_was_stopped_goes_on_training():
    trainer = make(optimizer=ddbp.SGD(0.0), callbacks=[ddbp.EarlyStopping(patience=3)])
    assert [len(trainer.fit(DATA, epochs=20)) for _ in range(3)] == [4, 4, 4]
    assert trainer.stop


def test_run_begins_once_and_not_where_it_goes_on_from_a_state():
    class Begins(ddbp.Callback):
        def __init__(self):
            self.lines = []

        def on_run_begin(self, trainer):
            self.lines.append("run")

        def on_fit_begin(self, trainer, epochs, steps_per_epoch):
            self.lines.append("fit")

        def on_epoch_end(self, trainer, record):
            self.snapshot = trainer.state()
            trainer.stop = True

    first, second = Begins(), Begins()
    make(callbacks=[first]).fit(DATA, epochs=2)
    first.snapshot.values["trainer.stop"] = False
    trainer = make(callbacks=[second])
    trainer.load_state(first.snapshot)
    trainer.fit(DATA, epochs=2)
    assert first.lines == ["run", "fit"]
    assert second.lines == ["fit"]


def test_early_stopping_for_a_score_waits_for_a_greater_one():
    scores = Scores(1, 3, 2, 3, 2.5, 9)
    stopping = ddbp.EarlyStopping(monitor="score", mode="max", patience=3)
    assert len(make(callbacks=[scores, stopping]).fit(DATA, epochs=20)) == 5
    assert stopping.best == 3


def test_accuracy_is_best_where_it_is_greatest():
    stopping = ddbp.EarlyStopping(monitor="validation_accuracy", patience=2)
    history = make(callbacks=[stopping]).fit(DATA, epochs=8, validation=DATA)
    assert stopping.best == max(record["validation_accuracy"] for record in history)


@pytest.mark.parametrize("shards", [1, 3])
def test_best_weights_are_put_back_at_the_end_of_fit(shards, tmp_path):
    scores, path = Scores(5, 2, 3, 2, 4), tmp_path / "best.safetensors"
    best = ddbp.BestWeights("score", mode="min", path=path)
    trainer = make(
        network(BatchNorm(16, synchronized=True)),
        callbacks=[scores, best],
        shards=shards,
        run_dir=tmp_path,
    )
    trainer.fit(DATA, epochs=5)
    assert (best.best, best.epoch) == (2, 2)
    assert len(set(scores.digests)) == 5
    assert trainer.parameters_sha256() == scores.digests[1]
    for file in (path, tmp_path / "model.safetensors"):
        model = network(BatchNorm(16, synchronized=True))
        ddbp.load_parameters(model, file)
        assert make(model).parameters_sha256() == scores.digests[1]


def test_best_weights_of_each_fit_are_its_own():
    scores = Scores(1, 2, 9, 8)
    trainer = make(callbacks=[scores, ddbp.BestWeights("score", mode="min")])
    for best in (0, 3):
        trainer.fit(DATA, epochs=2)
        assert trainer.parameters_sha256() == scores.digests[best]


def test_best_weights_may_stay_where_they_are():
    scores = Scores(1, 2, 3)
    best = ddbp.BestWeights("score", mode="min", restore=False)
    trainer = make(callbacks=[scores, best])
    trainer.fit(DATA, epochs=3)
    assert best.epoch == 1
    assert trainer.parameters_sha256() == scores.digests[-1]


def test_early_stopping_puts_the_best_weights_back_if_asked():
    scores = Scores(1, 2, 0, -1)
    stopping = ddbp.EarlyStopping(
        monitor="score", mode="max", patience=2, restore_best_weights=True
    )
    trainer = make(callbacks=[scores, stopping])
    assert len(trainer.fit(DATA, epochs=9)) == 4
    assert trainer.parameters_sha256() == scores.digests[1]


def test_value_that_is_no_number_yet_is_no_improvement():
    stopping = ddbp.EarlyStopping(monitor="score", mode="min", patience=2)
    with pytest.warns(RuntimeWarning, match="^EarlyStopping: .* got 'score', which was NaN"):
        assert len(make(callbacks=[Scores(np.nan), stopping]).fit(DATA, epochs=9)) == 2


@pytest.mark.parametrize("kind", [ddbp.EarlyStopping, ddbp.BestWeights])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"monitor": "score"}, "mode must be given for 'score'"),
        ({"monitor": "score", "mode": "greatest"}, "mode must be one of min, max"),
        ({"delta": -1}, "delta must not be negative"),
    ],
)
def test_what_is_best_must_be_known(kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(**options)


@pytest.mark.parametrize("kind", [ddbp.EarlyStopping, ddbp.BestWeights])
def test_monitor_that_is_no_number_of_the_record_is_refused_with_those_that_are(kind):
    trainer = make(callbacks=[Scores("high"), kind(monitor="score", mode="max")])
    with pytest.raises(ValueError, match=r"got 'score'\. It has epoch, step, loss"):
        trainer.fit(DATA, epochs=1)


@pytest.mark.parametrize(
    "kind",
    [
        ddbp.BestWeights,
        partial(ddbp.EarlyStopping, restore_best_weights=True),
    ],
)
def test_monitor_that_is_always_nan_is_warned_of_once(kind):
    callbacks = [Scores(np.nan, np.nan), kind(monitor="score", mode="max")]
    with pytest.warns(RuntimeWarning, match="'score', which was NaN in all") as warned:
        make(callbacks=callbacks).fit(DATA, epochs=2)
    assert len(warned) == 1


@pytest.mark.filterwarnings("error")
def test_monitor_that_is_a_number_later_is_not_warned_of():
    make(callbacks=[Scores(np.nan, 1, np.nan), ddbp.BestWeights("score", mode="max")]).fit(
        DATA, epochs=3
    )


def test_callbacks_show_their_options():
    class Own(ddbp.EarlyStopping):
        def __init__(self, often):
            super().__init__(patience=often)

    assert repr(ddbp.EarlyStopping(patience=2, delta=1)) == (
        "EarlyStopping(patience=2, monitor=None, mode=None, delta=1.0, restore_best_weights=False)"
    )
    assert repr(ddbp.BestWeights("loss", path="x")) == (
        "BestWeights(monitor='loss', mode=None, delta=0.0, restore=True)"
    )
    assert "every_steps=3, " in repr(ddbp.Checkpoints(every_steps=3))
    assert repr(Own(3)) == "Own()"
