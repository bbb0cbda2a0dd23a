"""Callbacks in `fit` and in custom loops, early stopping, and what schedules hear of a run."""

import math

import pytest

import ddbp
from ddbp import TrainingOver
from layers import TapeHook

from .small import DATA, LABELS, X, make

EVEN = ddbp.ArrayDataset(X[:80].astype("float32"), LABELS[:80])


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


class Protocol(ddbp.Callback):
    """Writes down steps, phases, evaluations and errors."""

    def __init__(self):
        self.lines = []

    def on_step_begin(self, trainer, step):
        assert step == trainer.step_count
        self.lines.append(f"step {step}")

    def on_phase(self, trainer, phase):
        self.lines.append(phase.name.lower())

    def on_step_end(self, trainer, step, loss):
        assert math.isfinite(loss)
        self.lines.append(f"after {step}")

    def on_evaluation_begin(self, trainer):
        self.lines.append("evaluation")

    def on_evaluation_end(self, trainer, values):
        self.lines.append(", ".join(values))

    def on_exception(self, trainer, error):
        self.lines.append(repr(error))


def whole_step(number):
    return [f"step {number}", "exchange", "update", "publish", f"after {number + 1}"]


def by_fit(trainer):
    trainer.fit(EVEN, epochs=1)


def by_step(trainer):
    for batch in trainer.batches(EVEN):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))


def by_update(trainer):
    for batch in trainer.batches(EVEN):
        loss = trainer.loss(trainer.model(batch.x), batch.y)
        loss.backward()
        trainer.update(loss)


def by_train_step(trainer):
    for start in range(0, len(EVEN), trainer.options.batch_size):
        rows = slice(start, start + trainer.options.batch_size)
        trainer.train_step(EVEN.x[rows], EVEN.y[rows])


LOOPS = [by_fit, by_step, by_update, by_train_step]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_kind_of_loop_tells_of_its_steps(loop, accumulate):
    protocol = Protocol()
    loop(make(callbacks=[protocol], batch_size=40 // accumulate, accumulate=accumulate))
    assert protocol.lines == [*whole_step(0), *whole_step(1)]


def test_evaluation_is_told_of_with_what_it_returns():
    protocol = Protocol()
    make(callbacks=[protocol]).evaluate(DATA)
    assert protocol.lines == ["evaluation", "loss, accuracy"]


def test_step_that_is_begun_again_after_an_error_is_told_of_once():
    protocol = Protocol()
    trainer = make(callbacks=[protocol], batch_size=40)
    batch = trainer.batch(EVEN.x[:40], EVEN.y[:40])
    loss = trainer.loss(trainer.model(batch.x), batch.y)
    with pytest.raises(ValueError, match="shape") as refused:
        trainer.step(loss, gradient=EVEN.x)
    by_train_step(trainer)
    assert protocol.lines == ["step 0", repr(refused.value), *whole_step(0)[1:], *whole_step(1)]


@pytest.mark.parametrize("loop", LOOPS)
def test_error_in_a_step_is_told_of_and_goes_on_to_the_caller(loop):
    protocol = Protocol()
    trainer = make(callbacks=[protocol])
    trainer.optimizer.step = None
    with pytest.raises(TypeError) as raised:
        loop(trainer)
    assert protocol.lines == [*whole_step(0)[:3], repr(raised.value)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("loop", LOOPS)
def test_an_interrupt_in_a_step_is_told_of_once(loop, error):
    protocol = Protocol()
    trainer = make(callbacks=[protocol])
    trainer.optimizer.step = raising(error)
    with pytest.raises(error) as raised:
        loop(trainer)
    assert protocol.lines == [*whole_step(0)[:3], repr(raised.value)]


def raising(error):
    def function(*arguments):
        raise error

    return function


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("event", ["on_run_begin", "on_epoch_begin", "on_epoch_end", "on_fit_end"])
def test_what_ends_fit_beside_its_steps_is_told_of_once(event, error):
    protocol = Protocol()
    trainer = make(callbacks=[protocol], batch_size=40)
    setattr(protocol, event, raising(error))
    with pytest.raises(error) as raised:
        trainer.fit(EVEN, epochs=1)
    assert protocol.lines[-1] == repr(raised.value)
    assert protocol.lines.count(repr(raised.value)) == 1


def test_what_ends_a_validation_is_told_of_and_its_step_is_not_to_blame(tmp_path):
    protocol = Protocol()
    trainer = make(callbacks=[protocol], batch_size=40, run_dir=tmp_path)
    protocol.on_evaluation_begin = raising(ValueError("no"))
    trainer._hooks = trainer._hooks._replace(evaluation_begin=(protocol.on_evaluation_begin,))
    with pytest.raises(ValueError, match="no") as raised:
        trainer.fit(EVEN, epochs=1, validation=EVEN)
    assert protocol.lines[-1] == repr(raised.value)
    assert not hasattr(raised.value, "__notes__")


@pytest.mark.parametrize("loop", LOOPS)
def test_error_when_a_step_begins_is_told_of_once(loop):
    class Refuses(ddbp.Callback):
        def on_step_begin(self, trainer, step):
            raise RuntimeError("refused")

    protocol = Protocol()
    with pytest.raises(RuntimeError, match="refused") as raised:
        loop(make(callbacks=[protocol, Refuses()]))
    assert protocol.lines == ["step 0", repr(raised.value)]


def test_error_in_making_a_batch_is_told_of():
    protocol = Protocol()
    trainer = make(callbacks=[protocol])
    for take in (trainer.batch, trainer.train_step):
        with pytest.raises(TypeError):
            take(None, None)
    assert [line.partition("(")[0] for line in protocol.lines] == ["TypeError"] * 2


class OverAfterThree(ddbp.Callback):
    """Ends training before the fourth step, of which nobody is told as of an error."""

    def on_exception(self, trainer, error):
        raise AssertionError

    def on_step_begin(self, trainer, step):
        if step == 3:
            raise TrainingOver


@pytest.mark.parametrize("loop", [by_fit, by_step, by_update])
def test_hook_may_end_fit_and_batches(loop):
    trainer = make(callbacks=[OverAfterThree()])
    for _ in range(2):
        loop(trainer)
    assert trainer.step_count == 3


def test_fit_that_a_hook_ends_records_what_it_has_seen():
    losses = []

    class Losses(OverAfterThree):
        def on_step_end(self, trainer, step, loss):
            losses.append(loss)

    trainer = make(callbacks=[Losses()])
    (record,) = trainer.fit(EVEN, epochs=5)
    assert record["loss"] == pytest.approx(sum(losses) / 3)
    assert (record["step"], len(losses)) == (3, 3)
    (record,) = trainer.fit(EVEN, epochs=5)
    assert math.isnan(record["loss"])


def test_hook_ends_a_loop_of_single_batches_with_the_script():
    trainer = make(callbacks=[OverAfterThree()])
    with pytest.raises(SystemExit) as ended:
        by_train_step(trainer)
    assert ended.value.code == 0
    assert trainer.step_count == 3


def test_callback_may_watch_the_tape():
    class Calls(ddbp.Callback, TapeHook):
        begun = ended = ready = 0

        def on_forward_begin(self, call):
            self.begun += 1

        def on_backward_end(self, call):
            self.ended += 1

        def on_parameter_ready(self, parameter):
            self.ready += 1

    class Passes(TapeHook):
        number = 0

        def on_backward_pass_end(self, tape):
            self.number += 1

    calls, passes = Calls(), Passes()
    trainer = make(callbacks=[calls, passes])
    by_step(trainer)
    # Two dense layers, one of them with its ReLU, and the loss.
    assert (calls.begun, calls.ended, calls.ready, passes.number) == (12, 12, 16, 4)
    trainer.evaluate(EVEN)
    assert (calls.begun, calls.ended) == (24, 12)


@pytest.mark.parametrize(
    ("callback", "fix"),
    [(ddbp.EarlyStopping, r"Make one: EarlyStopping\("), (print, r"Derive from ddbp\.Callback")],
)
def test_what_cannot_be_told_of_anything_is_refused(callback, fix):
    with pytest.raises(TypeError, match=f"must be Callback or TapeHook objects; got .*{fix}"):
        make(callbacks=[callback])


def test_callback_outside_a_list_is_refused():
    with pytest.raises(TypeError, match=r"got <.*Diary .*>\. Pass a list: callbacks=\[\.\.\.\]\."):
        make(callbacks=Diary())


def test_callbacks_may_come_from_an_iterator():
    diary = Diary()
    make(callbacks=iter([diary])).fit(DATA, epochs=1)
    assert diary.lines[-1] == ("end", 1)


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
    trainer = make(optimizer=ddbp.SGD(schedule))
    trainer.fit(DATA, epochs=4, validation=DATA)
    assert trainer.optimizer.schedule.rate(0) == 1e-30 / 8


def test_checkpoints_are_told_of_before_and_after(tmp_path):
    class Watching(ddbp.Callback):
        def __init__(self):
            self.lines = []

        def on_checkpoint_begin(self, trainer, step):
            found = [path.name for path in tmp_path.glob("checkpoints/step-*")]
            self.lines.append(("begin", step, len(found)))

        def on_checkpoint_end(self, trainer, step):
            found = [path.name for path in tmp_path.glob("checkpoints/step-*")]
            self.lines.append(("end", step, len(found)))

    watching = Watching()
    checkpoints = ddbp.Checkpoints(every_steps=2, background=False)
    make(callbacks=[checkpoints, watching], run_dir=tmp_path).fit(DATA, epochs=1)
    assert watching.lines == [("begin", 2, 0), ("end", 2, 1), ("begin", 4, 1), ("end", 4, 2)]
