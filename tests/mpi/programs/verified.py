"""Train a small network in a loop of its own, then by fit and on single batches, with one deed that
`ddbp verify` must judge.

Usage: verified.py DEED
"""

import os
import sys
import time

import numpy as np

import ddbp
from layers import BatchNorm, Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy

STEP = 3
RNG = np.random.default_rng(0)
DATA = ddbp.ArrayDataset(RNG.standard_normal((53, 5)), RNG.integers(0, 3, 53))


def network() -> Sequential:
    """Return a network with states and random masks."""
    rng = np.random.default_rng(1)
    norm = BatchNorm(300, synchronized=True)
    return Sequential(Linear(5, 300, rng=rng), norm, ReLU(), Dropout(0.2), Linear(300, 3, rng=rng))


def trainer(**options: object) -> ddbp.Trainer:
    """Return a trainer."""
    return ddbp.Trainer(
        network(),
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(0.01),
        batch_size=12,
        quiet=True,
        **options,
    )


def main() -> None:
    """Train."""
    deed, rank = sys.argv[1], ddbp.communicator().rank
    first = trainer(shards=2 if deed == "too few shards" else 5 if deed == "five shards" else None)
    noise = np.random.default_rng(
        os.getpid() if deed == "forget the seed" else rank if deed == "noise of ranks" else 7
    )
    for number, batch in enumerate(first.batches(DATA, epochs=2), 1):
        if deed == "hang" and number == STEP:
            time.sleep(600)
        if deed == "raise" and number == STEP and first.comm.size == 2:
            raise RuntimeError("the deed")
        x = batch.x
        if deed in ("noise of ranks", "forget the seed") and number >= STEP:
            x = x + noise.standard_normal(x.shape).astype(np.float32)
        if deed == "centre the samples of a rank" and number >= STEP:
            x = x - x.array.mean(axis=0)
        first.step(first.loss(first.model(x), batch.y))
        if number == STEP and rank == 1 and deed == "corrupt a parameter":
            first.model[0].bias.value[0] += 1
        if number == STEP and rank == 1 and deed == "corrupt a state":
            first.model[1].running_mean.value[0] += 1
    if deed == "stop early" and first.comm.size == 3:
        return
    second = trainer()
    if deed == "corrupt the second trainer" and rank == 2:
        second.model[4].weight.value[0, 0] += 1
    # More than one epoch, so that --steps ends it in the middle.
    history = second.fit(DATA, epochs=3, validation=DATA)
    assert history
    second.fit(DATA, epochs=1)
    if deed == "corrupt at the end" and rank == 1:
        second.model[0].bias.value[-1] += 1
    x = DATA.x[:12].astype(np.float32)
    while deed == "loop for ever":
        second.train_step(x, DATA.y[:12])


if __name__ == "__main__":
    main()
