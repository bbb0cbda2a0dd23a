"""What errors say of losses and gradients that are not finite."""

import numpy as np
import pytest

import ddbp
import layers
from ddbp.training import finite
from layers.engine.workspace import Workspace

from .faults import marked
from .nonfinite import DATA, ROWS, WHERE, X, error_of, faulty, loop, said, windowed
from .small import LABELS, make, parameters


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
