"""Runs that are sick, each by one change of a healthy one, and runs that are not."""

import time
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import ddbp
from layers import (
    BatchNorm,
    BatchNorm2d,
    Composite,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    init,
)

SAMPLES = 640


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 64) and labels in a random order."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32), y[order].astype(np.int64)


X, Y = digits()
TRAINING = X[:SAMPLES], Y[:SAMPLES]
VALIDATION = X[SAMPLES:1100], Y[SAMPLES:1100]
ONE_HOT = tuple(np.eye(10, dtype=np.float32)[labels] for labels in (TRAINING[1], VALIDATION[1]))
ZEROS = np.flatnonzero(TRAINING[1] == 0)
RARE = np.concatenate([np.resize(ZEROS, SAMPLES - 40), np.arange(40)])


def dense(
    activation: Any = ReLU,
    *,
    depth: int = 2,
    width: int = 48,
    outputs: int = 10,
    middle: tuple[Any, ...] = (),
    last: tuple[Any, ...] = (),
    **options: Any,
) -> Sequential:
    """Return a network of dense layers; options are those of the inner ones."""
    rng = np.random.default_rng(1)
    stages: list[Any] = []
    size = 64
    for _ in range(depth):
        stages.append(Linear(size, width, rng=rng, **options))
        stages += middle
        stages += [] if activation is None else [activation()]
        size = width
    return Sequential(*stages, Linear(size, outputs, rng=rng), *last)


def convolutional() -> Sequential:
    """Return a network of images (N, 8, 8, 1) with a batch norm."""
    rng = np.random.default_rng(1)
    first = Conv2d(1, 8, 3, padding=1, rng=rng), BatchNorm2d(8), ReLU(), MaxPool2d(2)
    return Sequential(*first, Flatten(), Linear(128, 10, rng=rng))


def frozen(model: Sequential) -> Sequential:
    """Return a network of which the first layer is frozen."""
    model.layers[0].freeze()
    return model


def times(factor, weights):
    """Return a way to draw weights, so many times as large."""
    return lambda rng, shape: factor * weights(rng, shape)


class Cut(Composite):
    """Two dense layers between which the gradient is lost."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.inner = Linear(64, 48, rng=rng)
        self.outer = Linear(48, 10, rng=rng)

    def __call__(self, x):
        return self.outer(self.inner(x).detach())


def run(**options: Any) -> ddbp.Doctor:
    """Train, and return the doctor that has watched over it."""
    doctor = ddbp.Doctor()
    usual: dict[str, Any] = {
        "model": dense(),
        "loss": SoftmaxCrossEntropy(),
        "optimizer": ddbp.Adam(3e-3),
        "batch_size": 32,
        "shards": 4,
    }
    fit = {"data": TRAINING, "validation": VALIDATION, "epochs": 5}
    fit |= {name: options.pop(name) for name in [*fit] if name in options}
    weight = options.pop("class_weight", None)
    callbacks = [*options.pop("callbacks", ()), ddbp.Instruments(every=6), doctor]
    trainer = ddbp.Trainer(**{**usual, **options}, callbacks=callbacks, quiet=True)
    try:
        trainer.fit(
            ddbp.ArrayDataset(*fit["data"]),
            epochs=fit["epochs"],
            validation=ddbp.ArrayDataset(*fit["validation"]),
            class_weight=weight,
        )
    except FloatingPointError as error:
        doctor.error = error
    return doctor


class Slow(ddbp.Callback):
    """Takes its time between steps."""

    def on_step_begin(self, trainer, step):
        time.sleep(5e-3)


SICK: dict[str, dict[str, Any]] = {
    "constant_input": {"data": (np.broadcast_to(X[:1], (SAMPLES, 64)).copy(), TRAINING[1])},
    "softmax_twice": {"model": dense(last=(Softmax(),))},
    "squared_error_of_classes": {
        "model": dense(last=(Sigmoid(),)),
        "loss": MeanSquaredError(),
        "data": (TRAINING[0], ONE_HOT[0]),
        "validation": (VALIDATION[0], ONE_HOT[1]),
    },
    "output_squashed": {"model": dense(last=(ReLU(),))},
    "no_gradient": {"model": Cut()},
    "never_changes": {
        "optimizer": ddbp.SGD(0.1, groups={"layers.2.weight": {"learning_rate": 1e-30}}),
    },
    "units_alike": {"model": dense(weight_init=init.constant(0.1))},
    "linear_twice": {"model": dense(None)},
    "imbalance": {"data": (TRAINING[0][RARE], TRAINING[1][RARE])},
    "inputs_not_normalised": {
        "data": (TRAINING[0] * 255, TRAINING[1]),
        "validation": (VALIDATION[0] * 255, VALIDATION[1]),
    },
    "targets_not_scaled": {
        "model": dense(outputs=1),
        "loss": MeanSquaredError(),
        "data": (TRAINING[0], 100 * TRAINING[0].sum(axis=1, keepdims=True)),
        "validation": (VALIDATION[0], 100 * VALIDATION[0].sum(axis=1, keepdims=True)),
    },
    "validation_scaled_otherwise": {"validation": (VALIDATION[0] * 16, VALIDATION[1])},
    "batch_norm_of_few": {"model": dense(middle=(BatchNorm(48),)), "shards": 16},
    "dropout_high": {"model": dense(middle=(Dropout(0.9),))},
    "momentum_high": {"optimizer": ddbp.SGD(0.01, momentum=0.999)},
    "epsilon_large": {"optimizer": ddbp.Adam(3e-3, epsilon=10.0)},
    "decay_high": {"optimizer": ddbp.SGD(0.1, weight_decay=0.3)},
    "saturated": {"model": dense(Tanh, weight_init=times(8, init.xavier_uniform))},
    "activations_explode": {"model": dense(depth=4, weight_init=times(7, init.he_uniform))},
    "last_layer_large": {
        "model": Sequential(
            *dense().layers[:-1],
            Linear(
                48,
                10,
                rng=np.random.default_rng(1),
                weight_init=times(40, init.xavier_uniform),
            ),
        )
    },
    "units_dead": {"model": dense(bias_init=init.constant(-5.0))},
    "gradients_vanish": {"model": dense(Sigmoid, depth=5)},
    "clips_always": {"optimizer": ddbp.SGD(0.05), "clip_norm": 1e-3},
    "units_die": {"optimizer": ddbp.SGD(20.0)},
    "rate_high": {"model": dense(Tanh), "optimizer": ddbp.SGD(50.0)},
    "rate_swings": {"model": dense(Tanh), "optimizer": ddbp.Adam(0.07)},
    "rate_low": {"optimizer": ddbp.Adam(1e-5)},
    "learns_nothing": {
        "data": (TRAINING[0], np.random.default_rng(3).permutation(TRAINING[1])),
    },
    "overfits": {"data": (X[:30], Y[:30]), "epochs": 120, "batch_size": 16},
    "waits_for_data": {"epochs": 3, "callbacks": [Slow()]},
}
"""By the name of the rule that must fire, what is changed."""

HEALTHY: dict[str, dict[str, Any]] = {
    "Adam": {},
    "momentum": {"optimizer": ddbp.SGD(0.1, momentum=0.9)},
    "RMSProp": {"optimizer": ddbp.RMSProp(1e-3)},
    "tanh": {"model": dense(Tanh)},
    "deep": {"model": dense(depth=4)},
    "batch norm": {"model": dense(middle=(BatchNorm(48),)), "batch_size": 64},
    "batch norm of two images": {
        "model": convolutional(),
        "shards": 16,
        "data": (TRAINING[0].reshape(-1, 8, 8, 1), TRAINING[1]),
        "validation": (VALIDATION[0].reshape(-1, 8, 8, 1), VALIDATION[1]),
    },
    "dropout and decay": {
        "model": dense(middle=(Dropout(0.3),)),
        "optimizer": ddbp.AdamW(3e-3, weight_decay=0.1),
    },
    "one shard": {"shards": 1},
    "a slow start on one shard": {"shards": 1, "optimizer": ddbp.Adam(3e-4), "epochs": 12},
    "a frozen first layer": {"model": frozen(dense())},
    "weighed labels": {
        "model": dense(outputs=2),
        "data": (TRAINING[0], (TRAINING[1] == 0).astype(np.int64)),
        "validation": (VALIDATION[0], (VALIDATION[1] == 0).astype(np.int64)),
        "class_weight": "balanced",
    },
    "regression": {
        "model": dense(outputs=1),
        "loss": MeanSquaredError(),
        "data": (TRAINING[0], TRAINING[0][:, 10:50].mean(axis=1, keepdims=True) * 4),
        "validation": (VALIDATION[0], VALIDATION[0][:, 10:50].mean(axis=1, keepdims=True) * 4),
    },
}
"""Runs that come to a good result."""
