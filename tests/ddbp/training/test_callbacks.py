"""Callbacks, early stopping, and what schedules hear of a run."""

import ddbp

from .small import DATA, make


class Diary(ddbp.Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.lines = []

    def on_fit_begin(self, trainer, epochs, steps_per_epoch):
        self.lines.append(("fit", epochs, steps_per_epoch))

    def on_epoch_begin(self, trainer, epoch):
        self.lines.append(("epoch", epoch))

    def on_step_end(self, trainer, step, loss):
        self.lines.append(("step", step))

    def on_epoch_end(self, trainer, record):
        record["note"] = record["epoch"] * 10
        self.lines.append(("end of epoch", record["epoch"]))

    def on_fit_end(self, trainer, history):
        self.lines.append(("end", len(history)))


def test_callbacks_are_told_of_everything_in_order():
    diary = Diary()
    make(callbacks=[diary], batch_size=40).fit(DATA, epochs=2)
    steps = [("step", step) for step in range(1, 7)]
    epochs = [
        ("epoch", 1),
        *steps[:3],
        ("end of epoch", 1),
        ("epoch", 2),
        *steps[3:],
        ("end of epoch", 2),
    ]
    assert diary.lines == [("fit", 2, 3), *epochs, ("end", 2)]


def test_callback_may_add_to_the_record():
    history = make(callbacks=[Diary()]).fit(DATA, epochs=2)
    assert [record["note"] for record in history] == [10, 20]


def test_callback_may_stop_the_run():
    class Stop(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            trainer.stop = record["epoch"] == 2

    assert len(make(callbacks=[Stop()]).fit(DATA, epochs=10)) == 2


def test_early_stopping_waits_for_its_patience():
    trainer = make(optimizer=ddbp.SGD(0.0), callbacks=[ddbp.EarlyStopping(patience=3)])
    # Nothing improves after the first epoch, so it ends after three more.
    assert len(trainer.fit(DATA, epochs=20, validation=DATA)) == 4


def test_early_stopping_lets_progress_go_on():
    trainer = make(optimizer=ddbp.SGD(0.01), callbacks=[ddbp.EarlyStopping(patience=1)])
    assert len(trainer.fit(DATA, epochs=6, validation=DATA)) == 6


def test_plateau_hears_of_the_validation_loss():
    schedule = ddbp.Plateau(1e-30, factor=0.5, patience=0)
    make(optimizer=ddbp.SGD(schedule)).fit(DATA, epochs=4, validation=DATA)
    assert schedule.rate(0) == 1e-30 / 8
