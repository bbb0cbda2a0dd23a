"""States of trainers in one process: what goes on from them, and what is refused. On ranks:
tests/mpi/test_resume.py.
"""

import copy
import json
import re

import numpy as np
import pytest

import ddbp
from ddbp.snapshot import VERSION
from layers import (
    GRU,
    BatchNorm,
    Dropout,
    Linear,
    MeanSquaredError,
    Sequential,
    SoftmaxCrossEntropy,
)

from .small import DATA, LABELS, X, make, network

SEQUENCES = ddbp.ArrayDataset(
    np.random.default_rng(2).standard_normal((83, 7, 4)),
    np.random.default_rng(3).standard_normal((83, 7, 2)),
)


class StopError(Exception):
    """The run ends here."""


class Stop(ddbp.Callback):
    """Takes the state after a step, and ends the run."""

    def __init__(self, step):
        self.step, self.snapshot = step, None

    def on_step_end(self, trainer, step, loss):
        if step == self.step:
            self.snapshot = trainer.state()
            raise StopError


def stopped(step, data=DATA, epochs=3, callbacks=(), **options):
    """Return the state after a step of a fit."""
    stop = Stop(step)
    with pytest.raises(StopError):
        make(callbacks=[*callbacks, stop], **options).fit(data, epochs=epochs)
    return stop.snapshot


def through_json(snapshot):
    """Return a snapshot whose values have been written and read."""
    return ddbp.Snapshot(dict(snapshot.arrays), json.loads(json.dumps(snapshot.values)))


def changed(snapshot, **values):
    """Return a snapshot with other values; two underscores stand for a dot."""
    new = {name.replace("__", "."): value for name, value in values.items()}
    return ddbp.Snapshot(snapshot.arrays, snapshot.values | new)


def without_times(history):
    """Return records without what a clock has to say."""
    return [{name: v for name, v in record.items() if "second" not in name} for record in history]


# Going on


@pytest.mark.parametrize("step", [1, 5, 8, 15])
def test_fit_goes_on_to_the_records_of_the_undisturbed_one(step):
    whole, other = make(network(Dropout(0.25))), make(network(Dropout(0.25)))
    expected = whole.fit(DATA, epochs=3)
    other.load_state(through_json(stopped(step, model=network(Dropout(0.25)))))
    assert without_times(other.fit(DATA, epochs=3)) == without_times(expected)
    assert other.parameters_sha256() == whole.parameters_sha256()
    # What comes after it is another run, as it is after any.
    assert [record["epoch"] for record in other.fit(DATA, epochs=2)] == [4, 5]


def test_trainer_that_has_trained_on_goes_back():
    trainer = make(network(BatchNorm(16)), optimizer=ddbp.Adam(0.01))
    trainer.fit(DATA, epochs=1)
    snapshot = trainer.state()
    trainer.fit(DATA, epochs=2)
    digest = trainer.parameters_sha256()
    trainer.load_state(snapshot)
    assert trainer.epoch == 1
    trainer.fit(DATA, epochs=2)
    assert trainer.parameters_sha256() == digest


def test_state_from_between_two_fits_begins_the_next_one():
    first, second, whole = make(), make(), make()
    first.fit(DATA, epochs=2)
    second.load_state(first.state())
    assert [record["epoch"] for record in second.fit(DATA, epochs=2)] == [3, 4]
    whole.fit(DATA, epochs=4)
    assert second.parameters_sha256() == whole.parameters_sha256()


def test_state_from_the_end_of_the_last_epoch_leaves_nothing_to_do():
    class Last(ddbp.Callback):
        def on_epoch_end(self, trainer, record):
            self.snapshot = trainer.state()

    last, other = Last(), make()
    expected = make(callbacks=[last]).fit(DATA, epochs=2)
    other.load_state(last.snapshot)
    before = other.parameters_sha256()
    assert without_times(other.fit(DATA, epochs=2)) == without_times(expected)
    assert other.parameters_sha256() == before


def test_seconds_of_an_epoch_are_those_before_and_after():
    snapshot = changed(stopped(3), fit__seconds=100.0)
    other = make()
    other.load_state(snapshot)
    record = other.fit(DATA, epochs=1)[0]
    assert 100 < record["seconds"] < 160
    assert record["samples_per_second"] == pytest.approx(83 / record["seconds"])


def test_run_folder_has_the_records_of_all_epochs(tmp_path):
    other = make(run_dir=tmp_path)
    other.load_state(stopped(8))
    other.fit(DATA, epochs=3)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in lines] == [1, 2, 3]


def test_loop_that_is_left_and_begun_again_without_a_state_begins_its_epoch_anew():
    trainer = make()
    first = next(iter(trainer.batches(DATA))).y.tolist()
    assert next(iter(trainer.batches(DATA))).y.tolist() == first


def test_callback_has_its_state_back():
    class Counting(ddbp.Callback):
        """Counts steps, and adds up losses in an array."""

        def __init__(self):
            self.steps, self.losses = 0, np.zeros(2)

        def on_step_end(self, trainer, step, loss):
            self.steps += 1
            self.losses += loss

        def state(self):
            return {"steps": self.steps, "losses": self.losses}

        def load_state(self, state):
            self.steps, self.losses = state["steps"], state["losses"].copy()

    first, second = Counting(), Counting()
    one, other = make(callbacks=[first]), make(callbacks=[second])
    one.fit(DATA, epochs=1)
    other.load_state(through_json(one.state()))
    assert second.steps == first.steps == 5
    other.fit(DATA, epochs=1)
    one.fit(DATA, epochs=1)
    assert second.losses.tolist() == first.losses.tolist()


def test_state_is_a_copy():
    trainer = make(optimizer=ddbp.Adam(0.01))
    trainer.fit(DATA, epochs=1)
    snapshot = trainer.state()
    before = copy.deepcopy(snapshot)
    trainer.fit(DATA, epochs=1)
    assert snapshot.digest() == before.digest()
    trainer.load_state(snapshot)
    trainer.fit(DATA, epochs=1)
    assert snapshot.digest() == before.digest()


# The stream


@pytest.mark.parametrize("options", [{}, {"truncate": 3}, {"truncate": 3, "accumulate": 2}])
def test_stream_goes_on_from_every_place(options):
    def recurrent():
        model = GRU(4, 2, rng=np.random.default_rng(0))
        return make(model, loss=MeanSquaredError(), **options)._stream

    def rest(stream):
        found = []
        for _ in range(stream.left(2)):
            found += [
                (part.x.tobytes(), part.share, part.ends_group) for part in stream.parts(SEQUENCES)
            ]
        return found

    whole = recurrent()
    whole.begin(SEQUENCES)
    expected = rest(whole)
    for place in range(1, len(expected)):
        begun, other = recurrent(), recurrent()
        begun.begin(SEQUENCES)
        parts = (part for _ in range(2) for part in begun.parts(SEQUENCES))
        for _ in range(place):
            next(parts)
        begun.given_out = False
        other.load_state(begun.state())
        assert other.begin(SEQUENCES)
        assert rest(other) == expected[place:], place


# Refusals


OTHERS = {
    "parameters": (
        {"model": Sequential(Linear(6, 16, rng=np.random.default_rng(0)))},
        "layers.2.weight (3, 16) float32, layers.2.bias (3,) float32 in the state, none here",
    ),
    "states": (
        {"model": Sequential(*network(), BatchNorm(3, affine=False))},
        "none in the state, layers.3.running_mean (3,)",
    ),
    "model": ({"model": Sequential(*network(), Dropout(0.5))}, "Dropout(0.5)) here"),
    "loss": (
        {"loss": SoftmaxCrossEntropy(label_smoothing=0.1)},
        "SoftmaxCrossEntropy() in the state, SoftmaxCrossEntropy(label_smoothing=0.1) here",
    ),
    "optimizer": ({"optimizer": ddbp.Adam(0.1)}, "SGD(0.1, "),
    "batch_size": ({"batch_size": 21}, "20 in the state, 21 here"),
    "accumulate": ({"accumulate": 2}, "1 in the state, 2 here"),
    "seed": ({"seed": 1}, "0 in the state, 1 here"),
    "shards": ({"shards": 2}, "1 in the state, 2 here"),
    "clip_norm": ({"clip_norm": 1.0}, "None in the state, 1.0 here"),
    "clip_value": ({"clip_value": 1.0}, "None in the state, 1.0 here"),
    "wire": ({"wire": "float16"}, "None in the state, float16 here"),
    "l1": ({"l1": 0.5}, "0.0 in the state, 0.5 here"),
    "l2": ({"l2": 0.5}, "0.0 in the state, 0.5 here"),
    "callbacks": (
        {"callbacks": [ddbp.EarlyStopping()]},
        "none in the state, EarlyStopping.0 here",
    ),
}


def refused(trainer, snapshot, kind, said):
    """Expect an error of `load_state` that says so, and that nothing has changed."""
    before = trainer.state()
    with pytest.raises(kind, match=re.escape(said)):
        trainer.load_state(snapshot)
    after = trainer.state()
    assert after.digest() == before.digest()


@pytest.mark.parametrize("name", OTHERS)
def test_state_of_another_trainer_is_refused_by_what_differs(name):
    options, got = OTHERS[name]
    trainer = make(**options)
    refused(
        trainer,
        stopped(3),
        ValueError,
        f"Trainer.load_state: the state must be of a trainer with the same {name}; got ",
    )
    with pytest.raises(ValueError, match=re.escape(got)):
        trainer.load_state(stopped(3))


@pytest.mark.parametrize("version", [None, 0, VERSION + 1, str(VERSION)])
def test_state_of_unknown_version_is_refused(version):
    said = f"Trainer.load_state: the state must be of version {VERSION}; got {version}. "
    refused(make(), changed(stopped(3), snapshot__version=version), ValueError, said)


def test_what_is_no_snapshot_is_refused():
    said = "Trainer.load_state: the state must be a Snapshot; got dict. "
    refused(make(), {"step": 3}, TypeError, said)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("model.layers.0.weight", None, "an array (16, 6) float32; got absent"),
        ("model.layers.0.bias", np.zeros(3, np.float32), "(16,) float32; got an array (3,)"),
        ("optimizer.momentum.layers.0.bias", np.zeros(16), "float32; got an array (16,) float64"),
        ("optimizer.square.layers.0.bias", np.zeros(16), "must be absent; got an array (16,)"),
    ],
)
def test_state_that_is_not_whole_is_refused_by_name(name, array, said):
    snapshot = stopped(3)
    arrays = {other: value for other, value in snapshot.arrays.items() if other != name}
    arrays |= {} if array is None else {name: array}
    other = ddbp.Snapshot(arrays, snapshot.values)
    refused(make(), other, ValueError, f"Trainer.load_state: {name} must be ")
    refused(make(), other, ValueError, said)


MODELS = {
    "observed": lambda: {"model": network(BatchNorm(16)), "accumulate": 3},
    "windows": lambda: {
        "model": GRU(4, 2, rng=np.random.default_rng(0)),
        "loss": MeanSquaredError(),
        "truncate": 3,
    },
    "schedule": lambda: {
        "optimizer": ddbp.Adam(ddbp.WarmUp(ddbp.Plateau(0.1), steps=2)),
        "callbacks": [ddbp.EarlyStopping()],
    },
}


def in_the_midst(kind):
    """Return the state in the midst of a group, an epoch, or the windows of a batch."""
    if kind != "observed":
        return stopped(2, SEQUENCES if kind == "windows" else DATA, **MODELS[kind]())
    trainer = make(**MODELS[kind]())
    for number, batch in enumerate(trainer.batches(DATA, epochs=2), 1):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        if number == 2:
            return trainer.state()
    return None


@pytest.mark.parametrize("kind", MODELS)
def test_state_that_lacks_an_entry_is_refused_by_name(kind):
    snapshot = in_the_midst(kind)
    make(**MODELS[kind]()).load_state(snapshot)
    trainer = make(**MODELS[kind]())
    for name in [*snapshot.arrays, *snapshot.values]:
        arrays, values = (
            {other: entry for other, entry in entries.items() if other != name}
            for entries in (snapshot.arrays, snapshot.values)
        )
        refused(trainer, ddbp.Snapshot(arrays, values), ValueError, "Trainer.load_state: ")
        if not name.startswith(("facts", "snapshot")):
            with pytest.raises(ValueError, match=r"Load the whole of a state\."):
                trainer.load_state(ddbp.Snapshot(arrays, values))


@pytest.mark.parametrize("kind", MODELS)
def test_array_that_is_cut_and_value_of_another_kind_are_refused_by_name(kind):
    snapshot = in_the_midst(kind)
    trainer = make(**MODELS[kind]())
    for name, entry in snapshot.arrays.items():
        arrays = snapshot.arrays | {name: entry[:-1]}
        said = f"Trainer.load_state: {name} must be an array ("
        refused(trainer, ddbp.Snapshot(arrays, snapshot.values), ValueError, said)
    for name in snapshot.values:
        values = snapshot.values | {name: {"rubbish": True}}
        said = "Trainer.load_state: " + ("" if name.startswith(("facts", "snapshot")) else name)
        refused(trainer, ddbp.Snapshot(snapshot.arrays, values), ValueError, said)


@pytest.mark.parametrize(
    ("kind", "name", "value", "must"),
    [
        ("schedule", "trainer.step_count", "rubbish", "an integer of at least 0; got 'rubbish'"),
        ("schedule", "trainer.step_count", -5, "an integer of at least 0; got -5"),
        ("schedule", "trainer.step_count", True, "an integer of at least 0; got True"),
        ("schedule", "trainer.stop", 0, "True or False; got 0"),
        ("schedule", "optimizer.steps", 1.5, "an integer of at least 0; got 1.5"),
        ("schedule", "optimizer.schedule.rate", None, "a number; got None"),
        ("schedule", "EarlyStopping.0.bad", -1, "an integer of at least 0; got -1"),
        ("schedule", "stream.position", 999, "a multiple of 20 below 83, or 83; got 999"),
        ("schedule", "stream.position", -5, "a multiple of 20 below 83, or 83; got -5"),
        ("schedule", "stream.position", 7, "a multiple of 20 below 83, or 83; got 7"),
        ("schedule", "stream.first_epoch", 1, "an integer in 0...0 or None; got 1"),
        ("schedule", "stream.samples", None, "an integer in 0...0; got 40"),
        ("schedule", "stream.more", 1, "absent; got 1"),
        ("schedule", "fit.history", [1], "a list of a record; got [1]"),
        ("observed", "accumulation.batches", -1, "an integer of at least 1; got -1"),
        ("observed", "accumulation.batches", 0, "absent; got"),
        ("observed", "accumulation.gathered", [True], "absent; got an array (1, 33) float64"),
        ("observed", "accumulation.gradients", ["nobody"], "a list of a name of a parameter; got"),
        ("windows", "stream.windows.window", -1, "an integer of at least 0; got -1"),
        ("windows", "stream.windows.turn", 1, "an integer in 0...0; got 1"),
        ("windows", "stream.windows.samples", [], "a list of 0 times the structure of"),
        ("windows", "stream.windows.carried", [[7]], "a list of 1 times the structure of a state"),
    ],
)
def test_value_out_of_range_is_refused_by_what_must_hold(kind, name, value, must):
    snapshot = in_the_midst(kind)
    damaged = ddbp.Snapshot(snapshot.arrays, snapshot.values | {name: value})
    trainer = make(**MODELS[kind]())
    refused(trainer, damaged, ValueError, f" must be {must}")


def test_entries_that_no_snapshot_holds_are_refused_by_name():
    snapshot, name = stopped(3), "model.layers.0.bias"
    said = f"Trainer.load_state: {name} must be an array; got list. Load the whole of a state."
    arrays = snapshot.arrays | {name: [1.0, 2.0]}
    refused(make(), ddbp.Snapshot(arrays, snapshot.values), TypeError, said)
    said = "Trainer.load_state: fit.total must be what JSON can hold; got {1, 2}. "
    refused(make(), changed(snapshot, fit__total={1, 2}), TypeError, said)


def test_facts_in_another_order_or_absent_are_refused_as_such():
    snapshot = stopped(3)
    start = "Trainer.load_state: the state must be of a trainer with the same "
    turned = changed(snapshot, facts__parameters=snapshot.values["facts.parameters"][::-1])
    refused(make(), turned, ValueError, f"{start}parameters; got them in another order. ")
    for name in ("clip_norm", "clip_value", "wire", "truncate"):
        values = {k: v for k, v in snapshot.values.items() if k != f"facts.{name}"}
        said = f"{start}{name}; got absent in the state, None here. "
        refused(make(), ddbp.Snapshot(snapshot.arrays, values), ValueError, said)


# When


GIVEN_OUT = (
    "Trainer.state: a state must be taken between two steps or at the end of an epoch; got a call"
    " before the step on a batch that was given out. Take it after the step."
)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_state_before_the_step_on_a_batch_is_refused_and_after_it_is_taken(accumulate):
    trainer = make(accumulate=accumulate)
    for batch in trainer.batches(DATA):
        loss = trainer.loss(trainer.model(batch.x), batch.y)
        with pytest.raises(RuntimeError, match=re.escape(GIVEN_OUT)):
            trainer.state()
        trainer.step(loss)
        trainer.state()
    trainer.train_step(X[:20].astype(np.float32), LABELS[:20])
    trainer.state()


def test_state_in_on_step_begin_is_refused():
    class Begins(ddbp.Callback):
        def on_step_begin(self, trainer, step):
            trainer.state()

    with pytest.raises(RuntimeError, match=re.escape(GIVEN_OUT)):
        make(callbacks=[Begins()]).fit(DATA, epochs=1)


def test_batches_that_accumulate_without_an_update_are_taken():
    trainer = make()
    with trainer.no_sync():
        for batch in trainer.batches(DATA):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
            trainer.state()


def test_batch_that_is_skipped_and_loops_in_turn_do_not_forbid_a_state():
    trainer = make()
    for _ in trainer.batches(DATA):
        pass
    trainer.state()
    for batch, other in zip(trainer.batches(DATA), trainer.batches(DATA), strict=True):
        for each in (batch, other):
            trainer.step(trainer.loss(trainer.model(each.x), each.y))
        trainer.state()


def test_loop_in_which_a_state_is_loaded_is_refused_its_next_batch_and_a_new_one_goes_on():
    whole, trainer = make(), make()
    whole.fit(DATA, epochs=2)
    snapshot, loop = stopped(3, epochs=2), trainer.batches(DATA, epochs=2)
    next(loop)
    trainer.load_state(snapshot)
    said = "Trainer.batches: a loop must be left when a state is loaded; got one that was begun "
    with pytest.raises(RuntimeError, match=said):
        next(loop)
    for batch in trainer.batches(DATA, epochs=2):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
    assert trainer.parameters_sha256() == whole.parameters_sha256()


def test_on_step_begin_is_told_of_a_step_once_more_after_a_rollback():
    class Begun(ddbp.Callback):
        def __init__(self):
            self.steps = []

        def on_step_begin(self, trainer, step):
            self.steps.append(step)

    begun = Begun()
    trainer = make(callbacks=[begun])
    for batch in trainer.batches(DATA):
        if trainer.step_count == 2:
            break
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        snapshot = trainer.state()
    assert begun.steps[-1] == 2
    trainer.load_state(snapshot)
    next(trainer.batches(DATA))
    assert begun.steps[-2:] == [2, 2]


def test_state_is_taken_after_one_is_loaded_where_a_validation_has_failed():
    class Fails(ddbp.Callback):
        def on_evaluation_begin(self, trainer):
            raise StopError

    stop = Stop(8)
    trainer = make(callbacks=[Fails(), stop])
    with pytest.raises(StopError):
        trainer.fit(DATA, epochs=2, validation=DATA)
    trainer.load_state(stopped(3))
    trainer.state()


def test_other_data_in_the_midst_of_an_epoch_are_refused():
    trainer = make()
    trainer.load_state(stopped(3))
    said = "the data must be those of the epoch that the loaded state is from the midst of; got "
    with pytest.raises(ValueError, match=said):
        trainer.fit(ddbp.ArrayDataset(X + 1, LABELS), epochs=3)


def test_state_is_not_loaded_within_a_fit():
    class Loads(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            trainer.load_state(trainer.state())

    said = r"Trainer.load_state: a state can only be loaded between runs; got a call within fit\."
    with pytest.raises(RuntimeError, match=said):
        make(callbacks=[Loads()]).fit(DATA, epochs=1)


def test_state_of_a_callback_that_json_cannot_hold_is_refused():
    class Strange(ddbp.Callback):
        def state(self):
            return {"what": {1, 2}}

    said = r"Strange.0: what of a state must be an array, or what JSON can hold; got \{1, 2\}\."
    with pytest.raises(TypeError, match=said):
        make(callbacks=[Strange()]).state()


def test_carried_state_without_a_row_for_each_sample_is_refused():
    class TimeFirst(GRU):
        def run(self, x, state=None):
            y, ((h,),) = super().run(x, None if state is None else ((state[0],),))
            return y, (h[:][np.newaxis],)

    trainer = make(
        TimeFirst(4, 2, rng=np.random.default_rng(0)),
        loss=MeanSquaredError(),
        truncate=3,
        callbacks=[Stop(1)],
    )
    said = "Trainer.state: arrays of a state that is carried must have a row for each sample; got"
    with pytest.raises(ValueError, match=said):
        trainer.fit(SEQUENCES, epochs=1)
