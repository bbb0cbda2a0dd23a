"""Train a small network while a bit flips on one rank, or none.

Usage: flipped_bits.py FOLDER WHAT: nothing, value, moment, copy, state or frozen. The value and the
moment are those that rank 1 updates, the copy is of what it does not update. With nothing, whatever
may change parameters does so, and every rank writes its parameters.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import BatchNorm, Linear, Sequential, SoftmaxCrossEntropy, Tanh


class Flips(ddbp.Callback):
    """Flips a bit of one array on rank 1 after a step."""

    def on_step_end(self, trainer, step, loss):
        what = sys.argv[2]
        # A copy lives until the next update: this is ahead of a step that compares.
        if step != (14 if what == "copy" else 11) or trainer.comm.rank != 1 or what == "nothing":
            return
        values, (start, stop) = trainer._flat.values, trainer.partition.ranges[0]
        array = {
            "value": trainer.partition.values,
            "moment": trainer.optimizer.moments["square"],
            "copy": values[stop:] if start == 0 else values[:start],
            "state": trainer.model[3].running_mean.value,
            "frozen": trainer.model[0].weight.value,
        }[what]
        array.reshape(-1).view(np.uint32)[7] ^= np.uint32(1 << 3)


def main() -> None:
    """Train."""
    rng = np.random.default_rng(1)
    data = ddbp.ArrayDataset(rng.standard_normal((24, 5)), rng.integers(0, 3, 24))
    model = Sequential(
        Linear(5, 64, rng=rng),
        Tanh(),
        Linear(64, 64, rng=rng),
        BatchNorm(64),
        Linear(64, 3, rng=rng),
    )
    model[0].freeze()
    average = ddbp.ExponentialMovingAverage(0.9)
    best = ddbp.BestWeights("loss", mode="max")
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.AdamW(0.01),
        batch_size=12,
        shards=4,
        callbacks=[average, best, Flips()],
        quiet=True,
    )
    trainer.fit(data, epochs=9, validation=data)
    if sys.argv[2] == "nothing":
        with average.applied(trainer):
            trainer.evaluate(data)
        trainer.fit(data, epochs=3, validation=data)
        state = trainer.state()
        model[4].freeze()
        trainer.fit(data, epochs=3)
        model[4].unfreeze()
        average.apply(trainer)
        trainer.fit(data, epochs=3)
        trainer.load_state(state)
        with ddbp.modify_parameters(trainer) as mine:
            if mine:
                model[2].weight.value[...] *= 0.9
    trainer.fit(data, epochs=9)
    trainer.comm.all_gather(np.zeros(1))
    values = np.concatenate([parameter.value.reshape(-1) for parameter in model.parameters()])
    np.savez(Path(sys.argv[1]) / f"rank{trainer.comm.rank}.npz", parameters=values)


if __name__ == "__main__":
    main()
