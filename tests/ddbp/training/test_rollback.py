"""Training that goes back to its last checkpoint where numbers are not finite."""

import json

import numpy as np
import pytest

import ddbp
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint
from ddbp.training.nonfinite import Rollback

from .faults import marked
from .nonfinite import DATA, GOOD, ROWS, X, error_of, faulty, windowed
from .small import LABELS, make, parameters


def rolling(tmp_path, where="backward", policy="rollback", every=2, **options):
    usual = {
        "on_nonfinite": policy,
        "callbacks": [ddbp.Checkpoints(every_steps=every, path=tmp_path)],
        "optimizer": ddbp.Adam(ddbp.Cosine(0.01, steps=30)),
    }
    return faulty(where, **(usual | options))


def test_rollback_without_checkpoints_is_refused():
    with pytest.raises(ValueError, match=r"a rollback needs checkpoints; got no Checkpoints among"):
        make(on_nonfinite="rollback")


@pytest.mark.parametrize("policy", ["Stop", None, 3, (1.0, 3), (0.5, 0), (1, 3), (0.5,)], ids=str)
def test_what_is_nothing_that_can_be_done_is_refused(policy, tmp_path):
    said = r"Trainer: on_nonfinite|Rollback: (factor|most)"
    with pytest.raises((ValueError, TypeError), match=said):
        rolling(tmp_path, policy=policy)
    if isinstance(policy, tuple) and len(policy) == 2:
        with pytest.raises((ValueError, TypeError), match=said):
            Rollback(*policy)


class Spoil(ddbp.Callback):
    """Makes a weight NaN in a step, for the first few times that training comes to it."""

    def __init__(self, step, times):
        self.step = step
        self.times = times

    def on_step_begin(self, trainer, step):
        if step == self.step and self.times:
            self.times -= 1
            with ddbp.modify_parameters(trainer):
                trainer.model.parameters()[0].value[0, 0] = np.nan


class Marks(ddbp.Callback):
    """Says how good each epoch is that training comes to its end of, and keeps its parameters."""

    def __init__(self, *marks):
        self.marks = [*marks]
        self.parameters = []

    def on_epoch_end(self, trainer, record):
        record["mark_loss"] = self.marks.pop(0)
        self.parameters.append(parameters(trainer).copy())


@pytest.mark.parametrize("restoring", [ddbp.BestWeights, ddbp.EarlyStopping])
def test_best_weights_of_what_training_has_gone_back_behind_are_not_put_back(restoring, tmp_path):
    # The second epoch is the best, until training goes back into its midst.
    marks = Marks(3.0, 2.0, 4.0, 4.0)
    options = {} if restoring is ddbp.BestWeights else {"restore_best_weights": True}
    best = restoring(monitor="mark_loss", **options)
    checkpoints = ddbp.Checkpoints(every_steps=6, path=tmp_path)
    trainer = rolling(tmp_path, callbacks=[Spoil(10, 1), marks, best, checkpoints])
    trainer.fit(GOOD, epochs=3)
    assert trainer._guard.rollbacks == 1
    assert marks.marks == []
    assert best.best == 3.0
    assert parameters(trainer).tobytes() == marks.parameters[0].tobytes()
    assert parameters(trainer).tobytes() != marks.parameters[1].tobytes()


def test_training_goes_back_to_the_last_checkpoint_with_a_lower_rate(tmp_path, capsys):
    checkpoints = ddbp.Checkpoints(every_steps=3, path=tmp_path / "a", keep_last=9)
    options = {"callbacks": [Spoil(8, 2), checkpoints], "run_dir": tmp_path / "run"}
    trainer = rolling(tmp_path, policy=Rollback(0.25, 2), **options)
    history = trainer.fit(GOOD, epochs=3)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert "rollbacks" not in history[0]
    assert history[1]["rollbacks"] == history[2]["rollbacks"] == 2
    assert trainer.optimizer.factor == 0.25**2
    told = [line for line in capsys.readouterr().err.splitlines() if "goes back" in line]
    assert told[1].endswith(
        "Training goes back to step 6, with 0.0625 of the learning rate, 2 of at most 2 times."
    )
    # The same by hand: from the same checkpoint, at that rate.
    other = rolling(tmp_path / "b", policy=Rollback(0.25, 2))
    other.load_state(Checkpoint(tmp_path / "a" / "step-000000006").snapshot())
    other.optimizer.factor = 0.25**2
    other.fit(GOOD, epochs=3)
    assert parameters(other).tobytes() == parameters(trainer).tobytes()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 15]
    assert len((tmp_path / "run" / "nonfinite.jsonl").read_text().splitlines()) == 2


def test_it_stops_after_so_many_times(tmp_path):
    trainer = rolling(tmp_path, policy=Rollback(0.5, 2))
    with pytest.raises(FloatingPointError, match=r"in sample 7 of the data|in sample 41") as caught:
        trainer.fit(DATA, epochs=2)
    assert caught.value.__notes__ == ["Training went back 2 times because of such numbers."]


def test_fit_that_goes_back_before_its_first_checkpoint_begins_anew(tmp_path):
    callbacks = [Spoil(1, 1), ddbp.Checkpoints(every_steps=100, path=tmp_path)]
    trainer = rolling(tmp_path, callbacks=callbacks)
    assert len(trainer.fit(GOOD, epochs=1)) == 1
    assert trainer.step_count == 5


def test_second_fit_goes_back_within_itself(tmp_path):
    callbacks = [Spoil(6, 1), ddbp.Checkpoints(every_steps=100, path=tmp_path)]
    trainer = rolling(tmp_path, callbacks=callbacks)
    trainer.fit(GOOD, epochs=1)
    assert [record["epoch"] for record in trainer.fit(GOOD, epochs=1)] == [2]
    assert trainer.step_count == 10


def test_loop_over_batches_goes_back(tmp_path):
    callbacks = [Spoil(3, 1), ddbp.Checkpoints(every_steps=2, path=tmp_path)]
    trainer = rolling(tmp_path, callbacks=callbacks)
    losses = [
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        for batch in trainer.batches(GOOD, epochs=2)
    ]
    assert [*np.flatnonzero(np.isnan(losses))] == [3]
    # Of the steps after the checkpoint, one was taken twice.
    assert len(losses) == 12
    assert trainer.step_count == 10
    assert trainer.epoch == 2


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}], ids=str)
def test_windows_go_back(tmp_path, options):
    sequences = np.random.default_rng(0).standard_normal((24, 9, 4)).astype(np.float32)
    data = ddbp.ArrayDataset(sequences, sequences[..., :2])
    callbacks = [ddbp.Checkpoints(every_steps=2, path=tmp_path)]
    options = options | {"on_nonfinite": Rollback(0.5), "callbacks": [Spoil(4, 1), *callbacks]}
    trainer = windowed("forward", **options)
    history = trainer.fit(data, epochs=2)
    assert [record["epoch"] for record in history] == [1, 2]
    assert trainer.step_count == 2 * 3 * (1 if "accumulate" in options else 2)
    assert trainer._guard.rollbacks == 1


def test_step_on_a_batch_of_its_own_goes_back(tmp_path):
    trainer = rolling(tmp_path)
    for _ in range(3):
        trainer.train_step(X[ROWS], LABELS[ROWS])
    assert np.isnan(trainer.train_step(marked(X[ROWS], 2), LABELS[ROWS]))
    assert trainer.step_count == 2
    assert trainer.optimizer.factor == 0.5
    assert np.isfinite(trainer.train_step(X[ROWS], LABELS[ROWS]))


def test_without_a_checkpoint_of_the_run_there_is_nothing_to_go_back_to(tmp_path):
    trainer = rolling(tmp_path)
    with pytest.raises(FloatingPointError) as caught:
        trainer.train_step(marked(X[ROWS], 2), LABELS[ROWS])
    assert caught.value.__notes__ == ["There is no checkpoint of this run yet to go back to."]


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    class Late(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == 3:
                with ddbp.modify_parameters(trainer):
                    trainer.model.layers[0].weight.value[0, 0] = np.nan

    for policy in ("stop", "skip", Rollback(0.5, 1)):
        path = tmp_path / str(policy)
        callbacks = [Late(), ddbp.Checkpoints(every_steps=3, path=path)]
        text = error_of(rolling(path, policy=policy, callbacks=callbacks).fit, GOOD, epochs=1)
        assert "layers.0.weight" in text
        assert [each.name for each in folder.found(path)][-1:] != ["step-000000003"]


def test_counts_and_rate_are_part_of_the_state(tmp_path):
    trainer = rolling(tmp_path / "a")
    for x in (X, X, marked(X, 2), X, X):
        trainer.train_step(x[ROWS], LABELS[ROWS])
    other = rolling(tmp_path / "b")
    other.load_state(trainer.state())
    assert (other._guard.rollbacks, other.optimizer.factor) == (1, 0.5)
    assert other.train_step(X[ROWS], LABELS[ROWS]) == trainer.train_step(X[ROWS], LABELS[ROWS])
    assert parameters(other).tobytes() == parameters(trainer).tobytes()
    # An optimizer of a new trainer begins anew.
    assert make(optimizer=other.optimizer).optimizer.factor == 1


def test_policy_is_in_the_configuration_and_comes_back_from_it(tmp_path):
    trainer = rolling(tmp_path, policy=Rollback(0.25, 7), run_dir=tmp_path / "run")
    trainer.fit(GOOD, epochs=1)
    assert ddbp.TrainerOptions.read(tmp_path / "run").on_nonfinite == Rollback(0.25, 7)
