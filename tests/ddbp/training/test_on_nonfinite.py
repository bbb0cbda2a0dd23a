"""Losses and gradients that are not finite: what errors say of them, and what is left out or taken
back.
"""

import json

import numpy as np
import pytest

import ddbp
import layers
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint
from ddbp.observers.observer import Request
from ddbp.training import finite
from ddbp.training.nonfinite import Rollback
from ddbp.training.signals import RunSaved
from layers.engine.workspace import Workspace

from . import small
from .faults import Faulty, marked
from .small import LABELS, make, network, parameters

X = small.X.astype(np.float32)
ROWS = slice(0, 20)
DATA = ddbp.ArrayDataset(marked(X, 7, 41), LABELS)
WHERE = ["forward", "backward"]


def faulty(where, **options):
    """Return a trainer whose model has a layer that spoils marked samples."""
    return make(network(Faulty(where)), **options)


def error_of(use, *arguments, **options):
    """Return what is said of numbers that are not finite."""
    with pytest.raises(FloatingPointError) as caught:
        use(*arguments, **options)
    return str(caught.value)


def said(where):
    """Return what is said of a faulty layer."""
    if where == "forward":
        return "the first layer whose output is not finite is layers.2: Faulty('forward')"
    return "the first layer whose gradient is not finite is layers.2: Faulty('backward')"


def loop(trainer, data):
    for batch in trainer.batches(data):
        trainer.step(trainer.loss(trainer.model(batch.x), batch.y))


# ---- sums that float16 cannot hold


def too_large(**options):
    """Return a trainer whose gradients are finite, and too large for float16 in float16."""
    return make(loss=layers.MeanSquaredError(), compression="float16", **options)


LARGE = ddbp.ArrayDataset(X, 1e6 * X[:, :3])


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"accumulate": 2}], ids=str)
def test_sums_too_large_for_float16_are_found_before_the_update(options, shards):
    trainer = too_large(shards=shards, **options)
    said = error_of(trainer.fit, LARGE, epochs=1)
    assert said == (
        'Trainer: compression="float16" needs sums of gradients of at most 65504; got larger ones'
        ' in step 0, which are infinite. Write compression="bfloat16", or a loss that is smaller.'
    )
    assert trainer.step_count == 0
    np.testing.assert_array_equal(parameters(trainer), parameters(make()))
    make(loss=layers.MeanSquaredError(), compression="bfloat16").train_step(LARGE.x, LARGE.y)


def test_steps_whose_sums_are_too_large_for_float16_are_left_out_if_told_so():
    trainer = too_large(on_nonfinite="skip")
    assert np.isnan(trainer.train_step(LARGE.x[:20], LARGE.y[:20]))
    np.testing.assert_array_equal(parameters(trainer), parameters(make()))
    small_enough = LARGE.y[20:40] * 1e-6
    assert np.isfinite(trainer.train_step(LARGE.x[20:40], small_enough))
    other = too_large()
    other.train_step(LARGE.x[20:40], small_enough)
    np.testing.assert_array_equal(parameters(trainer), parameters(other))


def test_training_goes_back_where_sums_are_too_large_for_float16(tmp_path):
    checkpoints = ddbp.Checkpoints(every_steps=1, path=tmp_path)
    trainer = too_large(on_nonfinite=Rollback(most=2), callbacks=[checkpoints])
    with pytest.raises(FloatingPointError, match=r"Write compression=.bfloat16") as caught:
        trainer.fit(LARGE, epochs=1)
    assert "went back 2 times" in str(caught.value.__notes__)
    np.testing.assert_array_equal(parameters(trainer), parameters(make()))


def test_the_loss_scale_falls_where_scaled_sums_are_too_large_for_float16():
    scale = ddbp.LossScale(2.0**20)
    trainer = make(compression="float16", loss_scale=scale)
    history = trainer.fit(ddbp.ArrayDataset(X, LABELS), epochs=3)
    assert history[-1]["overflows"] > 0
    assert history[-1]["loss_scale"] < 2.0**20
    assert np.isfinite(parameters(trainer)).all()


# ---- what errors say


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("where", WHERE)
def test_layer_and_samples_of_a_batch_are_named(where, shards):
    trainer = faulty(where, shards=shards)
    before = parameters(trainer)
    text = error_of(trainer.train_step, marked(X[ROWS], 3, 11), LABELS[ROWS])
    assert f"{said(where)}, in samples 3, 11 of the batch. " in text
    assert "in step 0" in text
    assert ("for layers.0.weight, layers.0.bias; " in text) == (where == "backward")
    assert parameters(trainer).tobytes() == before.tobytes()


@pytest.mark.parametrize("where", WHERE)
def test_layers_whose_outputs_have_been_let_go_of_are_looked_at(where, monkeypatch):
    # As those of a large network in 16 bits.
    monkeypatch.setattr(Workspace, "pooled_from", 0)
    monkeypatch.setenv("LAYERS_REPLAY", "0")
    trainer = faulty(where, precision="bf16")
    text = error_of(trainer.train_step, marked(X[ROWS], 3, 11), LABELS[ROWS])
    assert f"{said(where)}, in samples 3, 11 of the batch. " in text


@pytest.mark.parametrize("use", [lambda trainer: trainer.fit(DATA, epochs=1), None])
@pytest.mark.parametrize("where", WHERE)
def test_samples_are_named_by_their_numbers_in_the_data(where, use):
    data = ddbp.ArrayDataset(marked(X, 41), LABELS)
    trainer = faulty(where, seed=3)
    text = error_of(loop, trainer, data) if use is None else error_of(trainer.fit, data, epochs=1)
    assert f"{said(where)}, in sample 41 of the data. " in text


@pytest.mark.parametrize("where", WHERE)
def test_batch_that_others_of_its_group_follow_is_named(where):
    trainer = faulty(where, accumulate=3)
    for rows in (slice(0, 20), slice(20, 40)):
        assert np.isnan(trainer.train_step(marked(X, 25)[rows], LABELS[rows]))
    text = error_of(trainer.train_step, X[ROWS], LABELS[ROWS])
    assert f"{said(where)}, in sample 5 of the batch. " in text


@pytest.mark.parametrize("where", WHERE)
def test_partial_sums_of_shards_are_looked_at(where):
    trainer = faulty(where, shards=8)
    assert len(trainer._flat.gradients) == 1
    text = error_of(trainer.train_step, marked(X[ROWS], 3), LABELS[ROWS])
    assert f"{said(where)}, in sample 3 of the batch. " in text


@pytest.mark.parametrize("where", WHERE)
def test_layer_of_a_loop_of_its_own_is_named(where):
    trainer = faulty(where)
    batch = trainer.batch(marked(X[ROWS], 4), LABELS[ROWS])
    loss = trainer.loss(trainer.model(batch.x), batch.y)
    loss.backward()
    assert f"{said(where)}, in sample 4 of the batch. " in error_of(trainer.update, loss)


def test_layer_whose_own_gradient_alone_is_too_large_is_named_with_the_samples_of_the_shard():
    trainer = make(layers.Linear(1, 1, rng=np.random.default_rng(0)), loss="mse", shards=4)
    x = np.ones((20, 1), np.float32)
    x[6] = 1e23
    trainer.model.weight.value[...] = 1e-4
    text = error_of(trainer.train_step, x, np.zeros((20, 1), np.float32))
    assert "for weight; what comes back to Linear(1, 1) is finite, in samples 5, 6, 7, 8, 9" in text


def test_what_was_found_in_a_group_that_came_to_nothing_is_forgotten():
    trainer = faulty("forward", accumulate=2)
    trainer.train_step(marked(X[ROWS], 4), LABELS[ROWS])
    with pytest.raises(ValueError, match="must have shape"):
        trainer.train_step(X[ROWS, :3], LABELS[ROWS])
    trainer._update.group.lose()
    for _ in range(2):
        loss = trainer.train_step(X[ROWS], LABELS[ROWS])
    assert np.isfinite(loss)


def test_gradients_of_a_group_stay_as_they_are():
    trainer = faulty("backward", accumulate=3)
    trainer.train_step(X[ROWS], LABELS[ROWS])
    trainer.train_step(marked(X[ROWS], 4), LABELS[ROWS])
    gradients = trainer.state().arrays["accumulation.gradients.layers.3.weight"]
    assert np.isfinite(gradients).all()
    assert gradients.any()
    other = faulty("backward", accumulate=3)
    other.load_state(trainer.state())
    for each in (trainer, other):
        assert "for layers.0.weight" in error_of(each.train_step, X[ROWS], LABELS[ROWS])


def test_sample_whose_own_loss_is_not_finite_is_named():
    trainer = make(layers.Linear(6, 3, rng=np.random.default_rng(0)), loss="mse")
    y = np.zeros((20, 3), np.float32)
    y[13] = 1e30
    text = error_of(trainer.train_step, X[ROWS], y)
    assert "is the loss, MeanSquaredError(), in sample 13 of the batch. Lower" in text


def test_input_that_is_not_finite_is_named_with_its_sample():
    x = X[ROWS].copy()
    x[6, 2] = -np.inf
    text = error_of(make().train_step, x, LABELS[ROWS])
    assert "was given -inf, in sample 6 of the batch. Drop or impute those samples." in text
    assert "layers.0: Linear(6, 16)" in text


@pytest.mark.parametrize("where", WHERE)
def test_window_is_named_by_the_samples_of_its_batch(where):
    sequences = np.random.default_rng(0).standard_normal((12, 6, 4)).astype(np.float32)
    x = sequences.copy()
    x[5, 4] = 1e6
    trainer = windowed(where)
    text = error_of(trainer.fit, ddbp.ArrayDataset(x, sequences[..., :2]), epochs=1)
    assert "in step 1" in text
    assert f"Faulty('{where}'), in sample 5 of the data. " in text


def windowed(where, **options):
    """Return a trainer of windows of three steps of time."""
    rng = np.random.default_rng(1)
    model = layers.Sequential(
        layers.Linear(4, 4, rng=rng),
        Faulty(where),
        layers.GRU(4, 5, rng=rng),
        layers.Linear(5, 2, rng=rng),
    )
    usual = {"loss": "mse", "batch_size": 12, "truncate": 3}
    return make(model, **(usual | options))


def test_hooks_of_the_user_are_not_told_of_the_second_backward_pass():
    class Counts(layers.TapeHook):
        passes = 0

        def on_backward_pass_end(self, tape):
            Counts.passes += 1

    trainer = faulty("backward", callbacks=[Counts()])
    error_of(trainer.train_step, marked(X[ROWS], 3), LABELS[ROWS])
    assert Counts.passes == 1


def test_every_element_of_large_gradients_is_looked_at_in_turn():
    trainer = make(layers.Linear(300, 200, rng=np.random.default_rng(0)), loss="mse")
    flat = trainer._flat
    check, whole = (finite.GradientCheck(flat, whole=whole) for whole in (False, True))
    flat.gradients[0, 31_234] = np.inf
    found = [check(turn) for turn in range(40)]
    assert not all(found)
    assert any(found)
    assert not whole(0)
    flat.gradients[0, 31_234] = 0
    assert all(check(turn) and whole(turn) for turn in range(40))


@pytest.mark.parametrize("number", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_that_are_not_finite_are_found(number, dtype):
    array = np.full((3, 7), np.finfo(dtype).max, dtype)
    assert finite.is_finite(array)
    assert finite.is_finite(array[:0])
    array[2, 3] = number
    assert not finite.is_finite(array)
    assert not finite.is_finite(array.T)
    assert finite.is_finite(array[:2])


# ---- an update that is left out


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"shards": 4}], ids=str)
@pytest.mark.parametrize("where", WHERE)
def test_update_that_is_left_out_is_as_if_its_batch_had_not_been(where, options):
    bad, good = (
        faulty(where, on_nonfinite=do, optimizer=ddbp.Adam(ddbp.Cosine(0.01, steps=9)), **options)
        for do in ("skip", "stop")
    )
    for number in range(6):
        x, y = X[number * 9 :][ROWS], LABELS[number * 9 :][ROWS]
        if number in (0, 3):
            assert np.isnan(bad.train_step(marked(x, 2), y))
        assert bad.train_step(x, y) == good.train_step(x, y)
    assert parameters(bad).tobytes() == parameters(good).tobytes()
    assert bad.step_count == good.step_count == bad.optimizer.steps == 6
    assert bad._guard.skipped == 2


def test_statistics_of_a_batch_that_is_left_out_are_not_learnt():
    options = {"on_nonfinite": "skip", "batch_size": 20}
    bad, good = (make(network(Faulty("backward"), layers.BatchNorm(16)), **options) for _ in "ab")
    x = X[ROWS].copy()
    x[3] = 1e9
    assert np.isnan(bad.train_step(x, LABELS[ROWS]))
    assert bad.parameters_sha256() == good.parameters_sha256()


@pytest.mark.parametrize("where", WHERE)
def test_group_is_left_out_as_a_whole(where):
    bad = faulty(where, on_nonfinite="skip", accumulate=2)
    good = faulty(where, accumulate=2)
    for x in (marked(X[ROWS], 1), X[ROWS], X[ROWS], X[20:40]):
        bad.train_step(x, LABELS[ROWS])
    for x in (X[ROWS], X[20:40]):
        good.train_step(x, LABELS[ROWS])
    assert parameters(bad).tobytes() == parameters(good).tobytes()
    assert bad._guard.skipped == 1


def test_windows_that_follow_one_that_is_left_out_begin_with_the_states_before_it():
    sequences = np.random.default_rng(0).standard_normal((12, 9, 4)).astype(np.float32)
    y = sequences[..., :2]
    x = sequences.copy()
    x[5, 4] = 1e6
    bad, good = windowed("forward", on_nonfinite="skip"), windowed("forward")
    without = [np.delete(each, range(3, 6), axis=1) for each in (sequences, y)]
    assert np.isfinite(bad.train_step(x, y))
    good.train_step(*without)
    assert parameters(bad).tobytes() == parameters(good).tobytes()


@pytest.mark.parametrize("where", WHERE)
def test_fit_goes_on_counts_and_tells(where, tmp_path, capsys):
    trainer = faulty(where, on_nonfinite="skip", run_dir=tmp_path)
    first, second = trainer.fit(DATA, epochs=2)
    assert (first["skipped"], second["skipped"]) == (trainer._guard.skipped // 2, second["skipped"])
    assert first["step"] == 5 - first["skipped"]
    assert np.isfinite(first["loss"])
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(told) == second["skipped"]
    assert said(where) in told[0]
    assert told[0].endswith("The update is left out, 1 so far.")
    lines = (tmp_path / "nonfinite.jsonl").read_text().splitlines()
    assert [json.loads(line)["skipped"] for line in lines] == [*range(1, len(told) + 1)]
    metrics = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(metrics[0])["skipped"] == first["skipped"]


def test_loop_goes_on():
    trainer = faulty("backward", on_nonfinite="skip")
    loop(trainer, DATA)
    assert trainer.step_count == 5 - trainer._guard.skipped


def test_sum_of_gradients_that_is_too_large_is_left_out():
    # Each shard's is finite.
    trainer = make(
        layers.Linear(1, 1, bias=False, rng=np.random.default_rng(0)),
        shards=2,
        loss="mse",
        batch_size=2,
        on_nonfinite="skip",
        clip_value=None,
    )
    trainer.model.weight.value[...] = 0
    x = np.full((2, 1), 1e19, np.float32)
    assert np.isnan(trainer.train_step(x, np.full((2, 1), -2.5e19, np.float32)))
    assert parameters(trainer).tolist() == [0]


def test_parameters_that_are_not_finite_stop_training_that_skips():
    trainer = make(on_nonfinite="skip")
    trainer.model.layers[0].weight.value[0, 0] = np.nan
    text = error_of(trainer.train_step, X[ROWS], LABELS[ROWS])
    assert "layers.0.weight is not finite, since before the first step" in text


def test_what_was_asked_for_in_a_step_that_is_left_out_is_done_in_the_next(tmp_path):
    checkpoints = ddbp.Checkpoints(every_steps=100, path=tmp_path)
    trainer = faulty("backward", on_nonfinite="skip", callbacks=[checkpoints])
    trainer.request(Request.STOP)
    trainer.train_step(marked(X[ROWS], 2), LABELS[ROWS])
    with pytest.raises(RunSaved):
        trainer.train_step(X[ROWS], LABELS[ROWS])


# ---- training that goes back


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


GOOD = ddbp.ArrayDataset(X, LABELS)


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
