"""Train where numbers are not finite; every rank writes parameters, losses and what errors say.

Usage: nonfinite.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from resumed_parts import MARKED, Faulty, Spoil, dense, make

import ddbp
from layers import LSTM, BatchNorm, Layer, Linear, MeanSquaredError, Sequential

BATCH = 14


class FaultyForward(Faulty):
    """Gives NaN for samples that are marked."""

    def forward(self, call, x):
        return np.where(np.abs(x).max(axis=1, keepdims=True) > 1e4, np.float32(np.nan), x)

    def backward(self, call, dy):
        return (dy,)


class FaultyGate(Layer):
    """Passes on what it gets, and NaN instead of gradients of long sequences that are marked."""

    def forward(self, call, x):
        call.save(np.abs(x).max(axis=(1, 2)) > 1e4)
        return np.minimum(x, 1e4)

    def backward(self, call, dy):
        (marked,) = call.saved
        return (np.where(marked[:, None, None], np.float32(np.nan), dy),)


def refused(use, *arguments, **options) -> np.ndarray:
    """Return what is said of numbers that are not finite, and after it how often."""
    try:
        use(*arguments, **options)
    except FloatingPointError as error:
        return np.array(str(error))
    raise AssertionError


def stopped(layer: Layer, **options) -> np.ndarray:
    """Return the error of a fit."""
    return refused(make(dense(layer), ddbp.Adam(0.01), **options).fit, MARKED, epochs=1)


def single(layer: Layer, norm: Layer | None = None) -> np.ndarray:
    """Return the error of a step on a batch of its own."""
    middle = (layer,) if norm is None else (layer, norm)
    trainer = make(dense(*middle), ddbp.Adam(0.01))
    x, y = MARKED.x[:BATCH].astype(np.float32), MARKED.y[:BATCH]
    return refused(trainer.train_step, x, y)


def looped(layer: Layer) -> np.ndarray:
    """Return the error of a loop whose batches accumulate."""
    trainer = make(dense(layer), ddbp.SGD(0.1), accumulate=3)

    def loop():
        for batch in trainer.batches(MARKED):
            trainer.step(trainer.loss(trainer.model(batch.x), batch.y))

    return refused(loop)


def transformed() -> np.ndarray:
    """Return the error of a transform that spoils a gradient where one rank has it."""

    def spoil(gradient, step):
        for part in gradient.parts():
            if part.name == "layers.3.bias":
                part.gradient[-1] = np.nan

    trainer = make(dense(), ddbp.SGD(0.1), transforms=[spoil])
    return refused(trainer.fit, ddbp.ArrayDataset(MARKED.x % 7, MARKED.y), epochs=1)


def numbers(trainer: ddbp.Trainer, history: list) -> list[float]:
    """Return what a run has come to."""
    records = [record["loss"] for record in history]
    return [*records, trainer.step_count, trainer._guard.skipped, trainer._guard.rollbacks]


def skipped(layer: Layer, *middle: Layer, **options):
    """Return a trainer that leaves out updates, and its numbers."""
    trainer = make(dense(layer, *middle), ddbp.Adam(0.01), on_nonfinite="skip", **options)
    return trainer, numbers(trainer, trainer.fit(MARKED, epochs=3))


def windows(where: Layer):
    """Return a trainer of windows that leaves out updates, and its numbers."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((40, 7, 4))
    y = x[..., :2].copy()
    x[11, 4] = 1e6
    model = Sequential(Linear(4, 4, rng=rng), where, LSTM(4, 9, rng=rng), Linear(9, 2, rng=rng))
    trainer = make(
        model,
        ddbp.Adam(0.01),
        loss=MeanSquaredError(),
        truncate=3,
        accumulate=2,
        on_nonfinite="skip",
    )
    return trainer, numbers(trainer, trainer.fit(ddbp.ArrayDataset(x, y), epochs=2))


def too_large(**options):
    """Return a trainer, and data in one sample of which gradients are too large for float16."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((40, 4)).astype(np.float32)
    y = x[:, :2].copy()
    y[11] = 1e7
    model = Sequential(Linear(4, 9, rng=rng), Linear(9, 2, rng=rng))
    usual = {"loss": MeanSquaredError(), "compression": "float16"}
    return make(model, ddbp.Adam(0.01), **usual, **options), ddbp.ArrayDataset(x, y)


def narrow():
    """Return a trainer that leaves out sums that are too large for float16, and its numbers."""
    trainer, data = too_large(on_nonfinite="skip")
    return trainer, numbers(trainer, trainer.fit(data, epochs=2))


def refused_narrow() -> np.ndarray:
    """Return the error of sums that are too large for float16."""
    trainer, data = too_large()
    return refused(trainer.fit, data, epochs=1)


def rolled(folder: Path):
    """Return a trainer that goes back, and its numbers."""
    callbacks = [Spoil(7), ddbp.Checkpoints(every_steps=3, path=folder / "checkpoints")]
    trainer = make(
        dense(BatchNorm(64)),
        ddbp.Adam(ddbp.Cosine(0.01, steps=15)),
        on_nonfinite="rollback",
        callbacks=callbacks,
    )
    data = ddbp.ArrayDataset(np.minimum(MARKED.x, 1.0), MARKED.y)
    return trainer, numbers(trainer, trainer.fit(data, epochs=3, validation=data))


def main() -> None:
    """Train in all ways."""
    folder = Path(sys.argv[1])
    results = {
        "said: gradient": stopped(Faulty()),
        "said: gradient with a limit": stopped(Faulty(), clip_norm=1.0),
        "said: loss": stopped(FaultyForward()),
        "said: single": single(Faulty()),
        "said: statistics": single(FaultyForward(), BatchNorm(64, synchronized=True)),
        "said: group": looped(Faulty()),
        "said: transform": transformed(),
        "said: sums": refused_narrow(),
    }
    runs = {
        "gradient": lambda: skipped(Faulty()),
        "loss": lambda: skipped(FaultyForward(), BatchNorm(64, synchronized=True)),
        "group": lambda: skipped(Faulty(), BatchNorm(64), accumulate=2, clip_norm=1.0),
        "windows": lambda: windows(FaultyGate()),
        "sums": narrow,
        "rollback": lambda: rolled(folder),
    }
    for name, run in runs.items():
        trainer, found = run()
        results[f"{name}: digest"] = np.array(trainer.parameters_sha256())
        results[f"{name}: numbers"] = np.array(found)
    np.savez(folder / f"rank{ddbp.communicator().rank}.npz", **results)


if __name__ == "__main__":
    main()
