"""Do what all ranks must refuse alike, and write what each of them says.

Usage: errors_on_all_ranks.py FOLDER; every rank writes rank<r>.json, a message for every case. The
last error is not caught.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import ddbp
from layers import (
    BatchNorm,
    Dropout,
    Layer,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
)

RANK = ddbp.communicator().rank
ODD = RANK == 1
RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((30, 5)), RNG.integers(0, 3, 30)
DATA = ddbp.ArrayDataset(X, LABELS)


def model(width: int = 8, p: float = 0.5, dtype: type = np.float32) -> Sequential:
    """Return a network."""
    rng = np.random.default_rng(0)
    return Sequential(
        Linear(5, width, rng=rng, dtype=dtype),
        ReLU(),
        Dropout(p),
        Linear(width, 3, rng=rng, dtype=dtype),
    )


def frozen_on_one() -> Sequential:
    """Return a network of which one rank has frozen a bias."""
    network = model()
    network[0].bias.trainable = not ODD
    return network


def trainer(network: Sequential | None = None, **options: Any) -> ddbp.Trainer:
    """Return a trainer with some options other than usual."""
    usual = {
        "loss": SoftmaxCrossEntropy(),
        "optimizer": ddbp.SGD(0.1),
        "batch_size": 12,
        "quiet": True,
    }
    return ddbp.Trainer(network or model(), **(usual | options))


class Overflows(Layer):
    """Passes on what it gets, and infinity in place of gradients of the last rank's samples."""

    def forward(self, call, x):
        return x.copy()

    def backward(self, call, dy):
        return (dy + np.float32(np.inf if RANK == 2 else 0),)


class Refuses(Layer):
    """Refuses its gradient."""

    def forward(self, call, x):
        return x.copy()

    def backward(self, call, dy):
        raise ValueError("Refuses: nothing comes back")


class Halving(ddbp.Schedule):
    """A schedule of the user's own, without a repr."""

    def rate(self, step: int) -> float:
        return 0.1 * 0.5**step


def doubled(x: Any) -> Any:
    """Return 2 x."""
    return 2 * x


def changed(array: Any) -> Any:
    """Return the array with the last value changed."""
    result = array.copy()
    result.reshape(-1)[-1] = (result.reshape(-1)[-1] + 1) % 3
    return result


def diverge() -> None:
    """Train with a rate at which the loss is soon infinite."""
    with np.errstate(all="ignore"):
        trainer(loss=MeanSquaredError(), optimizer=ddbp.SGD(1e20)).fit(
            ddbp.ArrayDataset(X, X[:, :3]), epochs=5
        )


def load_state() -> None:
    """Load a state in which one rank has another step."""
    made = trainer()
    state = made.state()
    state.values["trainer.step_count"] = 7 if ODD else 8
    made.load_state(state)


def loop(*datasets: ddbp.ArrayDataset) -> None:
    """Train on data sets in a loop of one's own."""
    made = trainer()
    for dataset in datasets:
        for batch in made.batches(dataset):
            made.step(made.loss(made.model(batch.x), batch.y))


def step(reduce: Any) -> None:
    """Take a step on what a function makes of the errors of a rank's samples."""
    made = trainer()
    batch = made.batch(X[:12].astype(np.float32), LABELS[:12])
    made.step(reduce(made.model(batch.x)))


def use_again() -> None:
    """Use data sets in all ways, and let only one rank make their digests when they are used
    again.
    """
    made, validation = trainer(), ddbp.ArrayDataset(X, LABELS)
    made.fit(DATA, epochs=1, validation=validation)
    kept, ddbp.ArrayDataset.digest = ddbp.ArrayDataset.digest, lambda data: f"what rank {RANK} has"
    try:
        made.evaluate(DATA)
        made.evaluate(validation)
        next(made.batches(validation))
    finally:
        ddbp.ArrayDataset.digest = kept


CASES = {
    "batch smaller than ranks": lambda: trainer(batch_size=2),
    "fewer shards than ranks": lambda: trainer(shards=2),
    "parameters": lambda: trainer(model(width=9 if ODD else 8)),
    "number of parameters": lambda: trainer(
        Sequential(model(), *[Linear(3, 3, rng=np.random.default_rng(0))] * ODD)
    ),
    "last parameters": lambda: trainer(
        Sequential(*model().layers[:-1], Linear(8, 3, bias=not ODD, rng=np.random.default_rng(0)))
    ),
    "type": lambda: trainer(model(dtype=np.float64 if ODD else np.float32)),
    "model": lambda: trainer(model(p=0.25 if ODD else 0.5)),
    "deep model": lambda: trainer(
        Sequential(
            model(), *[Dropout(0.5)] * 20, Dropout(0.25 if ODD else 0.125), *[Dropout(0.5)] * 20
        )
    ),
    "loss": lambda: trainer(
        loss=SoftmaxCrossEntropy(label_smoothing=0.125) if ODD else SoftmaxCrossEntropy()
    ),
    "optimizer": lambda: trainer(optimizer=ddbp.SGD(0.25 if ODD else 0.125)),
    "kind of optimizer": lambda: trainer(optimizer=ddbp.Adam(0.125) if ODD else ddbp.SGD(0.125)),
    "batch_size": lambda: trainer(batch_size=10 if ODD else 12),
    "seed": lambda: trainer(seed=5 if ODD else 0),
    "shards": lambda: trainer(shards=6 if ODD else 3),
    "metrics": lambda: trainer(metrics=[] if ODD else ["accuracy"]),
    "callbacks": lambda: trainer(callbacks=[ddbp.BestWeights() if ODD else ddbp.EarlyStopping()]),
    "options of callbacks": lambda: trainer(
        callbacks=[ddbp.EarlyStopping(patience=2 if ODD else 1)]
    ),
    "callback with and without data": lambda: trainer(
        callbacks=[
            ddbp.ExponentialMovingAverage(validation=None if ODD else ddbp.ArrayDataset(X, LABELS))
        ]
    ),
    "frozen parameters": lambda: trainer(frozen_on_one()),
    "parameter groups": lambda: trainer(
        optimizer=ddbp.SGD(0.1, groups={"*.bias": {"learning_rate": 0.5 if ODD else 0.25}})
    ),
    "clip_norm": lambda: trainer(clip_norm=1.0 if ODD else None),
    "precision": lambda: trainer(precision="bf16" if ODD else "float32"),
    "precision of float64": lambda: trainer(model(dtype=np.float64), precision="bf16"),
    "loss_scale": lambda: trainer(loss_scale=ddbp.LossScale(4.0 if ODD else 8.0)),
    "overflow at every scale": lambda: trainer(
        Sequential(model(), Overflows(), Linear(3, 3, rng=np.random.default_rng(0))),
        loss_scale=ddbp.LossScale(4.0),
    ).fit(DATA, epochs=5),
    "training x": lambda: trainer().fit(
        ddbp.ArrayDataset(changed(X) if ODD else X, LABELS), epochs=1
    ),
    "training labels": lambda: trainer().fit(
        ddbp.ArrayDataset(X, changed(LABELS) if ODD else LABELS), epochs=1
    ),
    "training weights": lambda: trainer().fit(
        ddbp.ArrayDataset(X, LABELS, weights=1 + changed(LABELS) if ODD else 1 + LABELS), epochs=1
    ),
    "class weights": lambda: trainer().fit(DATA, epochs=1, class_weight={1: 2 + RANK}),
    "ragged lengths": lambda: trainer().fit(
        ddbp.ArrayDataset([row[: 1 + n % 5 + ODD * (n == 7)] for n, row in enumerate(X)], LABELS),
        epochs=1,
    ),
    "several inputs": lambda: trainer().fit(
        ddbp.ArrayDataset((X, changed(X) if ODD else X), LABELS), epochs=1
    ),
    "drop_last": lambda: trainer(drop_last=ODD),
    "single values": lambda: trainer(
        Sequential(BatchNorm(5), model()), batch_size=29, shards=3, accumulate=2
    ).fit(DATA, epochs=1),
    "training length": lambda: trainer().fit(
        ddbp.ArrayDataset(X[:-1], LABELS[:-1]) if ODD else DATA, epochs=1
    ),
    "validation": lambda: trainer().fit(
        DATA,
        epochs=1,
        validation=ddbp.ArrayDataset(changed(X), LABELS) if ODD else ddbp.ArrayDataset(X, LABELS),
    ),
    "batches": lambda: loop(ddbp.ArrayDataset(changed(X) if ODD else X, LABELS)),
    "batches of a second data set": lambda: loop(
        DATA, ddbp.ArrayDataset(X, changed(LABELS) if ODD else LABELS)
    ),
    "evaluated data": lambda: trainer().evaluate(
        ddbp.ArrayDataset(changed(X) if ODD else X, LABELS)
    ),
    "data used again": use_again,
    "number of epochs": lambda: trainer().fit(DATA, epochs=2 if ODD else 1),
    "metric": lambda: trainer(metrics={"mine": lambda p, y: np.abs(p)}, shards="ranks").evaluate(
        DATA
    ),
    "loss of one rank": lambda: step(lambda e: (e * e).mean() ** 0.5),
    "mean of one rank within a loss": lambda: step(lambda e: ((e - e.mean(axis=0)) ** 2).mean()),
    "mean of all ranks": lambda: step(lambda e: (e * e).mean() + 0.1 * (e**3).mean()),
    "layer in the first pass": lambda: trainer(Sequential(model(), Refuses())).fit(DATA, epochs=1),
    "divergence": diverge,
    "state": load_state,
    "monitor that differs between ranks": lambda: trainer(
        callbacks=[ddbp.EarlyStopping(monitor="seconds", mode="min", patience=1)]
    ).fit(DATA, epochs=9),
    "own schedule and function": lambda: trainer(
        Sequential(model(), doubled), optimizer=ddbp.SGD(Halving())
    ).fit(DATA, epochs=1),
}


def main() -> None:
    """Collect the messages, then fail."""
    said = {}
    for name, case in CASES.items():
        try:
            case()
        except (ValueError, ddbp.CommunicationError, FloatingPointError) as error:
            said[name] = f"{type(error).__name__}: {error}"
        else:
            said[name] = "nothing"
    Path(sys.argv[1], f"rank{RANK}.json").write_text(json.dumps(said))
    trainer(seed=RANK)


if __name__ == "__main__":
    main()
