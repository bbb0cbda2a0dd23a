"""States of trainers in one process: when they are taken, and what goes on from them. On ranks:
tests/mpi/test_resume.py.
"""

import copy
import json
import re

import numpy as np
import pytest

import ddbp
from layers import GRU, BatchNorm, Dropout, MeanSquaredError

from .small import DATA, LABELS, X, make, network
from .snapshots import SEQUENCES, Stop, StopError, changed, stopped, through_json, without_times


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
    others = trainer.batches(DATA)
    for batch in trainer.batches(DATA):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        other = next(others)
        trainer.step(trainer.loss(trainer.model(other.x), other.y))
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
