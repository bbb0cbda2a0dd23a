"""Fit with a timeline; rank 1 is slow. Usage: traced.py FOLDER."""

import sys
import time

import numpy as np

import ddbp
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

STEPS, SLOW = 8, 0.03


class Slow(ddbp.Callback):
    """Has rank 1 come late to each exchange."""

    def on_phase(self, trainer: ddbp.Trainer, phase: ddbp.StepPhase) -> None:
        if phase is ddbp.StepPhase.EXCHANGE and trainer.comm.rank == 1:
            time.sleep(SLOW)


def main() -> None:
    """Fit three epochs."""
    rng = np.random.default_rng(0)
    data = ddbp.ArrayDataset(rng.standard_normal((60, 5)), rng.integers(0, 3, 60))
    model = Sequential(Linear(5, 8, rng=rng), ReLU(), Linear(8, 3, rng=rng))
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.Adam(0.01),
        batch_size=15,
        callbacks=[Slow(), ddbp.Trace(first_step=2, steps=STEPS)],
        run_dir=sys.argv[1],
        quiet=True,
    )
    trainer.fit(data, epochs=3)


if __name__ == "__main__":
    main()
