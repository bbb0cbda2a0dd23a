"""Train several networks as a whole, or stop in the midst of an epoch and go on elsewhere.

Usage: resume.py FOLDER [--stop STATES | --load STATES] [--forks]; every rank writes the digests of
parameters and the losses of each run. With --stop runs end early, and ranks write checkpoints to
STATES; with --load they go on from there. With --forks they try other options on the way.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ddbp
from ddbp.checkpoint.folder import Checkpoint, found
from ddbp.checkpoint.writer import Writer
from ddbp.data.augment import Crop, CutOut, Flip, MixUp, Noise, Shift
from ddbp.training import precision
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
    Recompute,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)
from layers.rules import DirectFeedbackAlignment, MeProp, SignSymmetry

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


# What trains, on which data, and after which step it is stopped, or batch in a loop: there are five
# batches in an epoch, the last one of 12 samples, each of three windows where it is cut.
FITS: dict[str, tuple[Callable[..., ddbp.Trainer], ddbp.data.source.Dataset, int]] = {
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
    "a memory budget": (
        lambda **options: make(
            dense(Dropout(0.2), BatchNorm(64, synchronized=True)),
            ddbp.Adam(0.01),
            memory=40_000,
            **options,
        ),
        DATA,
        8,
    ),
    "segments computed again": (
        lambda **options: make(
            Recompute(dense(Dropout(0.2), BatchNorm(64, synchronized=True))),
            ddbp.Adam(0.01),
            **options,
        ),
        DATA,
        8,
    ),
    "feedback alignment": (
        lambda **options: make(
            dense(Dropout(0.2)), ddbp.Adam(0.01), rule="feedback_alignment", **options
        ),
        DATA,
        8,
    ),
    "direct feedback, batch norm": (
        lambda **options: make(
            convolutional(), ddbp.SGD(0.1), rule=DirectFeedbackAlignment(seed=3), **options
        ),
        IMAGES,
        7,
    ),
    "sign symmetry through windows": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            **{"loss": MeanSquaredError(), "truncate": 3, **options},
            rule=SignSymmetry("batchwise"),
        ),
        SEQUENCES,
        8,
    ),
    "difference target propagation": (
        lambda **options: make(
            dense(), ddbp.Adam(0.01), rule="difference_target_propagation", **options
        ),
        DATA,
        12,
    ),
    "forward-forward": (
        lambda **options: make(
            dense(Dropout(0.2)), ddbp.Adam(0.01), rule="forward_forward", **options
        ),
        DATA,
        8,
    ),
    "meProp of samples": (
        lambda **options: make(dense(Dropout(0.2)), ddbp.Adam(0.01), rule=MeProp(0.2), **options),
        DATA,
        8,
    ),
    "meProp of batches, accumulated": (
        lambda **options: make(
            dense(), ddbp.SGD(0.1), rule=MeProp(5, per="batch"), accumulate=2, **options
        ),
        DATA,
        4,
    ),
    "meProp through windows": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            **{"loss": MeanSquaredError(), "truncate": 3, **options},
            rule=MeProp(0.3, per="batch"),
        ),
        SEQUENCES,
        8,
    ),
    "LAMB, one cycle": (
        lambda **options: make(dense(), ddbp.LAMB(ddbp.OneCycle(0.02, steps=24)), **options),
        DATA,
        12,
    ),
    "moments in 8 bits": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.AdamW(ddbp.Cosine(0.02, steps=24), amsgrad=True, state_bits=8),
            **options,
        ),
        DATA,
        7,
    ),
    "Adafactor": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adafactor(0.02, groups={"*bias": {"relative": False}}),
            **options,
        ),
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
    "a doctor that tries what it proposes": (
        lambda callbacks=(), **options: make(
            Sequential(Linear(20, 4, rng=np.random.default_rng(1))),
            ddbp.SGD(0.1, momentum=0.999),
            callbacks=[ddbp.Instruments(1), ddbp.Doctor(probes=True), *callbacks],
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
    "a doctor until it stops": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(0.1),
            callbacks=callbacks,
            doctor=stops(callbacks),
            **options,
        ),
        DATA,
        9,
    ),
    "a doctor from then on": (
        lambda callbacks=(), **options: make(
            dense(),
            ddbp.SGD(0.1),
            callbacks=callbacks,
            doctor=not stops(callbacks),
            **options,
        ),
        DATA,
        9,
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
    "augmented images, made ahead": (
        lambda **options: make(
            convolutional(),
            ddbp.SGD(0.1, momentum=0.9),
            augment=[Flip(), Crop(1), CutOut(2), Noise(0.1), MixUp(0.4, classes=4)],
            prefetch=True,
            **options,
        ),
        IMAGES,
        7,
    ),
    "augmented sequences, windows in turn, made ahead": (
        lambda **options: make(
            recurrent(),
            ddbp.Adam(0.01),
            loss=MeanSquaredError(),
            truncate=3,
            accumulate=2,
            augment=[Shift(2), MixUp()],
            prefetch=True,
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
    "a loss that is scaled": (
        lambda **options: make(
            dense(Narrow(), BatchNorm(64)),
            ddbp.Adam(ddbp.Cosine(0.01, steps=20)),
            clip_norm=0.5,
            loss_scale=ddbp.LossScale(2.0**19, 2),
            **options,
        ),
        DATA,
        6,
    ),
    "the largest elements": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adam(ddbp.Cosine(0.01, steps=20)),
            clip_norm=0.5,
            compression=ddbp.TopK(0.1),
            loss_scale=ddbp.LossScale(2.0**4, 3),
            **options,
        ),
        DATA,
        8,
    ),
    "products of low rank": (
        lambda **options: make(
            frozen(dense()), ddbp.SGD(0.1, momentum=0.9), compression="power-sgd:2", **options
        ),
        DATA,
        7,
    ),
    "signs": (
        lambda **options: make(dense(), ddbp.SGD(0.02), compression="sign", **options),
        DATA,
        12,
    ),
    "sums of 8 bits": (
        lambda **options: make(dense(), ddbp.Muon(0.02), compression="int8", **options),
        DATA,
        6,
    ),
    "float16": (
        lambda **options: make(
            dense(BatchNorm(64), Dropout(0.2)), ddbp.Adam(0.01), precision="float16", **options
        ),
        DATA,
        7,
    ),
    "bfloat16, sentences": (
        lambda **options: make(reading(), ddbp.Adam(0.01), precision="bf16", **options),
        SENTENCES,
        6,
    ),
    "split into two bfloat16 numbers": (
        lambda **options: make(reading(), ddbp.Adam(0.01), precision="bf16x3", **options),
        SENTENCES,
        6,
    ),
    "bfloat16, convolutions": (
        lambda **options: make(
            convolutional(), ddbp.SGD(0.1, momentum=0.9), precision="bf16", **options
        ),
        IMAGES,
        7,
    ),
    "local steps, and seldom after some": (
        lambda **options: apart(
            convolutional(), ddbp.SGD(0.1, momentum=0.9), ddbp.LocalSGD(6, 3, after=4), **options
        ),
        IMAGES,
        6,
    ),
    "DiLoCo in the midst of a round": (
        lambda **options: apart(
            dense(Dropout(0.2), BatchNorm(64)),
            ddbp.AdamW(ddbp.WarmUp(ddbp.Cosine(0.01, steps=24), steps=5)),
            ddbp.DiLoCo(4, 8),
            clip_norm=1.0,
            **options,
        ),
        DATA,
        -1,
    ),
    "DiLoCo in fragments, 4 bits, a moving average": (
        lambda callbacks=(), **options: apart(
            dense(),
            ddbp.Adam(ddbp.Plateau(0.01, patience=1, threshold=0.5)),
            ddbp.DiLoCo(6, 6, fragments=3, bits=4),
            callbacks=[ddbp.ExponentialMovingAverage(0.9, validation=DATA), *callbacks],
            **options,
        ),
        DATA,
        5,
    ),
    "DiLoCo with workers that come and go": (
        lambda **options: apart(
            reading(), ddbp.AdamW(0.01), ddbp.DiLoCo({0: 4, 2: 6, 4: 4}, 4, bits=8), **options
        ),
        SENTENCES,
        3,
    ),
    "DiLoCo of outer gradients of low rank": (
        lambda **options: apart(
            dense(),
            ddbp.AdamW(0.01),
            ddbp.DiLoCo(4, 4, fragments=2),
            compression="power-sgd:2",
            **options,
        ),
        DATA,
        5,
    ),
}
# What is refused where it takes longer than float32 is tried there all the same.
precision.times_float32 = lambda name: 1.0
FITS |= {
    "a source, accumulated": (
        lambda **options: make(dense(Dropout(0.2)), ddbp.Adam(0.01), accumulate=2, **options),
        ddbp.data.ArraySource(DATA.x, DATA.y),
        4,
    ),
    "sentences of a source": (
        lambda **options: make(reading(), ddbp.Adam(0.01), **options),
        ONE_BY_ONE,
        8,
    ),
    "a generator": (
        lambda **options: make(dense(), ddbp.SGD(0.1, momentum=0.9), **options),
        ddbp.data.GeneratorSource(lambda: zip(DATA.x, DATA.y, strict=True), SAMPLES),
        6,
    ),
    "windows of a source": (
        lambda **options: make(
            recurrent(), ddbp.Adam(0.01), **{"loss": MeanSquaredError(), "truncate": 3, **options}
        ),
        ddbp.data.ArraySource(SEQUENCES.x, SEQUENCES.y),
        8,
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
    "an augmented loop in the midst of a group, made ahead": (
        lambda **options: make(
            dense(Dropout(0.2)),
            ddbp.Adam(0.01),
            accumulate=4,
            augment=[Noise(0.1), MixUp(0.4, classes=4)],
            prefetch=True,
            **options,
        ),
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
    "a loop in the midst of a group whose loss is scaled": (
        lambda **options: make(
            dense(Narrow(), BatchNorm(64)),
            ddbp.Adam(0.01),
            accumulate=4,
            loss_scale=ddbp.LossScale(2.0**16, 1),
            **options,
        ),
        8,
    ),
    "a loop in bfloat16 in the midst of a group": (
        lambda **options: make(
            dense(BatchNorm(64)), ddbp.Adam(0.01), accumulate=4, precision="bf16", **options
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
    writer = Writer(path, trainer.comm, trainer.comm.size)
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
    parser.add_argument("--forks", action="store_true")
    options = parser.parse_args()
    Forks.on = options.forks
    rank = ddbp.communicator().rank
    results = {}
    runs = [*((name, fitted) for name in FITS), *((name, looped) for name in LOOPS)]
    for number, (name, run) in enumerate([*runs, ("single steps", stepped)]):
        loaded = read(options.load / str(number)) if options.load else None
        stopping = options.stop / str(number) if options.stop else None
        trainer, losses, snapshot = run(name, loaded, stopping)
        results[f"{name}: digest"] = np.array(trainer.parameters_sha256())
        results[f"{name}: losses"] = np.array(losses)
        if Forks.on:
            forks = next(each for each in trainer.callbacks if isinstance(each, Forks))
            results[f"{name}: forks"] = np.array(forks.losses)
        if snapshot is not None:
            results[f"{name}: state"] = np.array(timeless(snapshot))
    np.savez(options.folder / f"rank{rank}.npz", **results)


if __name__ == "__main__":
    main()
