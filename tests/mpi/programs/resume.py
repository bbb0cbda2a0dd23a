"""Train several networks as a whole, or stop in the midst of an epoch and go on elsewhere.

Usage: resume.py FOLDER [--stop STATES | --load STATES]; every rank writes the digests of parameters
and the losses of each run. With --stop runs end early, and ranks write checkpoints to STATES; with
--load they go on from there.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ddbp
from ddbp.checkpoint.folder import Checkpoint, found
from ddbp.checkpoint.writer import Writer
from layers import (
    LSTM,
    BatchNorm,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Embedding,
    GlobalAveragePool,
    Layer,
    Linear,
    MeanSquaredError,
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


class StopError(Exception):
    """The run ends here."""


class Stop(ddbp.Callback):
    """Writes a checkpoint after a step, and ends the run."""

    def __init__(self, step: int, path: Path | None) -> None:
        self.step = step
        self.path = path
        self.snapshot: ddbp.Snapshot | None = None

    def on_step_end(self, trainer, step, loss):
        if step == self.step and self.path is not None:
            self.snapshot = write(trainer, self.path)
            raise StopError


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


def make(model, optimizer, **options) -> ddbp.Trainer:
    """Return a quiet trainer."""
    usual = {
        "loss": SoftmaxCrossEntropy(),
        "batch_size": 14,
        "shards": 6,
        "seed": 5,
        "quiet": True,
    }
    return ddbp.Trainer(model, optimizer=optimizer, **{**usual, **options})


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


# What trains, on which data, and after which step it is stopped, or batch in a loop: there are five
# batches in an epoch, the last one of 12 samples, each of three windows where it is cut.
FITS: dict[str, tuple[Callable[..., ddbp.Trainer], ddbp.ArrayDataset, int]] = {
    "dropout, Adam, a warm-up": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adam(ddbp.WarmUp(ddbp.Cosine(0.01, steps=20), steps=5)),
            clip_norm=1.0,
            **options,
        ),
        DATA,
        8,
    ),
    "batch norm, momentum": (
        lambda **options: make(convolutional(), ddbp.SGD(0.1, momentum=0.9), **options),
        IMAGES,
        1,
    ),
    "LAMB, one cycle": (
        lambda **options: make(dense(), ddbp.LAMB(ddbp.OneCycle(0.02, steps=24)), **options),
        DATA,
        12,
    ),
    "Muon, a rate by epoch": (
        lambda **options: make(
            dense(), ddbp.Muon(ddbp.ByEpoch(ddbp.Cosine(0.02, steps=4))), **options
        ),
        DATA,
        7,
    ),
    "a moving average": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.Adam(0.01),
            callbacks=[ddbp.ExponentialMovingAverage(0.9, validation=DATA), *callbacks],
            **options,
        ),
        DATA,
        8,
    ),
    "a doctor": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(0.1),
            callbacks=[ddbp.Instruments(1), ddbp.Doctor(), *callbacks],
            **options,
        ),
        DATA,
        12,
    ),
    "a strict doctor": (
        lambda callbacks=(), **options: make(
            Sequential(Linear(20, 4, rng=np.random.default_rng(1))),
            ddbp.SGD(0.1),
            callbacks=[*callbacks, ddbp.Instruments(3), ddbp.Doctor(strict=True)],
            **options,
        ),
        DATA,
        7,
    ),
    "a plateau": (
        lambda **options: make(
            dense(), ddbp.RMSProp(ddbp.Plateau(0.01, patience=1, threshold=0.5)), **options
        ),
        DATA,
        18,
    ),
    "parameter groups": (
        lambda **options: make(
            dense(),
            ddbp.Adam(
                ddbp.Cosine(0.01, steps=20),
                groups={
                    "layers.0.*": {"learning_rate": ddbp.Plateau(0.01, patience=0)},
                    ("*.3.weight", "*.2.weight"): {"weight_decay": 0.1, "betas": (0.8, 0.9)},
                },
            ),
            **options,
        ),
        DATA,
        12,
    ),
    "early stopping": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(1e-9),
            callbacks=[ddbp.EarlyStopping(patience=2, delta=0.1), *callbacks],
            **options,
        ),
        DATA,
        12,
    ),
    "frozen layers": (
        lambda **options: make(frozen(dense()), ddbp.Adam(0.01), clip_norm=0.5, **options),
        DATA,
        12,
    ),
    "best weights": (
        lambda callbacks=(), **options: make(
            dense(BatchNorm(64)),
            ddbp.SGD(0.3, momentum=0.9),
            callbacks=[
                ddbp.BestWeights(),
                ddbp.EarlyStopping(
                    monitor="validation_accuracy", patience=9, restore_best_weights=True
                ),
                *callbacks,
            ],
            **options,
        ),
        DATA,
        17,
    ),
    "a second fit": (
        lambda **options: make(dense(), ddbp.SGD(0.1, momentum=0.9, nesterov=True), **options),
        DATA,
        13,
    ),
    "groups": (
        lambda **options: make(
            dense(BatchNorm(64, synchronized=True)), ddbp.AdamW(0.01), accumulate=4, **options
        ),
        DATA,
        3,
    ),
    "weighted sentences without the last batch": (
        lambda **options: make(reading(), ddbp.Adam(0.01), drop_last=True, **options),
        SENTENCES,
        6,
    ),
    "windows": (
        lambda **options: make(
            recurrent(), ddbp.Adam(0.01), loss=MeanSquaredError(), truncate=3, **options
        ),
        SEQUENCES,
        10,
    ),
    "windows in turn": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            loss=MeanSquaredError(),
            truncate=3,
            accumulate=2,
            **options,
        ),
        SEQUENCES,
        11,
    ),
    "updates that are left out": (
        lambda **options: make(
            dense(Faulty(), BatchNorm(64)), ddbp.Adam(0.01), on_nonfinite="skip", **options
        ),
        MARKED,
        6,
    ),
}
LOOPS: dict[str, tuple[Callable[..., ddbp.Trainer], int]] = {
    "a loop in the midst of a group that will be left out": (
        lambda **options: make(
            dense(Faulty(), BatchNorm(64)),
            ddbp.Adam(0.01),
            accumulate=4,
            on_nonfinite="skip",
            **options,
        ),
        8,
    ),
    "a loop": (
        lambda **options: make(dense(Dropout(0.2)), ddbp.SGD(0.1, momentum=0.9), **options),
        8,
    ),
    "a loop over frozen layers in the midst of a group": (
        lambda **options: make(
            frozen(dense(BatchNorm(64))), ddbp.LAMB(0.01), accumulate=4, **options
        ),
        7,
    ),
    "a loop in the midst of a group": (
        lambda **options: make(
            dense(BatchNorm(64), Dropout(0.2)), ddbp.Adam(0.01), accumulate=4, **options
        ),
        8,
    ),
    "a loop in the midst of a group, synchronized": (
        lambda **options: make(
            dense(BatchNorm(64, synchronized=True)), ddbp.Adam(0.01), accumulate=4, **options
        ),
        7,
    ),
}


def fitted(name: str, loaded: ddbp.Snapshot | None, stopping: Path | None):
    """Return the trainer, its losses, and the state where it was stopped."""
    start, data, step = FITS[name]
    stop = Stop(step, stopping)
    trainer = start(callbacks=[stop])
    if loaded is not None:
        trainer.load_state(loaded)
    elif name == "a second fit":
        trainer.fit(data, epochs=1)
    try:
        history = trainer.fit(data, epochs=EPOCHS, validation=data)
    except StopError:
        return trainer, [], stop.snapshot
    names = ("epoch", "step", "loss", "validation_loss", "average_loss")
    return trainer, [record[name] for record in history for name in names if name in record], None


def looped(name: str, loaded: ddbp.Snapshot | None, stopping: Path | None):
    """Return the trainer, its losses, and the state where it was stopped."""
    start, last = LOOPS[name]
    trainer = start()
    if loaded is not None:
        trainer.load_state(loaded)
    losses = []
    data = MARKED if "left out" in name else DATA
    for number, batch in enumerate(trainer.batches(data, epochs=EPOCHS), 1):
        losses.append(trainer.step(trainer.loss(trainer.model(batch.x), batch.y)))
        if stopping and number == last:
            return trainer, [], write(trainer, stopping)
    # Of those before the stop the one that goes on knows nothing.
    return trainer, losses[-12:], None


def stepped(name: str, loaded: ddbp.Snapshot | None, stopping: Path | None):
    """Return the trainer, its losses, and the state where it was stopped, of steps on batches of
    the script's own, in the midst of a group; the first pass after it is for practice.
    """
    last = 6
    trainer = make(dense(BatchNorm(64, synchronized=True)), ddbp.Adam(0.01), accumulate=4)
    if loaded is not None:
        trainer.load_state(loaded)
    losses = []
    for number in range(last if loaded else 0, 12):
        rows = np.arange(14) + 4 * number
        losses.append(trainer.train_step(DATA.x[rows].astype(np.float32), DATA.y[rows]))
        if stopping and number + 1 == last:
            return trainer, [], write(trainer, stopping)
    return trainer, losses[-6:], None


def write(trainer: ddbp.Trainer, path: Path) -> ddbp.Snapshot:
    """Write a checkpoint, each rank what it holds; return the state, collected."""
    snapshot = trainer.state()
    writer = Writer(path, trainer.comm, trainer.comm.size, lambda: None)
    facts = {"epoch": trainer.epoch}
    writer.write(trainer.step_count, facts, trainer.state(collected=False), background=True)
    writer.wait()
    return snapshot


def read(path: Path) -> ddbp.Snapshot:
    """Return the state of the checkpoint in a folder, whose arrays are read when they are used."""
    checkpoint = Checkpoint(found(path)[-1])
    checkpoint.require_whole()
    return checkpoint.snapshot()


def timeless(snapshot: ddbp.Snapshot) -> str:
    """Return the digest of a state without what clocks have to say."""

    def told(value):
        if isinstance(value, dict):
            return {name: told(each) for name, each in value.items() if "second" not in name}
        return [told(each) for each in value] if isinstance(value, list) else value

    fit = {name: told(value) for name, value in snapshot.values.items() if "fit." in name}
    values = snapshot.values | fit | {"fit.seconds": 0.0}
    return ddbp.Snapshot(snapshot.arrays, values).digest()


def main() -> None:
    """Train, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop", type=Path)
    parser.add_argument("--load", type=Path)
    options = parser.parse_args()
    rank = ddbp.communicator().rank
    results = {}
    runs = [*((name, fitted) for name in FITS), *((name, looped) for name in LOOPS)]
    for number, (name, run) in enumerate([*runs, ("single steps", stepped)]):
        loaded = read(options.load / str(number)) if options.load else None
        stopping = options.stop / str(number) if options.stop else None
        trainer, losses, snapshot = run(name, loaded, stopping)
        results[f"{name}: digest"] = np.array(trainer.parameters_sha256())
        results[f"{name}: losses"] = np.array(losses)
        if snapshot is not None:
            results[f"{name}: state"] = np.array(timeless(snapshot))
    np.savez(options.folder / f"rank{rank}.npz", **results)


if __name__ == "__main__":
    main()
