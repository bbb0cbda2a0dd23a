"""What runs that stop and go on elsewhere are made of: data, networks, layers and callbacks."""

from pathlib import Path

import numpy as np

import ddbp
from ddbp.checkpoint.writer import Writer
from ddbp.training import precision
from layers import (
    LSTM,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Embedding,
    GlobalAveragePool,
    Layer,
    Linear,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)

EPOCHS, SAMPLES = 4, 68
RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 4, SAMPLES)
DATA = ddbp.ArrayDataset(RNG.standard_normal((SAMPLES, 20)), LABELS)
_MARKS = np.where(np.isin(np.arange(SAMPLES), (5, 40)), 1e6, 0)
MARKED = ddbp.ArrayDataset(DATA.x + _MARKS[:, None], LABELS)
IMAGES = ddbp.ArrayDataset(RNG.standard_normal((SAMPLES, 6, 6, 2)), LABELS)
SENTENCES = ddbp.ArrayDataset(
    [RNG.integers(0, 9, n) for n in RNG.integers(1, 8, SAMPLES)],
    LABELS,
    weights=RNG.uniform(0.5, 2, SAMPLES),
)
SEQUENCES = ddbp.ArrayDataset(
    RNG.standard_normal((SAMPLES, 7, 4)), RNG.standard_normal((SAMPLES, 7, 2))
)
WORDS = [SENTENCES.x[[n]].values for n in range(SAMPLES)]
ONE_BY_ONE = ddbp.data.ItemSource(
    [*zip(WORDS, LABELS, SENTENCES.weights, strict=True)], lengths=[*map(len, WORDS)]
)
# What is refused where it takes longer than float32 is tried there all the same.
precision.times_float32 = lambda name: 1.0


class StopError(Exception):
    """The run ends here."""


class Stop(ddbp.Callback):
    """Writes a checkpoint after a step, or after an epoch if the number is negative, and ends the
    run.
    """

    def __init__(self, step: int, path: Path | None) -> None:
        self.step = step
        self.path = path
        self.snapshot: ddbp.Snapshot | None = None

    def on_step_end(self, trainer, step, loss):
        self._stop(trainer, step)

    def on_epoch_end(self, trainer, record):
        self._stop(trainer, -trainer.epoch)

    def _stop(self, trainer, number):
        if number == self.step and self.path is not None:
            self.snapshot = write(trainer, self.path)
            raise StopError


class Forks(ddbp.Callback):
    """Takes steps with other options after some steps, if that is asked for."""

    on = False

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_step_end(self, trainer, step, loss):
        if self.on and step in (2, 9) and trainer.forkable:
            others = {"learning_rate": 1.0, "weight_decay": 0.1, "clip_norm": 0.1, "dropout": 0.0}
            # Steps on batches of the script's own are of no data set.
            data = DATA if trainer._stream.data is None else None
            self.losses += trainer.fork(6, data=data)
            self.losses += trainer.fork(3, data=data, **others, accumulate=2, batch_size=17)
            self.losses += trainer.fork(3, data=data, optimizer=ddbp.Adam(0.1))


def stops(callbacks) -> bool:
    """Return whether a run will be stopped."""
    return any(isinstance(each, Stop) and each.path is not None for each in callbacks)


class Spoil(ddbp.Callback):
    """Makes a weight NaN in a step, once."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, trainer, step):
        if step == self.step:
            self.step = -1
            with ddbp.modify_parameters(trainer):
                trainer.model.parameters()[0].value[0, 0] = np.nan


class Faulty(Layer):
    """Passes on what it gets, and NaN instead of gradients of samples that are marked."""

    def forward(self, call, x):
        call.save(np.abs(x).max(axis=1) > 1e4)
        return np.minimum(x, 1e4)

    def backward(self, call, dy):
        (marked,) = call.saved
        return (np.where(marked[:, None], np.float32(np.nan), dy),)


class Narrow(Layer):
    """Passes on what it gets, and gradients as far as float16 reaches; infinity beyond."""

    def forward(self, call, x):
        return x.copy()

    def backward(self, call, dy):
        return (np.where(np.abs(dy) > 65504, np.float32(np.inf), dy),)


def make(model, optimizer, callbacks=(), **options) -> ddbp.Trainer:
    """Return a quiet trainer."""
    usual = {
        "loss": SoftmaxCrossEntropy(),
        "batch_size": 14,
        "shards": 6,
        "seed": 5,
        "quiet": True,
    }
    callbacks = [*callbacks, Forks()]
    return ddbp.Trainer(model, optimizer=optimizer, callbacks=callbacks, **{**usual, **options})


def apart(model, optimizer, exchange, callbacks=(), **options) -> ddbp.Trainer:
    """Return a quiet trainer of workers that exchange seldom."""
    workers = {"exchange": exchange, "shards": None, "batch_size": 12}
    return make(model, optimizer, callbacks, **workers, **options)


def dense(*middle) -> Sequential:
    """Return a network whose parameters fill several blocks, so that every rank owns some."""
    rng = np.random.default_rng(1)
    return Sequential(
        Linear(20, 64, rng=rng), *middle, ReLU(), Linear(64, 64, rng=rng), Linear(64, 4, rng=rng)
    )


def frozen(model: Sequential) -> Sequential:
    """Return a network of which the first layer and a bias are frozen."""
    model[0].freeze()
    model[-1].bias.trainable = False
    return model


def convolutional() -> Sequential:
    """Return a small convolutional network with running statistics."""
    rng = np.random.default_rng(1)
    return Sequential(
        Conv2d(2, 8, 3, rng=rng),
        BatchNorm2d(8),
        ReLU(),
        GlobalAveragePool(),
        Linear(8, 4, rng=rng),
    )


def recurrent() -> Sequential:
    """Return a network whose states go on from window to window."""
    rng = np.random.default_rng(1)
    return Sequential(LSTM(4, 9, layers=2, rng=rng), Dropout(0.1), Linear(9, 2, rng=rng))


def reading() -> Sequential:
    """Return a network that reads sentences."""
    rng = np.random.default_rng(1)
    lstm = LSTM(8, 40, last=True, rng=rng)
    return Sequential(Embedding(9, 8, rng=rng), Dropout(0.2), lstm, Linear(40, 4, rng=rng))


def write(trainer: ddbp.Trainer, path: Path) -> ddbp.Snapshot:
    """Write a checkpoint, each rank what it holds; return the state, collected."""
    snapshot = trainer.state()
    writer = Writer(path, trainer.comm, trainer.comm.size)
    facts = {"epoch": trainer.epoch}
    writer.write(trainer.step_count, facts, trainer.state(collected=False), background=True)
    writer.wait()
    return snapshot
