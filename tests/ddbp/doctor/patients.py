"""Runs that are sick, each by one change of a healthy one, and runs that are not."""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import ddbp
from layers import (
    LSTM,
    RNN,
    BatchNorm,
    BatchNorm2d,
    Composite,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    MultiHeadAttention,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    init,
    models,
)

SAMPLES = 640
OF_RANKS = {
    *("versions_differ", "data_differ", "memory_corrupted", "ranks_differ"),
    *("cores_oversubscribed", "rank_slow"),
}
"""Rules whose patients have several ranks: tests/mpi/test_doctor.py."""


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


def frozen(model: Sequential, count: int = 1) -> Sequential:
    """Return a network of which so many dense layers, the first ones, are frozen."""
    for layer in [each for each in model.layers if isinstance(each, Linear)][:count]:
        layer.freeze()
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
    order = options.pop("order", None)
    fit = {"data": TRAINING, "validation": VALIDATION, "epochs": 5}
    fit |= {name: options.pop(name) for name in [*fit] if name in options}
    weight = options.pop("class_weight", None)
    callbacks = [*options.pop("callbacks", ()), ddbp.Instruments(every=6), doctor]
    trainer = ddbp.Trainer(**{**usual, **options}, callbacks=callbacks, quiet=True)
    if order is not None:
        x, y = fit["data"]
        for rows in order(y):
            trainer.train_step(x[rows], y[rows])
        return doctor
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


def by_number(y):
    """Yield the rows of batches of a loop that takes the samples in the order of their targets."""
    for _ in range(5):
        yield from np.argsort(y.reshape(-1), kind="stable").reshape(-1, 32)


def at_random(y):
    """Yield those of a loop that shuffles them."""
    for _ in range(5):
        yield from np.random.default_rng(5).permutation(len(y)).reshape(-1, 32)


def four_times(y):
    """Yield batches of which all four shards have the same samples."""
    for rows in at_random(y):
        yield np.tile(rows[:8], 4)


class Times:
    """A loss times a number."""

    def __init__(self, factor):
        self.factor, self.loss = factor, SoftmaxCrossEntropy()

    def __call__(self, prediction, target):
        return self.loss(prediction, target) * self.factor


def flipped(gradient, step):
    """Turn the gradient around."""
    for part in gradient.parts():
        part.gradient[...] *= -1


def in_half_precision(gradient, step):
    """Cast the gradient to half precision and back."""
    for part in gradient.parts():
        part.gradient[...] = part.gradient.astype(np.float16)


class Keeping:
    """A transform that adds a share of what it has added up before."""

    def __init__(self, share):
        self.share, self.sums = share, {}

    def __call__(self, gradient, step):
        for part in gradient.parts():
            part.gradient[...] += self.share * self.sums.get(part.name, 0)
            self.sums[part.name] = part.gradient.copy()


def sequences(*layers: Any) -> dict[str, Any]:
    """Return what is changed for a recurrence over the rows of the images."""
    rows = {
        name: (x.reshape(-1, 8, 8), y)
        for name, (x, y) in (("data", TRAINING), ("validation", VALIDATION))
    }
    head = Linear(32, 10, rng=np.random.default_rng(2))
    return {"model": Sequential(*layers, head), **rows}


def recurrence(kind: Any = LSTM, gain: float = 1.0, recurrent: float = 1.0) -> Any:
    """Return a recurrence whose weights are so many times the usual ones."""
    layer = kind(8, 32, last=True, rng=np.random.default_rng(1))
    for name, parameter in layer.named_parameters():
        parameter.value *= gain if name.endswith("weight_ih") else 1
        parameter.value *= recurrent if name.endswith("weight_hh") else 1
    return layer


def attention(gain: float = 1.0) -> dict[str, Any]:
    """Return what is changed for attention over the rows of the images."""
    rng = np.random.default_rng(1)
    weights = times(gain, init.xavier_uniform)
    first = MultiHeadAttention(32, 4, rng=rng, weight_init=weights)
    return sequences(Linear(8, 32, rng=rng), LayerNorm(32), first, MeanOverTime())


class MeanOverTime(Composite):
    """The mean over the positions of a sequence."""

    def __call__(self, x):
        return x.mean(axis=1)


class Scaled(Composite):
    """A network that scales and shifts its inputs, and its outputs, by itself."""

    def __init__(self, body: Any, inputs: Any = (1.0, 0.0), outputs: Any = (1.0, 0.0)) -> None:
        self.body = body
        self._inputs, self._outputs = inputs, outputs

    def __call__(self, x):
        (times, plus), (factor, more) = self._inputs, self._outputs
        return self.body((x + plus) * times) * factor + more


def upper_half() -> tuple[np.ndarray, np.ndarray]:
    """Return images of noise (600, 8, 8, 1), and of which the upper half is bright."""
    x = np.random.default_rng(0).standard_normal((600, 8, 8, 1)).astype(np.float32)
    return x, (x[:, :4].mean(axis=(1, 2, 3)) > 0).astype(np.int64)


NOISE = upper_half()
FEW = np.concatenate([np.flatnonzero(TRAINING[1] != 0), ZEROS[:25]])
XOR = (
    np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32),
    np.array([[0], [1], [1], [0]], np.float32),
)


class Slow(ddbp.Callback):
    """Takes its time between steps, as instruments are told: a second, however busy the machine."""

    def on_step_begin(self, trainer, step):
        (instruments,) = (each for each in trainer.callbacks if isinstance(each, ddbp.Instruments))
        instruments.skip(-1.0)


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
    "underflows": {"loss": Times(1e-7), "transforms": [in_half_precision]},
    "never_changes": {
        "optimizer": ddbp.SGD(0.1, groups={"layers.2.weight": {"learning_rate": 1e-30}}),
    },
    "mostly_frozen": {"model": frozen(dense(width=16), 2)},
    "gradient_not_cleared": {"transforms": [Keeping(1.0)]},
    "gradient_flipped": {"transforms": [flipped]},
    "shards_alike": {"order": four_times},
    "units_alike": {"model": dense(weight_init=init.constant(0.1))},
    "linear_twice": {"model": dense(None)},
    "data_sorted": {"order": by_number},
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
    "batch_norm_stale": {
        "model": dense(middle=(BatchNorm(48, momentum=1e-4),)),
        "shards": 2,
        "batch_size": 64,
        "epochs": 10,
        "data": (1 + 6 * TRAINING[0], TRAINING[1]),
        "validation": (1 + 6 * VALIDATION[0], VALIDATION[1]),
    },
    "dropout_high": {"model": dense(middle=(Dropout(0.9),))},
    "momentum_high": {"optimizer": ddbp.SGD(0.01, momentum=0.999)},
    "loss_scaled": {"loss": Times(100.0), "optimizer": ddbp.SGD(0.1, momentum=0.9)},
    "epsilon_large": {"optimizer": ddbp.Adam(3e-3, epsilon=10.0)},
    "decay_high": {"optimizer": ddbp.SGD(0.1, weight_decay=0.3)},
    "attention_saturated": attention(10.0),
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
    "clipping_missing": {
        **sequences(recurrence(RNN, recurrent=2.0)),
        "optimizer": ddbp.SGD(0.2, momentum=0.9),
    },
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

CHANGES: dict[str, dict[str, Any]] = {
    "imbalance": {"class_weight": "balanced"},
    "batch_norm_of_few": {"shards": 2},
    "dropout_high": {"dropout": 0.2},
    "momentum_high": {"momentum": 0.9},
    "epsilon_large": {"epsilon": 1e-8},
    "loss_scaled": {"learning_rate": 1e-3},
    "decay_high": {"weight_decay": 0.003},
    "clips_always": {"clip_norm": 2.0},
    "units_die": {"learning_rate": 2.0},
    "clipping_missing": {"clip_norm": 1.0},
    "rate_high": {"learning_rate": 5.0},
    "rate_swings": {"learning_rate": 0.01},
    "rate_low": {"learning_rate": 4e-4},
}
"""By the name of a rule, the options that cure its patient; of the others none does."""

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
    "a loop that shuffles": {"order": at_random},
    "momentum by a transform": {"transforms": [Keeping(0.9)], "optimizer": ddbp.SGD(0.02)},
    "half precision that holds": {"transforms": [in_half_precision]},
    "a loss that is scaled for Adam": {"loss": Times(100.0)},
    "a loss that is scaled, and the rate by as much": {
        "loss": Times(100.0),
        "optimizer": ddbp.SGD(1e-3, momentum=0.9),
    },
    "a recurrence": {**sequences(recurrence()), "optimizer": ddbp.Adam(1e-2)},
    "a recurrence without clipping": {
        **sequences(recurrence(RNN)),
        "optimizer": ddbp.SGD(0.03, momentum=0.9),
    },
    "attention": attention(),
    "a slow start on one shard": {"shards": 1, "optimizer": ddbp.Adam(3e-4), "epochs": 12},
    "a frozen first layer": {"model": frozen(dense())},
    "many layers that begin with zeros": {
        "model": Sequential(
            Linear(64, 48, rng=np.random.default_rng(1)),
            ReLU(),
            Linear(48, 48, rng=np.random.default_rng(1)),
            ReLU(),
            Linear(48, 10, rng=np.random.default_rng(1), weight_init=init.zeros),
        )
    },
    "a narrow layer between two maps": {
        "model": dense(None, depth=1, width=8),
        "epochs": 10,
    },
    "a layer alone with a high rate": {
        "model": Sequential(Linear(64, 10, rng=np.random.default_rng(1))),
        "optimizer": ddbp.Adam(0.1),
    },
    "one in ten": {
        "model": dense(outputs=2),
        "data": (TRAINING[0], (TRAINING[1] == 0).astype(np.int64)),
        "validation": (VALIDATION[0], (VALIDATION[1] == 0).astype(np.int64)),
    },
    "one in twenty, smoothed": {
        "model": dense(outputs=2),
        "loss": SoftmaxCrossEntropy(label_smoothing=0.1),
        "epochs": 12,
        "data": (TRAINING[0][FEW], (TRAINING[1][FEW] == 0).astype(np.int64)),
        "validation": (VALIDATION[0], (VALIDATION[1] == 0).astype(np.int64)),
    },
    "rare labels that the loss weighs": {
        "loss": SoftmaxCrossEntropy(class_weights=1 / np.bincount(TRAINING[1][RARE])),
        "data": (TRAINING[0][RARE], TRAINING[1][RARE]),
        "optimizer": ddbp.Adam(1e-3),
    },
    "padding that the loss ignores": {
        "loss": SoftmaxCrossEntropy(ignore=0),
        "data": (TRAINING[0][RARE], TRAINING[1][RARE]),
        "optimizer": ddbp.Adam(1e-3),
    },
    "mixed samples": {
        "model": models.small_cnn(np.random.default_rng(0), (8, 8, 1), classes=2, widths=(4, 8)),
        "augment": "MixUp(1.0, classes=2)",
        "optimizer": ddbp.Adam(2e-3),
        "epochs": 10,
        "data": NOISE,
        "validation": NOISE,
    },
    "inputs that the model scales": {
        "model": Scaled(dense(), inputs=(1e-3, -500.0)),
        "data": (500 + 1000 * TRAINING[0], TRAINING[1]),
        "validation": (500 + 1000 * VALIDATION[0], VALIDATION[1]),
    },
    "outputs that the model scales": {
        "model": Scaled(dense(outputs=1), outputs=(1000.0, 5000.0)),
        "loss": MeanSquaredError(),
        "epochs": 15,
        "data": (TRAINING[0], TRAINING[0][:, 10:50].sum(axis=1, keepdims=True) * 100 + 5000),
        "validation": (TRAINING[0], TRAINING[0][:, 10:50].sum(axis=1, keepdims=True) * 100 + 5000),
    },
    "exclusive or": {
        "model": Sequential(
            Linear(2, 8, rng=np.random.default_rng(0)),
            Tanh(),
            Linear(8, 1, rng=np.random.default_rng(1)),
            Sigmoid(),
        ),
        "loss": MeanSquaredError(),
        "optimizer": ddbp.SGD(0.5, momentum=0.9),
        "batch_size": 4,
        "shards": 1,
        "epochs": 200,
        "data": XOR,
        "validation": XOR,
    },
    "raw pixels": {
        "data": (17 * TRAINING[0], TRAINING[1]),
        "validation": (17 * VALIDATION[0], VALIDATION[1]),
    },
    "targets of some dozens": {
        "model": dense(outputs=1),
        "loss": MeanSquaredError(),
        "optimizer": ddbp.Adam(1e-2),
        "epochs": 15,
        "data": (TRAINING[0], TRAINING[0][:, 10:50].sum(axis=1, keepdims=True) * 2),
        "validation": (VALIDATION[0], VALIDATION[0][:, 10:50].sum(axis=1, keepdims=True) * 2),
    },
    "a slow batch norm": {
        "model": dense(middle=(BatchNorm(48, momentum=0.02),)),
        "batch_size": 64,
        "epochs": 12,
    },
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
