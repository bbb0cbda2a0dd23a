"""Patients of the clinic: a run of one of many kinds of networks, by options that may be faults."""

import io
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import ddbp
from layers import Composite, MeanSquaredError, SoftmaxCrossEntropy

from .patient_data import GOOD, data_of, outputs_of, table
from .patient_networks import network
from .records import Gauge, Record


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
    bidirectional: bool = False
    norm: str = ""
    norm_momentum: float = 0.1
    dropout: float = 0.0
    gain: float = 1.0
    recurrent_gain: float = 1.0
    attention_gain: float = 1.0
    head_gain: float = 1.0
    bias: float = 0.0
    equal: float = 0.0
    zeros: bool = False
    linear: bool = False
    softmax: bool = False
    over_batch: bool = False
    squash: str = ""
    cut: bool = False
    frozen: bool = False
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
    accumulate: int = 1
    steps: int = 240
    schedule: str = ""
    squares: bool = False
    smoothing: float = 0.0
    averaged: bool = False
    loss_factor: float = 1.0
    kept_gradient: bool = False
    sign: float = 1.0
    half: bool = False
    stale: bool = False
    order: str = ""
    # The data.
    standardise: bool = False
    scale: float = 1.0
    column: float = 1.0
    validation_scale: float = 1.0
    target_scale: float = 1.0
    constant: bool = False
    missing: int = 0
    augment: str = ""
    labels: str = ""
    label_noise: float = 0.0
    rare: float = 0.0
    samples: int = 0


class ScaledLoss(Composite):
    """A loss times a number."""

    def __init__(self, loss: Any, factor: float) -> None:
        self.loss = loss
        self._factor = factor

    def __call__(self, prediction: Any, target: Any) -> Any:
        return self.loss(prediction, target) * self._factor


class KeptGradient:
    """A transform that forgets to clear: each gradient is added to those of all steps before."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, gradient: ddbp.GlobalGradient, step: int) -> None:
        for part in gradient.parts():
            key = part.name, part.offset
            part.gradient[...] += self._sums.get(key, 0)
            self._sums[key] = part.gradient.copy()


class FlippedGradient:
    """A transform that has the loss rise."""

    def __call__(self, gradient: ddbp.GlobalGradient, step: int) -> None:
        for part in gradient.parts():
            np.negative(part.gradient, out=part.gradient)


class HalfGradient:
    """A transform that does what wire="float16" does between hosts."""

    def __call__(self, gradient: ddbp.GlobalGradient, step: int) -> None:
        for part in gradient.parts():
            part.gradient[...] = part.gradient.astype(np.float16)


def _optimizer(o: Options, idle: str) -> ddbp.Optimizer:
    schedules: dict[str, Any] = {
        "": lambda: o.rate,
        "cosine": lambda: ddbp.Cosine(o.rate, steps=o.steps),
        "warm-up": lambda: ddbp.WarmUp(o.rate, steps=20),
        "one cycle": lambda: ddbp.OneCycle(o.rate, steps=o.steps),
        # Meant for epochs, and taken for steps.
        "by step": lambda: ddbp.StepDecay(o.rate, every=3, factor=0.5),
        "long warm-up": lambda: ddbp.WarmUp(o.rate, steps=200 * o.steps),
    }
    rate = schedules[o.schedule]()
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
    error
        What was refused before or while training, "" if nothing was.
    record
        What others' rules look at, None where training did not begin.
    steps
        After how many updates each rule fired.
    changes
        The options that each rule proposes.
    """

    options: Options
    findings: list[str] = field(default_factory=list)
    score: float = -1.0
    error: str = ""
    record: Record | None = None
    steps: list[int] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether it reached the result that is asked of it."""
        return self.score >= GOOD[self.options.data]


def trainer_of(o: Options, callbacks: list[Any], transforms: list[Any]) -> ddbp.Trainer:
    """Return the trainer of a run."""
    model = network(o)
    weights = [name for name, each in model.named_parameters() if each.value.ndim > 1]
    squares = o.squares or table(o.data)[1].dtype.kind == "f"
    loss: Any = MeanSquaredError() if squares else SoftmaxCrossEntropy(o.smoothing)
    faults = [KeptGradient()] * o.kept_gradient + [FlippedGradient()] * (o.sign < 0)
    faults += [HalfGradient()] * o.half
    return ddbp.Trainer(
        model,
        loss=loss if o.loss_factor == 1 else ScaledLoss(loss, o.loss_factor),
        optimizer=_optimizer(o, weights[len(weights) // 2]),
        batch_size=o.batch,
        shards=o.shards,
        accumulate=o.accumulate,
        seed=o.seed,
        drop_last=True,
        clip_norm=o.clip,
        wire="float16" if o.half else None,
        transforms=[*faults, *transforms],
        callbacks=callbacks,
        quiet=True,
    )


def run(o: Options, *, probes: str | bool = "unsure") -> Result:
    """Train with a doctor, in silence."""
    with redirect_stderr(io.StringIO()):
        try:
            training, validation = data_of(o)
        except (TypeError, ValueError) as error:
            return Result(o, error=_refused(error))
        gauge = Gauge(o, training, validation)
        doctor = ddbp.Doctor(probes=probes)
        callbacks = [ddbp.Instruments(every=6), doctor, gauge]
        callbacks += [ddbp.ExponentialMovingAverage(0.98)] * o.averaged
        trainer = trainer_of(o, callbacks, [gauge.look])
        score, refused = -1.0, ""
        try:
            _train(o, trainer, training, validation)
            score = _score(trainer.predict(validation.x), validation.y, o)
        except FloatingPointError:
            gauge.record.stopped = True
        except (RuntimeError, TypeError, ValueError) as error:
            refused = _refused(error)
        findings = doctor.findings
    gauge.record.score = score
    return Result(
        o,
        [each.rule for each in findings],
        score,
        refused,
        gauge.record,
        [each.step for each in findings],
        [dict(each.changes) for each in findings],
    )


def _refused(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _train(o: Options, trainer: ddbp.Trainer, training: Any, validation: Any) -> None:
    epochs = max(2, -(-o.steps // trainer.options.steps(len(training))))
    if o.stale:
        # Made anew, as when weights are loaded late: the trainer does not know of them.
        model: Any = trainer.model
        model.stages = network(replace(o, seed=o.seed + 1)).stages
    if not o.order:
        trainer.fit(training, epochs=epochs, validation=validation)
        return
    for rows in _orders(o, training, epochs):
        trainer.train_step(training.x[rows], training.y[rows])


def _orders(o: Options, training: Any, epochs: int) -> Iterator[np.ndarray]:
    """Yield the samples of each batch of a loop that makes its batches itself."""
    rng = np.random.default_rng(o.seed)
    batches = len(training) // o.batch
    in_order = np.argsort(training.y.reshape(len(training), -1)[:, 0], kind="stable")
    for _ in range(epochs):
        order = in_order if o.order == "sorted" else rng.permutation(len(training))
        if o.order == "alike":
            # Each worker draws with the same seed.
            own = o.batch // o.shards
            for number in range(batches):
                yield np.tile(order[number * own : (number + 1) * own], o.shards)
            continue
        for number in range(batches):
            yield order[number * o.batch : (number + 1) * o.batch]


def _score(prediction: Any, y: Any, o: Options) -> float:
    if o.squares:
        y = y.argmax(axis=-1)
    if y.dtype.kind == "i":
        return float(np.mean(prediction.argmax(axis=-1) == y))
    return float(1 - np.mean(np.square(prediction - y)) / np.var(y))


__all__ = ["GOOD", "Options", "Result", "data_of", "network", "outputs_of", "run", "trainer_of"]
