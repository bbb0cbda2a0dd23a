"""Accumulate gradients in fits and in loops, on uneven batches; every rank writes parameters and
losses.

Usage: accumulate.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import (
    GRU,
    BatchNorm,
    Dropout,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)

RNG = np.random.default_rng(3)
X, LABELS = RNG.standard_normal((67, 20)), RNG.integers(0, 4, 67)
DATA = ddbp.ArrayDataset(X, LABELS)
SEQUENCES = ddbp.ArrayDataset(RNG.standard_normal((67, 7, 4)), RNG.standard_normal((67, 7, 2)))


def make(model: Sequential, **options: object) -> ddbp.Trainer:
    """Return a quiet trainer."""
    usual = {
        "loss": SoftmaxCrossEntropy(),
        "optimizer": ddbp.Adam(0.01),
        "batch_size": 12,
        "shards": 6,
        "quiet": True,
    }
    return ddbp.Trainer(model, **{**usual, **options})


def network() -> Sequential:
    """Return a network with masks and states."""
    rng = np.random.default_rng(1)
    norm = BatchNorm(64, synchronized=True)
    return Sequential(Linear(20, 64, rng=rng), norm, ReLU(), Dropout(0.2), Linear(64, 4, rng=rng))


def groups_of_fit() -> tuple[ddbp.Trainer, list[float]]:
    """Fit with groups of 36 and 31 samples, the last batch of 7 leaving ranks with a single one."""
    trainer = make(network(), accumulate=3, clip_norm=1.0, l2=1e-3)
    history = trainer.fit(DATA, epochs=3, validation=DATA)
    return trainer, [record[name] for record in history for name in ("loss", "validation_loss")]


def windows() -> tuple[ddbp.Trainer, list[float]]:
    """Fit truncated sequences with windows of several batches in turn."""
    rng = np.random.default_rng(1)
    model = Sequential(GRU(4, 9, rng=rng), Tanh(), Linear(9, 2, rng=rng))
    trainer = make(model, loss=MeanSquaredError(), accumulate=2, truncate=3)
    return trainer, [record["loss"] for record in trainer.fit(SEQUENCES, epochs=2)]


def ignoring() -> tuple[ddbp.Trainer, list[float]]:
    """Hold back most batches, of several sizes, with labels that do not count; begin before any
    kernel is known.
    """
    trainer = make(network(), loss=SoftmaxCrossEntropy(ignore=-1), metrics={})
    labels = np.where(np.arange(67) % 5 < np.arange(67) // 15, -1, LABELS)
    losses = []
    for _ in range(2):
        for rows in np.split(np.arange(67), (5, 20, 26, 50)):
            if rows[-1] in (19, 66):
                losses.append(trainer.train_step(X[rows].astype(np.float32), labels[rows]))
            else:
                with trainer.no_sync():
                    trainer.train_step(X[rows].astype(np.float32), labels[rows])
    return trainer, losses


if __name__ == "__main__":
    results = {}
    for run in (groups_of_fit, windows, ignoring):
        trainer, losses = run()
        results[f"{run.__name__}, losses"] = np.array(losses)
        results[f"{run.__name__}, digest"] = np.array(trainer.parameters_sha256())
    np.savez(Path(sys.argv[1]) / f"rank{trainer.comm.rank}.npz", **results)
