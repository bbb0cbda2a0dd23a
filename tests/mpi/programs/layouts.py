"""Train an MLP, a convolutional network with batch normalisation and dropout, one of volumes, and
an LSTM for twenty steps, in eight shards.

The MLP trains in sixteen, and in seven, on as many ranks or fewer.

Usage: layouts.py FOLDER; every rank writes its parameters, states and losses, how many ranks share
memory, how many buckets there are, and how many parameters it updates of how many.
"""

import sys
from pathlib import Path

import numpy as np

import ddbp
from layers import (
    LSTM,
    BatchNorm,
    Composite,
    Conv2d,
    Conv3d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Tanh,
)
from layers.engine.state import unique_states

STEPS = 20


def mlp(rng):
    """Return a network whose parameters fill several blocks of flat memory, so that every rank owns
    some.
    """
    return Sequential(
        Linear(20, 300, rng=rng), Tanh(), Linear(300, 30, rng=rng), ReLU(), Linear(30, 4, rng=rng)
    )


def cnn(rng):
    """Return a network whose layers hold states, draw masks and observe the batch."""
    features = [
        Conv2d(2, 4, 3, padding=1, rng=rng),
        BatchNorm(4),
        ReLU(),
        MaxPool2d(2),
        Conv2d(4, 8, 3, rng=rng),
    ]
    return Sequential(
        *features,
        BatchNorm(8, synchronized=True),
        ReLU(),
        Dropout(0.2),
        Flatten(),
        Linear(32, 4, rng=rng),
    )


def volumes(rng):
    """Return a network of volumes, whose borders are made from them."""
    return Sequential(
        Conv3d(2, 6, 3, padding=1, padding_mode="replicate", rng=rng),
        ReLU(),
        Conv3d(6, 6, 2, stride=2, groups=6, rng=rng),
        Flatten(),
        Linear(2 * 2 * 2 * 6, 4, rng=rng),
    )


class Recurrent(Composite):
    """An LSTM whose output after the last step is classified."""

    def __init__(self, rng):
        self.lstm, self.head = LSTM(6, 40, rng=rng), Linear(40, 4, rng=rng)

    def __repr__(self):
        return "Recurrent()"

    def __call__(self, x):
        return self.head(self.lstm(x)[:, -1])


RUNS = {
    "mlp": (mlp, (20,), ddbp.Adam(0.01), {"shards": 16, "clip_norm": 0.5, "l2": 1e-3}),
    "mlp, 7 shards": (mlp, (20,), ddbp.Adam(0.01), {"shards": 7, "clip_norm": 0.5, "l2": 1e-3}),
    "cnn": (cnn, (8, 8, 2), ddbp.LARS(2.0), {"shards": 8, "clip_value": 0.1, "l1": 1e-4}),
    "volumes": (volumes, (4, 5, 4, 2), ddbp.SGD(0.1), {"shards": 8}),
    "lstm": (Recurrent, (5, 6), ddbp.LAMB(0.01), {"shards": 8}),
}


def main() -> None:
    """Run all."""
    results, buckets, sizes, updated = {}, [], [], []
    for name, (network, shape, optimizer, options) in RUNS.items():
        if options["shards"] < ddbp.communicator().size:
            continue
        rng = np.random.default_rng(0)
        # 44 samples in batches of 19: the last batch has 6, less than the shards.
        x, y = rng.standard_normal((44, *shape)).astype(np.float32), rng.integers(0, 4, 44)
        model = network(np.random.default_rng(1))
        trainer = ddbp.Trainer(
            model,
            loss=SoftmaxCrossEntropy(),
            optimizer=optimizer,
            batch_size=19,
            quiet=True,
            **options,
        )
        reducer = trainer._update.reducer
        buckets.append(1 if reducer._exchange is None else len(reducer._exchange.parts))
        sizes.append(reducer.flat.values.size)
        updated.append(sum(stop - start for start, stop in reducer.ranges))
        losses = []
        while trainer.step_count < STEPS:
            losses += [
                trainer.train_step(x[rows], y[rows]) for rows in np.split(np.arange(44), (19, 38))
            ]
        values = [parameter.value.reshape(-1) for _, parameter in model.named_parameters()]
        values += [state.value.reshape(-1) for _, state in unique_states(model)]
        results[name] = np.concatenate(values)
        results[f"{name} losses"] = np.array(
            [*losses, *trainer.evaluate(ddbp.ArrayDataset(x, y)).values()]
        )
    hosts = np.diff(trainer.comm.hosts)
    results |= {"hosts": hosts, "buckets": buckets, "sizes": sizes, "updated": updated}
    np.savez(Path(sys.argv[1]) / f"rank{trainer.comm.rank}.npz", **results)


if __name__ == "__main__":
    main()
