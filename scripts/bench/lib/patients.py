"""Patients of the clinic: a run of one of many kinds of networks, by options that may be faults."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes, load_digits, make_friedman1

import ddbp
from layers import (
    GELU,
    GRU,
    LSTM,
    BatchNorm,
    BatchNorm2d,
    Composite,
    Conv2d,
    Dropout,
    Embedding,
    EncoderBlock,
    Flatten,
    LayerNorm,
    LeakyReLU,
    LearnedPositions,
    Linear,
    MaxPool2d,
    MeanSquaredError,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    Value,
    init,
)

GOOD = {"digits": 0.85, "friedman": 0.7, "diabetes": 0.25, "markov": 0.42}
"""The result from which a run is good: accuracy, or the share of the variance explained."""
TOKENS = 12
ACTIVATIONS = {
    "relu": ReLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "gelu": GELU,
    "silu": SiLU,
    "leaky": LeakyReLU,
}


@dataclass(frozen=True)
class Options:
    """A run: network, training and data, with the faults that these may have."""

    family: str = "mlp"
    data: str = "digits"
    seed: int = 0
    # The network.
    width: int = 64
    depth: int = 2
    activation: str = "relu"
    norm: str = ""
    dropout: float = 0.0
    gain: float = 1.0
    head_gain: float = 1.0
    bias: float = 0.0
    equal: float = 0.0
    linear: bool = False
    softmax: bool = False
    squash: str = ""
    cut: bool = False
    # The training.
    optimizer: str = "adam"
    rate: float = 3e-3
    momentum: float = 0.9
    decay: float = 0.0
    epsilon: float = 1e-8
    clip: float | None = None
    idle: bool = False
    batch: int = 32
    shards: int = 4
    steps: int = 240
    schedule: str = ""
    squares: bool = False
    # The data.
    standardise: bool = False
    scale: float = 1.0
    validation_scale: float = 1.0
    target_scale: float = 1.0
    constant: bool = False
    shuffled: bool = False
    rare: float = 0.0
    samples: int = 0


@cache
def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and targets, inputs of the order of 1."""
    rng = np.random.default_rng(7)
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        return (x / 16).astype(np.float32), y.astype(np.int64)
    if name == "markov":
        chances = rng.dirichlet(np.full(TOKENS, 0.2), TOKENS).cumsum(axis=1)
        tokens = np.zeros((1500, 17), np.int64)
        draws = rng.random(tokens.shape)
        for i in range(1, tokens.shape[1]):
            rows = chances[tokens[:, i - 1]] < draws[:, i : i + 1]
            tokens[:, i] = np.minimum(rows.sum(axis=1), TOKENS - 1)
        return tokens[:, :-1], tokens[:, 1:]
    if name == "friedman":
        x, y = make_friedman1(1600, 10, noise=0.5, random_state=0)
        x = (x - 0.5) * 3.4
    else:
        x, y = load_diabetes(return_X_y=True)
        x = x / x.std(axis=0)
    return x.astype(np.float32), ((y - y.mean()) / y.std()).astype(np.float32)[:, np.newaxis]


def data_of(o: Options) -> tuple[ddbp.ArrayDataset, ddbp.ArrayDataset]:
    """Return the data of training and of validation, with the faults that options ask for."""
    rng = np.random.default_rng(1000 + o.seed)
    x, y = table(o.data)
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    if o.data == "digits" and o.family != "mlp":
        x = x.reshape(-1, 8, 8, 1) if o.family == "cnn" else x.reshape(-1, 8, 8)
    if o.standardise and x.dtype.kind == "f":
        x = (x - x.mean()) / x.std()
    cut = int(0.8 * len(x))
    x, y, xv, yv = x[:cut], y[:cut], x[cut:], y[cut:]
    if x.dtype.kind == "f":
        x, xv = x * np.float32(o.scale), xv * np.float32(o.scale * o.validation_scale)
    if o.rare:
        keep = (y == 0) | (rng.random(len(y)) < o.rare)
        zeros = np.flatnonzero(y == 0)
        rows = np.concatenate([np.flatnonzero(keep), rng.choice(zeros, max(0, 1200 - keep.sum()))])
        x, y = x[rows], y[rows]
    if o.samples:
        x, y = x[: o.samples], y[: o.samples]
    if o.shuffled:
        y = y.reshape(-1)[rng.permutation(y.size)].reshape(y.shape)
    if o.constant:
        x = np.broadcast_to(x[:1], x.shape).copy()
    if y.dtype.kind == "f":
        y, yv = y * np.float32(o.target_scale), yv * np.float32(o.target_scale)
    if o.squares:
        y, yv = (np.eye(10, dtype=np.float32)[labels] for labels in (y, yv))
    return ddbp.ArrayDataset(x, y), ddbp.ArrayDataset(xv, yv)


class Net(Composite):
    """Stages one after the other; the gradient may be cut in the middle."""

    def __init__(self, stages: list[Any], cut: bool) -> None:
        self.stages = stages
        self._cut = max(1, len(stages) // 2) if cut else -1

    def __call__(self, x: Any) -> Any:
        for number, stage in enumerate(self.stages):
            # A prediction records nothing, and has no gradient to cut.
            if number == self._cut and isinstance(x, Value):
                x = x.detach()
            x = stage(x)
        return x


class MeanOverTime(Composite):
    """The mean over the positions of a sequence."""

    def __call__(self, x: Any) -> Any:
        return x.mean(axis=1)


def _dense(o: Options, rng: Any, size: int, outputs: int) -> list[Any]:
    weights, activation = _weights(o), ACTIVATIONS[o.activation]
    stages: list[Any] = []
    for _ in range(o.depth):
        stages.append(
            Linear(size, o.width, rng=rng, weight_init=weights, bias_init=init.constant(o.bias))
        )
        stages += [BatchNorm(o.width)] * (o.norm == "batch")
        stages += [LayerNorm(o.width)] * (o.norm == "layer")
        stages += [] if o.linear else [activation()]
        stages += [Dropout(o.dropout)] * bool(o.dropout)
        size = o.width
    return [*stages, _head(o, rng, size, outputs)]


def _images(o: Options, rng: Any, side: int, outputs: int) -> list[Any]:
    weights, stages, channels = _weights(o), [], 1
    for number in range(o.depth):
        width = o.width // 4 * (2 if number else 1)
        stages.append(
            Conv2d(
                channels,
                width,
                3,
                padding=1,
                rng=rng,
                weight_init=weights,
                bias_init=init.constant(o.bias),
            )
        )
        stages += [BatchNorm2d(width)] * (o.norm == "batch")
        stages.append(ACTIVATIONS[o.activation]())
        if number < 2:
            stages.append(MaxPool2d(2))
            side //= 2
        stages += [Dropout(o.dropout)] * bool(o.dropout)
        channels = width
    inner = Linear(side * side * channels, 48, rng=rng, weight_init=weights)
    return [*stages, Flatten(), inner, ACTIVATIONS[o.activation](), _head(o, rng, 48, outputs)]


def _sequences(o: Options, rng: Any, size: int, outputs: int) -> list[Any]:
    kind = LSTM if o.family == "lstm" else GRU
    stages = [kind(size, o.width // 2, layers=o.depth, last=True, rng=rng)]
    stages += [Dropout(o.dropout)] * bool(o.dropout)
    return [*stages, _head(o, rng, o.width // 2, outputs)]


def _attention(o: Options, rng: Any, length: int, size: int, outputs: int) -> list[Any]:
    width = o.width // 2
    causal = o.family == "gpt"
    first = Embedding(TOKENS, width, rng=rng) if causal else Linear(size, width, rng=rng)
    blocks = [
        EncoderBlock(
            width,
            4,
            2 * width,
            rng=rng,
            causal=causal,
            dropout=o.dropout,
            activation=ACTIVATIONS[o.activation](),
            weight_init=_weights(o),
        )
        for _ in range(o.depth)
    ]
    mean = [] if causal else [MeanOverTime()]
    head = _head(o, rng, width, outputs)
    return [first, LearnedPositions(length, width, rng=rng), *blocks, LayerNorm(width), *mean, head]


def _weights(o: Options) -> Any:
    squashes = o.activation in ("tanh", "sigmoid")
    base = (
        init.xavier_uniform if squashes or o.family in ("transformer", "gpt") else init.he_uniform
    )
    if o.equal:
        return init.constant(o.equal)
    return lambda rng, shape: o.gain * base(rng, shape)


def _head(o: Options, rng: Any, size: int, outputs: int) -> Linear:
    return Linear(
        size,
        outputs,
        rng=rng,
        weight_init=lambda rng, shape: o.head_gain * init.xavier_uniform(rng, shape),
    )


def network(o: Options) -> Net:
    """Return the network of a run."""
    rng = np.random.default_rng(o.seed)
    x, y = table(o.data)
    outputs = TOKENS if o.family == "gpt" else 10 if y.dtype.kind == "i" else 1
    if o.family == "mlp":
        stages = _dense(o, rng, x.shape[1], outputs)
    elif o.family == "cnn":
        stages = _images(o, rng, 8, outputs)
    elif o.family in ("lstm", "gru"):
        stages = _sequences(o, rng, 8, outputs)
    else:
        stages = _attention(o, rng, x.shape[1] if o.family == "gpt" else 8, 8, outputs)
    stages += [Softmax()] * o.softmax
    stages += [ACTIVATIONS[o.squash]()] if o.squash else []
    return Net(stages, o.cut)


def _optimizer(o: Options, idle: str) -> ddbp.Optimizer:
    rate: Any = o.rate
    if o.schedule == "cosine":
        rate = ddbp.Cosine(o.rate, steps=o.steps)
    elif o.schedule == "warm-up":
        rate = ddbp.WarmUp(o.rate, steps=20)
    groups = {idle: {"learning_rate": 1e-30}} if o.idle else None
    options: dict[str, Any] = {"weight_decay": o.decay, "groups": groups}
    if o.optimizer == "sgd":
        return ddbp.SGD(rate, momentum=o.momentum, **options)
    kinds = {"adam": ddbp.Adam, "adamw": ddbp.AdamW, "rmsprop": ddbp.RMSProp}
    return kinds[o.optimizer](rate, epsilon=o.epsilon, **options)


@dataclass(frozen=True)
class Result:
    """How a run came out.

    Attributes
    ----------
    options
        Those of the run.
    findings
        The rules that fired, in time.
    score
        Accuracy or explained variance on the validation data; -1 where training broke off.
    """

    options: Options
    findings: list[str] = field(default_factory=list)
    score: float = -1.0

    @property
    def good(self) -> bool:
        """Whether it reached the result that is asked of it."""
        return self.score >= GOOD[self.options.data]


def run(o: Options) -> Result:
    """Train with a doctor."""
    training, validation = data_of(o)
    model = network(o)
    weights = [name for name, each in model.named_parameters() if each.value.ndim > 1]
    squares = o.squares or table(o.data)[1].dtype.kind == "f"
    doctor = ddbp.Doctor()
    trainer = ddbp.Trainer(
        model,
        loss=MeanSquaredError() if squares else SoftmaxCrossEntropy(),
        optimizer=_optimizer(o, weights[len(weights) // 2]),
        batch_size=min(o.batch, len(training)),
        shards=o.shards,
        seed=o.seed,
        drop_last=True,
        clip_norm=o.clip,
        callbacks=[ddbp.Instruments(every=6), doctor],
        quiet=True,
    )
    epochs = max(2, -(-o.steps // trainer.options.steps(len(training))))
    score = -1.0
    try:
        trainer.fit(training, epochs=epochs, validation=validation)
        score = _score(trainer.predict(validation.x), validation.y, o)
    except FloatingPointError:
        pass
    return Result(o, [each.rule for each in doctor.findings], score)


def _score(prediction: Any, y: Any, o: Options) -> float:
    if o.squares:
        y = y.argmax(axis=-1)
    if y.dtype.kind == "i":
        return float(np.mean(prediction.argmax(axis=-1) == y))
    return float(1 - np.mean(np.square(prediction - y)) / np.var(y))
