"""Look for a learning rate, and train on: every rank writes losses, rates and parameters.

Usage: rate_search.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import Dropout, Linear, ReLU, Sequential, SoftmaxCrossEntropy


def main() -> None:
    """Search, twice, and train."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((50, 8)), rng.integers(0, 3, 50)
    model = Sequential(Linear(8, 16, rng=rng), ReLU(), Dropout(0.3), Linear(16, 3, rng=rng))
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(0.01),
        batch_size=16,
        shards=8,
        quiet=True,
    )
    data = ddbp.ArrayDataset(x, y)
    first = ddbp.lr_find(trainer, data, steps=30)
    trainer.fit(data, epochs=2)
    second = ddbp.lr_find(trainer, data, steps=30)
    trainer.fit(data, epochs=1)
    np.savez(
        Path(sys.argv[1], f"rank{ddbp.communicator().rank}.npz"),
        losses=np.array(first.losses + second.losses),
        rates=np.array(first.rates + second.rates),
        parameters=np.frombuffer(trainer.parameters_sha256().encode(), np.uint8),
    )


main()
