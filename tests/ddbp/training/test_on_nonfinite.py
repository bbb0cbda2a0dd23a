"""Updates that are left out where numbers are not finite, and sums that float16 cannot hold."""

import json

import numpy as np
import pytest

import ddbp
import layers
from ddbp.observers.observer import Request
from ddbp.training.nonfinite import Rollback
from ddbp.training.signals import RunSaved

from .faults import Faulty, marked
from .nonfinite import DATA, ROWS, WHERE, X, error_of, faulty, loop, said, windowed
from .small import LABELS, make, network, parameters

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
