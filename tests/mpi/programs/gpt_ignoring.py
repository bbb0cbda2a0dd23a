"""Train a small language model whose labels are partly ignored, unevenly over samples; every rank
writes what it got.

Usage: gpt_ignoring.py FOLDER.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import SoftmaxCrossEntropy
from layers.models import gpt

SAMPLES = 11
RNG = np.random.default_rng(5)
IDS, LABELS = RNG.integers(0, 9, (SAMPLES, 6)), RNG.integers(0, 9, (SAMPLES, 6))
LABELS[RNG.random((SAMPLES, 6)) < np.linspace(0, 1, SAMPLES)[:, np.newaxis]] = -1

if __name__ == "__main__":
    model = gpt(
        np.random.default_rng(1), 9, context=6, features=8, depth=1, heads=2, dropout=0.1, tied=True
    )
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(ignore=-1),
        optimizer=ddbp.Adam(0.01),
        batch_size=SAMPLES,
        shards=5,
        metrics={},
    )
    dataset = ddbp.ArrayDataset(IDS, LABELS)
    # Before any step: a rank that compiles alone must not be waited for.
    before = trainer.evaluate(dataset)["loss"]
    losses = [trainer.train_step(IDS, LABELS) for _ in range(3)]
    after = trainer.evaluate(dataset)["loss"]
    parameters = np.concatenate([p.value.reshape(-1) for p in model.parameters()])
    np.savez(
        Path(sys.argv[1]) / f"rank{trainer.comm.rank}.npz",
        losses=[before, *losses, after],
        parameters=parameters,
    )
