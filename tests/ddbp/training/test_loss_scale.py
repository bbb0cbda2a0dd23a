"""The loss scale: it changes no bit of what does not overflow, and falls where something does."""

import json

import numpy as np
import pytest

import ddbp
import layers
from ddbp.training import loss_scale

from . import small
from .small import LABELS, make, network, parameters

X = small.X.astype(np.float32)
DATA = ddbp.ArrayDataset(X, LABELS)
ROWS = slice(0, 20)


class Overflows(layers.Layer):
    """Passes on what it gets, and infinity in place of gradients beyond a limit."""

    def __init__(self, limit):
        self.limit = limit

    def forward(self, call, x):
        return x.copy()

    def backward(self, call, dy):
        return (np.where(np.abs(dy) > self.limit, np.float32(np.inf), dy),)


def scaled(limit=np.inf, initial=2.0**16, interval=2000, **options):
    """Return a trainer whose model overflows beyond a limit."""
    scale = ddbp.LossScale(initial, interval)
    return make(network(Overflows(limit)), loss_scale=scale, **options)


def steps(trainer, count=8):
    """Return the losses of steps on batches of 20 samples."""
    starts = np.arange(count) * 9 % 40
    return [trainer.train_step(X[a : a + 20], LABELS[a : a + 20]) for a in starts]


OPTIONS = [
    {},
    {"clip_norm": 0.1},
    {"clip_value": 1e-3, "l1": 1e-3, "l2": 1e-2},
    {"transforms": [ddbp.ClipParameterNorms(0.05)]},
    {"accumulate": 3},
    {"shards": 4, "optimizer": ddbp.LAMB},
]


def apart(options):
    """Return the kind of optimizer, and the other options."""
    return options.get("optimizer", ddbp.Adam), {
        name: each for name, each in options.items() if name != "optimizer"
    }


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_scale_changes_no_bit(options):
    kind, options = apart(options)
    plain = make(network(Overflows(np.inf)), optimizer=kind(0.01), **options)
    other = scaled(interval=2, optimizer=kind(0.01), **options)
    np.testing.assert_array_equal(steps(plain), steps(other))
    assert other._scaling.value == (2.0**20 if options.get("accumulate") is None else 2.0**17)
    assert parameters(plain).tobytes() == parameters(other).tobytes()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_step_whose_gradient_overflows_is_left_out_and_the_scale_halved(options):
    kind, options = apart(options)
    every = options.get("accumulate", 1)
    rates = [ddbp.Cosine(0.01, steps=9) for _ in "ab"]
    plain = make(network(Overflows(np.inf)), optimizer=kind(rates[0]), **options)
    other = scaled(limit=10.0, initial=2.0**12, optimizer=kind(rates[1]), **options)
    lost = 0
    for _ in range(20):
        rows = slice(0, 20)
        given = [other.train_step(X[rows], LABELS[rows]) for _ in range(every)]
        if not np.isnan(given[-1]):
            break
        lost += 1
        assert other.step_count == other.optimizer.steps == 0
        assert other._scaling.value == 2.0 ** (12 - lost)
    assert lost > 2
    assert other._scaling.overflows == lost
    expected = [plain.train_step(X[rows], LABELS[rows]) for _ in range(every)]
    assert given[-1] == expected[-1]
    assert other.step_count == other.optimizer.steps == 1
    assert parameters(plain).tobytes() == parameters(other).tobytes()


def test_the_scale_is_doubled_after_so_many_updates_and_no_further_than_it_may():
    trainer = scaled(initial=2.0**23, interval=3)
    found = []
    for _ in range(9):
        steps(trainer, 1)
        found.append(np.log2(trainer._scaling.value))
    assert found == [23, 23, 24, 24, 24, 24, 24, 24, 24]


def test_an_overflow_begins_the_count_of_updates_anew():
    trainer = scaled(initial=4.0, interval=3)
    steps(trainer, 2)
    trainer.model[2].limit = 0.0
    assert np.isnan(steps(trainer, 1)).all()
    trainer.model[2].limit = np.inf
    found = [steps(trainer, 1) and trainer._scaling.value for _ in range(3)]
    assert found == [2, 2, 4]


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_what_overflows_at_every_scale_is_said(policy):
    trainer = scaled(limit=0.0, initial=8.0, on_nonfinite=policy)
    assert np.isnan(steps(trainer, 3)).all()
    assert trainer._scaling.value == 1
    if policy == "skip":
        assert np.isnan(steps(trainer, 1)).all()
        assert trainer._guard.skipped == 1
        return
    with pytest.raises(FloatingPointError) as caught:
        steps(trainer, 1)
    text = str(caught.value)
    assert "the gradient must be finite; got NaN or inf in step 0 at every loss scale" in text
    assert "the first layer whose gradient is not finite is layers.2: Overflows" in text


def test_a_loss_that_is_not_finite_is_said_at_once():
    trainer = scaled()
    x = X[ROWS].copy()
    x[3] = np.nan
    with pytest.raises(FloatingPointError, match="the loss must be finite"):
        trainer.train_step(x, LABELS[ROWS])
    assert trainer._scaling.overflows == 0


def test_a_sum_over_shards_that_overflows_lowers_the_scale():
    def begun(scale):
        model = layers.Linear(6, 3, rng=np.random.default_rng(0))
        optimizer = ddbp.SGD(1e-30)
        return make(model, loss="mse", shards=2, optimizer=optimizer, loss_scale=scale)

    plain, other = begun(None), begun(ddbp.LossScale(2.0**24))
    x, y = np.full((20, 6), 3e15, np.float32), np.full((20, 3), -3e15, np.float32)
    losses = [other.train_step(x, y) for _ in range(4)]
    assert other._scaling.overflows > 0
    assert plain.train_step(x, y) == next(each for each in losses if not np.isnan(each))


def test_a_run_goes_on_with_scale_and_counts():
    def begun():
        return scaled(limit=60.0, initial=2.0**14, interval=2, optimizer=ddbp.Adam(0.01))

    whole = begun()
    steps(whole, 20)
    first, second = begun(), begun()
    steps(first, 11)
    snapshot = first.state()
    second.load_state(snapshot)
    assert second._scaling.state() == first._scaling.state()
    assert second._scaling.overflows > 0
    after = [steps(each, 12) for each in (first, second)]
    np.testing.assert_array_equal(*after)
    assert parameters(first).tobytes() == parameters(second).tobytes()


@pytest.mark.parametrize("name", ["value", "overflows", "updates"])
def test_a_state_that_is_not_whole_is_refused(name):
    snapshot = scaled().state()
    values = {k: v for k, v in snapshot.values.items() if k != f"loss_scale.{name}"}
    with pytest.raises(ValueError, match=rf"loss_scale\.{name} must be"):
        scaled().load_state(ddbp.Snapshot(snapshot.arrays, values))
    values |= {f"loss_scale.{name}": -3}
    with pytest.raises(ValueError, match=rf"loss_scale\.{name} must be"):
        scaled().load_state(ddbp.Snapshot(snapshot.arrays, values))


def test_a_run_without_a_scale_goes_on_with_one_if_that_is_asked_for(tmp_path):
    plain = make(network(Overflows(np.inf)), run_dir=tmp_path, callbacks=[ddbp.Checkpoints()])
    plain.fit(DATA, epochs=1)
    with pytest.raises(ValueError, match="same loss_scale"):
        scaled(resume=tmp_path)
    other = scaled(resume=tmp_path, resume_options="loss_scale")
    assert other.step_count == plain.step_count
    assert other._scaling.value == 2.0**16


def test_instruments_see_gradients_without_the_scale():
    found = []
    for scale in (None, ddbp.LossScale(2.0**12)):
        instruments = ddbp.Instruments(1)
        trainer = make(network(), loss_scale=scale, shards=4, callbacks=[instruments])
        trainer.fit(DATA, epochs=1)
        found.append(instruments.recording.values)
    plain, other = found
    names = [name for name in plain if not name.startswith("seconds")]
    assert any("gradient" in name for name in names)
    for name in names:
        np.testing.assert_array_equal(plain[name], other[name], err_msg=name)


def test_forks_leave_the_scale_as_it_is():
    trainer = scaled(limit=60.0, initial=2.0**14)
    assert np.isfinite(trainer.fork(5, data=DATA)).all()
    assert trainer._scaling.state() == {"value": 2.0**14, "overflows": 0, "updates": 0}


def test_records_tell_the_scale(tmp_path):
    trainer = scaled(limit=60.0, initial=2.0**14, run_dir=tmp_path)
    (record,) = trainer.fit(DATA, epochs=1)
    assert record["loss_scale"] == trainer._scaling.value < 2.0**14
    assert record["overflows"] == trainer._scaling.overflows > 0
    configuration = json.loads((tmp_path / "config.json").read_text())
    assert configuration["loss_scale"] == [2.0**14, 2000]
    assert ddbp.TrainerOptions.read(tmp_path).loss_scale == ddbp.LossScale(2.0**14, 2000)


def test_a_gradient_that_was_not_scaled_is_refused():
    trainer = scaled()
    batch = trainer.batch(X[ROWS], LABELS[ROWS])
    loss = trainer.loss(trainer.model(batch.x), batch.y)
    loss.backward()
    with pytest.raises(ValueError, match="where losses are scaled; got a scale of 65536"):
        trainer.update(loss)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dynamic", "loss_scale must be a LossScale; got 'dynamic'"),
        (1024.0, "loss_scale must be a LossScale"),
        ((3.0, 5), "power of two from 1 to 2\\^24; got 3.0"),
        ((0.5, 5), "power of two"),
        ((2.0**25, 5), "power of two"),
        ((np.inf, 5), "power of two"),
        ((np.nan, 5), "power of two"),
        (("2", 5), "power of two"),
        ((True, 5), "power of two"),
        ((2.0, 0), "interval must be"),
        ((2.0, 2.5), "interval must be"),
        ((2.0, 2, 2), "must be a LossScale"),
    ],
)
def test_what_is_no_scale_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        make(loss_scale=given)
    with pytest.raises(ValueError, match=said):
        loss_scale.checked(given, "float32")
    if isinstance(given, tuple) and len(given) == 2:
        with pytest.raises(ValueError, match=f"LossScale: .*{said}"):
            ddbp.LossScale(*given)


def test_a_doctor_finds_what_it_finds_without_the_scale():
    found = []
    for scale in (None, ddbp.LossScale(2.0**12)):
        doctor = ddbp.Doctor()
        trainer = make(
            network(),
            loss=lambda x, y: 50 * layers.SoftmaxCrossEntropy()(x, y),
            loss_scale=scale,
            callbacks=[ddbp.Instruments(1), doctor],
        )
        trainer.fit(DATA, epochs=6)
        found.append([str(each) for each in doctor.findings])
        assert doctor._first is None or doctor._first.factor in (1, 50)
    assert found[0] == found[1]
    assert any("loss" in each for each in found[0])
