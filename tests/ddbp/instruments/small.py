"""A small network on a small task, and what instruments measure of it."""

import numpy as np

import ddbp
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

SAMPLES, FEATURES, CLASSES = 48, 5, 3
_RNG = np.random.default_rng(2)
X = _RNG.standard_normal((SAMPLES, FEATURES)).astype(np.float32)
Y = _RNG.integers(0, CLASSES, SAMPLES)
DATA = ddbp.ArrayDataset(X, Y)


def network(*middle):
    rng = np.random.default_rng(1)
    return Sequential(Linear(FEATURES, 8, rng=rng), ReLU(), *middle, Linear(8, CLASSES, rng=rng))


def make(model=None, *instruments, callbacks=(), **options):
    usual = {
        "loss": SoftmaxCrossEntropy(),
        "optimizer": ddbp.SGD(0.1),
        "batch_size": 16,
        "shards": 4,
        "quiet": True,
    }
    return ddbp.Trainer(
        model or network(), callbacks=[*instruments, *callbacks], **(usual | options)
    )


def recorded(model=None, *, epochs=1, every=1, data=DATA, **options):
    """Return what instruments measure in a fit, and the trainer."""
    instruments = ddbp.Instruments(every)
    trainer = make(model, instruments, **options)
    trainer.fit(data, epochs=epochs)
    return instruments.recording, trainer
