"""Instruments change nothing of training; which layers and steps they tell of, and how runs end."""

import numpy as np
import pytest

import ddbp
from ddbp.instruments import clock
from ddbp.instruments import instruments as instruments_module
from ddbp.instruments.recording import QUANTITIES
from layers import (
    Composite,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Recompute,
    ReLU,
    Sequential,
    Tanh,
)

from .small import CLASSES, DATA, FEATURES, SAMPLES, X, Y, make, network, recorded

TIMES = [name for name in QUANTITIES if name.startswith("seconds")]


@pytest.mark.parametrize("memory", [None, 8_000], ids=["segments", "a budget"])
def test_segments_that_are_computed_again_are_measured_as_without(memory):
    def measured(wrap, **options):
        rng = np.random.default_rng(1)
        blocks = [wrap(Sequential(Linear(16, 16, rng=rng), ReLU())) for _ in range(6)]
        model = Sequential(Linear(FEATURES, 16, rng=rng), *blocks, Linear(16, CLASSES, rng=rng))
        return recorded(model, **options)

    plain, _ = measured(lambda block: block)
    again, trainer = measured(Recompute if memory is None else lambda block: block, memory=memory)
    assert memory is None or trainer._memory.facts["layers_again"]
    for name, values in plain.values.items():
        if not name.startswith("seconds"):
            np.testing.assert_array_equal(again.values[name], values, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clip_norm": 0.1},
        {"optimizer": ddbp.LAMB(0.01)},
        {"accumulate": 2},
        {"optimizer": ddbp.Adam(0.01), "l2": 0.01},
    ],
    ids=str,
)
def test_training_has_the_same_bits_with_and_without(options):
    plain = make(network(Dropout(0.2)), **options)
    plain.fit(DATA, epochs=3)
    _, measured = recorded(network(Dropout(0.2)), epochs=3, every=2, **options)
    assert measured.parameters_sha256() == plain.parameters_sha256()


def test_gradients_are_recorded_before_they_are_clipped():
    free, _ = recorded(optimizer=ddbp.SGD(0.0))
    clipped, _ = recorded(optimizer=ddbp.SGD(0.0), clip_norm=1e-3)
    for name in ("gradient_norm", "shard_gradient_norm"):
        np.testing.assert_array_equal(free.values[name], clipped.values[name])


def test_nobody_is_told_of_anything_between_two_measured_steps():
    told = []

    class Look(ddbp.Callback):
        def on_step_begin(self, trainer, step):
            told.append((trainer.tape_watchers.hooks is not None, trainer.partition.watcher))

    recorded(epochs=2, every=3, callbacks=[Look()])
    assert [watched for watched, _ in told] == [True, False, False, True, False, False]
    assert {watcher for _, watcher in told} == {None}


def test_without_instruments_no_tape_has_a_hook():
    assert make().tape_watchers.hooks is None


def test_nothing_large_is_allocated_by_further_measured_steps():
    import tracemalloc

    instruments = ddbp.Instruments(1)
    trainer = make(
        Sequential(
            Linear(FEATURES, 20000, rng=np.random.default_rng(0)),
            ReLU(),
            Flatten(),
            Linear(20000, CLASSES, rng=np.random.default_rng(1)),
        ),
        instruments,
    )
    for _ in range(3):
        trainer.train_step(X[:16], Y[:16])
    tracemalloc.start()
    for _ in range(3):
        trainer.train_step(X[:16], Y[:16])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000, "of 160,000 parameters, 640 kB"


def test_fused_convolutions_are_shown_by_the_layer_whose_output_they_give():
    rng = np.random.default_rng(0)
    model = Sequential(
        Conv2d(1, 4, 3, rng=rng), ReLU(), MaxPool2d(2), Flatten(), Linear(16, CLASSES, rng=rng)
    )
    images = ddbp.ArrayDataset(rng.standard_normal((32, 6, 6, 1)).astype(np.float32), Y[:32])
    recording, _ = recorded(model, data=images)
    assert recording.layers == ["layers.2", "layers.3", "layers.4"]
    assert np.isfinite(recording.values["activation_norm"]).all()
    assert np.isfinite(recording.values["activation_gradient_norm"]).all()


def test_the_same_layer_fused_or_not_has_the_same_numbers():
    rng = np.random.default_rng
    fused = Sequential(Linear(FEATURES, 8, rng=rng(1)), ReLU(), Linear(8, CLASSES, rng=rng(2)))
    plain = Sequential(*fused.layers, fuse=False)
    weights = [each.value.copy() for each in fused.parameters()]
    one, _ = recorded(fused)
    for parameter, value in zip(fused.parameters(), weights, strict=True):
        parameter.value = value
    other, _ = recorded(plain)
    assert other.layers == ["layers.0", *one.layers]
    for name in ("activation_norm", "activation_histogram", "activation_gradient_norm"):
        np.testing.assert_array_equal(one.values[name], other.values[name][:, 1:])


class Twice(Composite):
    """Uses a layer twice, and another one not at all."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.shared = Linear(FEATURES, FEATURES, rng=rng)
        self.last = Linear(FEATURES, CLASSES, rng=rng)
        self.unused = Linear(2, 2, rng=rng)

    def __call__(self, x):
        return self.last(self.shared(self.shared(x)))


def test_a_layer_that_is_used_twice_has_one_column_and_an_unused_one_nan():
    recording, _ = recorded(Twice())
    assert recording.layers == ["shared", "last", "unused"]
    values = {name: array[0] for name, array in recording.values.items()}
    assert np.isfinite(values["activation_norm"][:2]).all()
    assert np.isnan(values["activation_norm"][2])
    unused = recording.parameters.index("unused.weight")
    assert values["gradient_norm"][unused] == 0
    assert values["update_norm"][unused] == 0


class Spoiling(Layer):
    """Passes on what it gets, and NaN from some step on."""

    calls = 0

    def forward(self, call, x):
        self.calls += 1
        return x if self.calls < 4 else np.full_like(x, np.nan)

    def backward(self, call, dy):
        return (dy,)


def test_a_run_that_ends_by_nan_leaves_what_was_measured_before(tmp_path):
    instruments = ddbp.Instruments(1)
    trainer = make(network(Spoiling()), instruments, run_dir=tmp_path)
    with pytest.raises(FloatingPointError):
        trainer.fit(DATA, epochs=4)
    steps = ddbp.Recording.read(tmp_path).steps.tolist()
    assert steps
    assert steps == [*range(len(steps))]
    assert trainer.partition.watcher is None
    assert trainer.tape_watchers.hooks is None


class Aside(Composite):
    """Has a branch that is NaN and leads nowhere."""

    def __init__(self):
        self.main, self.aside = network(), Tanh()

    def __call__(self, x):
        self.aside(x * np.float32(np.nan))
        return self.main(x)


def test_nan_is_recorded_as_nan_and_in_the_last_bin(tmp_path):
    recording, _ = recorded(Aside(), run_dir=tmp_path)
    column = recording.layers.index("aside")
    for found in (recording, ddbp.Recording.read(tmp_path)):
        of = {name for name in QUANTITIES if QUANTITIES[name].of == "layers"}
        values = {name: found.values[name][:, column] for name in of}
        assert np.isnan(values["activation_norm"]).all()
        assert (values["activation_histogram"][:, -1] == 1).all()
        assert (values["activation_saturated"] == 0).all()
        assert np.isnan(values["activation_gradient_norm"]).all(), "backward does not reach it"


def test_one_step_is_a_recording(tmp_path):
    recording, _ = recorded(batch_size=SAMPLES, run_dir=tmp_path)
    assert recording.steps.tolist() == [0]
    assert ddbp.Recording.read(tmp_path).steps.tolist() == [0]


def test_a_model_of_thousands_of_layers_is_recorded_within_bounds(tmp_path):
    rng = np.random.default_rng(0)
    middle = [Linear(2, 2, rng=rng) for _ in range(2000)]
    for layer in middle:
        layer.weight.value[...] = np.eye(2)
    model = Sequential(Linear(FEATURES, 2, rng=rng), *middle, Linear(2, CLASSES, rng=rng))
    recording, _ = recorded(model, run_dir=tmp_path, epochs=2, optimizer=ddbp.SGD(1e-6))
    assert len(recording.layers) == 2002
    assert recording.values["gradient_norm"].shape == (6, 4004)
    assert len(ddbp.Recording.read(tmp_path).steps) == 6


def test_a_folder_that_cannot_be_written_does_not_end_training(tmp_path):
    (tmp_path / "instruments").write_text("no folder")
    with pytest.warns(RuntimeWarning, match="Training goes on"):
        recording, _ = recorded(run_dir=tmp_path)
    assert len(recording.steps) == 3


class StopError(Exception):
    """The run ends here."""


@pytest.mark.parametrize("stop", [4, 5])
def test_a_run_that_goes_on_has_the_recording_of_one_that_was_not_stopped(tmp_path, stop):
    class Stop(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == stop + 1:
                raise StopError

    def run(folder, *callbacks):
        trainer = make(
            None,
            ddbp.Instruments(2),
            callbacks=[ddbp.Checkpoints(every_steps=stop, background=False), *callbacks],
            run_dir=folder,
            resume="auto",
        )
        trainer.fit(DATA, epochs=4)

    run(tmp_path / "whole")
    with pytest.raises(StopError):
        run(tmp_path / "cut", Stop())
    run(tmp_path / "cut")
    whole, cut = (ddbp.Recording.read(tmp_path / name) for name in ("whole", "cut"))
    assert whole.steps.tolist() == [*range(0, 12, 2)]
    assert cut.steps.tolist() == whole.steps.tolist()
    for name, array in whole.values.items():
        if name not in TIMES:
            np.testing.assert_array_equal(cut.values[name], array, err_msg=name)


def test_another_fit_of_the_trainer_goes_on_with_the_recording():
    instruments = ddbp.Instruments(2)
    trainer = make(None, instruments)
    trainer.fit(DATA, epochs=1)
    trainer.fit(DATA, epochs=1)
    assert instruments.recording.steps.tolist() == [0, 2, 4]


def test_frozen_parameters_have_no_gradient_and_no_update():
    instruments = ddbp.Instruments(1)
    trainer = make(None, instruments)
    trainer.fit(DATA, epochs=1)
    trainer.model[0].freeze()
    trainer.fit(DATA, epochs=1)
    recording = instruments.recording
    gradients = recording.values["gradient_norm"]
    assert np.isfinite(gradients[:3]).all()
    assert np.isnan(gradients[3:, :2]).all()
    assert np.isfinite(gradients[3:, 2:]).all()


def test_seconds_of_a_step_are_positive_and_sum_up_to_less_than_it_took():
    recording, _ = recorded(epochs=2)
    values = np.stack([recording.values[name][:, 0] for name in TIMES])
    assert (values >= 0).all()
    assert (values[:, 1:].sum() > 0).all()


def test_instruments_without_a_trainer_have_no_recording():
    with pytest.raises(RuntimeError, match="callbacks="):
        _ = ddbp.Instruments().recording


@pytest.mark.parametrize("every", [0, -1, 1.5, "many"])
def test_what_is_no_number_of_steps_is_refused(every):
    with pytest.raises((ValueError, TypeError), match="every must be"):
        ddbp.Instruments(every)


def test_instruments_of_two_trainers_are_refused_in_the_step_of_the_first():
    x = np.random.default_rng(0).standard_normal((64, 20)).astype(np.float32)
    instruments = ddbp.Instruments(1)
    first, second = (
        ddbp.Trainer(
            Sequential(Linear(20, 4, rng=np.random.default_rng(1))),
            loss="cross_entropy",
            optimizer=ddbp.SGD(0.1),
            batch_size=16,
            callbacks=[instruments],
            quiet=True,
        )
        for _ in range(2)
    )
    data = ddbp.ArrayDataset(x, x[:, :4].argmax(1))
    second.fit(data, epochs=1)
    with pytest.raises(RuntimeError, match="Instruments: a trainer must have instruments of its"):
        first.fit(data, epochs=1)


def test_what_goes_by_between_two_epochs_is_not_the_time_that_data_take(monkeypatch):
    now = [100.0]

    class Slow(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            now[0] += 1

        def on_epoch_end(self, trainer, record):
            now[0] += 100

    for module in (instruments_module, clock):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    # It is told of what ends after instruments are.
    trainer = make(None, instruments := ddbp.Instruments(1), callbacks=[Slow()])
    trainer.fit(DATA, epochs=4)
    steps = trainer.options.steps(len(DATA))
    recording = instruments.recording
    assert (recording.steps == np.arange(4 * steps)).all()
    seconds = recording.values["seconds_data"][:, 0].reshape(4, steps)
    assert seconds[:, 0].tolist() == [0] * 4
    assert (seconds[:, 1:] == 1).all()
