"""A small run with dropout, averages or accumulation, whose steps `replay.py` runs once more.

    python scripts/bench/lib/replayed.py NETWORK FOLDER [--epochs N] [--resume] [--kill STEP]

Networks are mlp, cnn, lstm and gpt. With `--kill` the last rank is killed at that step, once.
"""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

import ddbp
from layers import (
    LSTM,
    BatchNorm,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    models,
)

SAMPLES, CLASSES = 320, 5
NETWORKS = ("mlp", "cnn", "lstm", "gpt")


class Kill(ddbp.Callback):
    """Kill the last rank at the beginning of a step, unless a file tells that this is done."""

    def __init__(self, step: int, done: Path) -> None:
        self._step = step
        self._done = done

    def on_step_begin(self, trainer: ddbp.Trainer, step: int) -> None:
        last = trainer.comm.rank == trainer.comm.size - 1
        if step == self._step and last and not self._done.exists():
            self._done.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def made(network: str, rng: np.random.Generator) -> tuple[Any, ddbp.ArrayDataset, dict[str, Any]]:
    """Return a model, data, and options of a trainer."""
    labels = rng.integers(0, CLASSES, SAMPLES)
    if network == "mlp":
        x = rng.standard_normal((SAMPLES, 12))
        model = Sequential(
            Linear(12, 32, rng=rng), ReLU(), Dropout(0.2), Linear(32, CLASSES, rng=rng)
        )
        return model, ddbp.ArrayDataset(x, labels), {"accumulate": 2, "clip_norm": 1.0}
    if network == "cnn":
        x = rng.standard_normal((SAMPLES, 8, 8, 2))
        model = Sequential(
            *(Conv2d(2, 8, 3, rng=rng), BatchNorm(8), ReLU(), MaxPool2d(2), Flatten()),
            *(Dropout(0.1), Linear(72, CLASSES, rng=rng)),
        )
        average = ddbp.ExponentialMovingAverage(0.9)
        return model, ddbp.ArrayDataset(x, labels), {"callbacks": [average]}
    tokens = rng.integers(0, CLASSES, (SAMPLES, 17))
    data = ddbp.ArrayDataset(tokens[:, :-1], tokens[:, 1:])
    if network == "gpt":
        model = models.gpt(rng, CLASSES, 16, 16, depth=2, heads=2, dropout=0.1)
        return model, data, {"clip_norm": 1.0}
    model = Sequential(
        Embedding(CLASSES, 8, rng=rng),
        LSTM(8, 16, rng=rng, layers=2, dropout=0.1),
        Linear(16, CLASSES, rng=rng),
    )
    return model, data, {"truncate": 8}


def main() -> None:
    """Train."""
    flags = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    flags.add_argument("network", choices=NETWORKS)
    flags.add_argument("run_dir", type=Path)
    flags.add_argument("--epochs", type=int, default=6)
    flags.add_argument("--resume", action="store_true")
    flags.add_argument("--kill", type=int, default=-1, metavar="STEP")
    options = flags.parse_args()
    model, data, more = made(options.network, np.random.default_rng(0))
    trainer = ddbp.Trainer(
        model,
        loss="cross_entropy",
        optimizer=ddbp.Adam(0.01),
        batch_size=32,
        shards=4,
        callbacks=[
            *more.pop("callbacks", ()),
            ddbp.Checkpoints(every_steps=7, keep_last=99),
            ddbp.StepDigests(),
            Kill(options.kill, options.run_dir / "killed"),
        ],
        run_dir=options.run_dir,
        resume="auto" if options.resume else None,
        quiet=True,
        **more,
    )
    trainer.fit(data, epochs=options.epochs)


if __name__ == "__main__":
    main()
