"""A small network on a small task, and a trainer for it: what tests of the trainer share."""

import numpy as np

import ddbp
from layers import Linear, ReLU, Sequential, SoftmaxCrossEntropy

RNG = np.random.default_rng(5)
X = RNG.standard_normal((83, 6))
LABELS = (X @ RNG.standard_normal((6, 3))).argmax(axis=1)
DATA = ddbp.ArrayDataset(X, LABELS)


def network(*middle, dtype=np.float32):
    """Return a small network, always the same."""
    rng = np.random.default_rng(1)
    return Sequential(
        Linear(6, 16, rng=rng, dtype=dtype), ReLU(), *middle, Linear(16, 3, rng=rng, dtype=dtype)
    )


def make(model=None, *, dtype=np.float32, **options):
    """Return a quiet trainer for it."""
    usual = {
        "loss": SoftmaxCrossEntropy(),
        "optimizer": ddbp.SGD(0.1, momentum=0.9),
        "batch_size": 20,
        "quiet": True,
    }
    return ddbp.Trainer(model or network(dtype=dtype), **(usual | options))


def values(model):
    """Return the bytes of all parameters, by name."""
    return {name: parameter.value.tobytes() for name, parameter in model.named_parameters()}


def parameters(trainer):
    """Return a copy of all parameters."""
    return np.concatenate([parameter.value.reshape(-1) for parameter in trainer.model.parameters()])
