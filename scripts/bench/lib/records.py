"""What is measured of a run of the clinic for the rules of other diagnosers."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import ddbp
from layers import Call, TapeHook
from layers.engine.parameter import unique_parameters

if TYPE_CHECKING:
    from .patients import Options

EVERY = 20
"""Steps between two that are looked at."""
_FIRST = 10
_SAMPLES = 256
_SQUASHES = ("Tanh", "Sigmoid")


class OfParameter(NamedTuple):
    """What is known of a matrix of weights, its gradient and its update, in a step."""

    norm: float
    variance: float
    largest: float
    tiny: float
    gradient_mean: float
    gradient_norm: float
    gradient_range: float
    gradient_zeros: float
    update: float


class OfLayer(NamedTuple):
    """What is known of the output of a layer in a step; `beyond` are shares of outputs that
    belong to inputs beyond the bounds of several diagnosers.
    """

    kind: str
    mean: float
    deviation: float
    finite: bool
    not_positive: float
    silent_units: float
    tiny_units: float
    beyond: dict[str, float]


class OfStep(NamedTuple):
    """What is known of a step."""

    step: int
    parameters: list[OfParameter]
    layers: list[OfLayer]


class OfEpoch(NamedTuple):
    """What is known after an epoch; accuracies are NaN of regressions."""

    step: int
    loss: float
    validation_loss: float
    accuracy: float
    validation_accuracy: float


@dataclass
class Record:
    """A run as other diagnosers see it.

    Attributes
    ----------
    options
        Those of the run.
    classes
        The number of labels, 0 of a regression.
    inputs
        Mean, least and largest of the inputs, nothing of tokens.
    shares
        How often each label comes.
    losses
        Of all steps.
    steps, epochs
        What was measured.
    stopped
        Whether it ended as numbers were not finite.
    score
        The result.
    """

    options: "Options"
    classes: int = 0
    inputs: tuple[float, float, float] | None = None
    shares: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    steps: list[OfStep] = field(default_factory=list)
    epochs: list[OfEpoch] = field(default_factory=list)
    stopped: bool = False
    score: float = -1.0


class Gauge(ddbp.Callback, TapeHook):
    """Measures every few steps what the rules of other diagnosers ask for.

    `look` is a transform, which sees the gradient that the optimizer gets.
    """

    def __init__(self, o: "Options", training: Any, validation: Any) -> None:
        self.record = Record(o)
        self._training = training.x[:_SAMPLES], training.y[:_SAMPLES]
        self._validation = validation.x[:_SAMPLES], validation.y[:_SAMPLES]
        x, y = training.x, training.y
        if x.dtype.kind == "f":
            self.record.inputs = float(x.mean()), float(x.min()), float(x.max())
        if y.dtype.kind == "i":
            counts = np.bincount(y.ravel())
            self.record.classes = len(counts)
            self.record.shares = (counts / counts.sum()).tolist()
        self._due = False
        self._layers: list[OfLayer] = []
        self._found: list[tuple[str, list[float]]] = []
        self._before: dict[str, np.ndarray] = {}

    def on_step_begin(self, trainer: Any, step: int) -> None:
        self._due = step % EVERY == 0
        self._layers, self._found = [], []

    def on_forward_end(self, call: Call) -> None:
        if not (self._due and call.tape.training):
            return
        y = call.output.arrays[0]
        if y.dtype.kind != "f" or y.ndim < 2:
            return
        layer: Any = call.layer
        parts = getattr(layer, "parts", None) or [layer]
        self._layers.append(_of_layer(type(parts[-1]).__name__, y))

    def look(self, gradient: ddbp.GlobalGradient, step: int) -> None:
        """Look at the gradient of a step."""
        if not self._due:
            return
        for part in gradient.parts():
            g, w = part.gradient, part.values
            size = np.abs(g)
            # Asked for at the beginning only, and slow.
            first = step <= _FIRST and bool(np.isfinite(g).all())
            low, high = np.percentile(g, (5, 95)) if first else (-np.inf, np.inf)
            magnitudes = np.abs(w)
            self._before[part.name] = w.copy()
            numbers = (
                np.linalg.norm(w),
                w.var(),
                magnitudes.max(),
                np.mean(magnitudes < 1e-5),
                size.mean(),
                np.linalg.norm(g),
                high - low,
                np.mean(g == 0),
            )
            self._found.append((part.name, [float(each) for each in numbers]))

    def on_step_end(self, trainer: Any, step: int, loss: float) -> None:
        self.record.losses.append(loss)
        if not self._due:
            return
        named = dict(unique_parameters(trainer.model))
        rows = [
            OfParameter(
                *numbers,
                update=float(np.linalg.norm(named[name].value.ravel() - self._before[name])),
            )
            for name, numbers in self._found
            if name in named and named[name].value.ndim > 1
        ]
        self.record.steps.append(OfStep(step - 1, rows, self._layers))

    def on_epoch_end(self, trainer: Any, record: dict[str, Any]) -> None:
        accuracies = [
            _accuracy(trainer.predict(x), y) for x, y in (self._training, self._validation)
        ]
        losses = record["loss"], record.get("validation_loss", math.nan)
        self.record.epochs.append(OfEpoch(trainer.step_count, *losses, *accuracies))


def _accuracy(prediction: np.ndarray, y: np.ndarray) -> float:
    if y.dtype.kind == "f" and y.shape[-1] > 1:
        y = y.argmax(axis=-1)
    if y.dtype.kind == "f":
        return math.nan
    return float(np.mean(prediction.argmax(axis=-1) == y))


def _of_layer(kind: str, y: np.ndarray) -> OfLayer:
    with np.errstate(all="ignore"):
        units = np.abs(y.reshape(-1, y.shape[-1]))
        beyond: dict[str, float] = {}
        if kind in _SQUASHES:
            inputs = _inputs_of(kind, y.astype(np.float64))
            low, high = (-9.4999, 9.4999) if kind == "Tanh" else (-23.0, 16.99999)
            beyond["sagemaker"] = float(np.mean((inputs < low) | (inputs > high)))
            beyond["deepdiagnosis"] = float(np.mean(np.abs(inputs) > 5))
            # How much of the outputs lies near the ends of their range (Rakitianskaia and
            # Engelbrecht 2015: the mean over bins of |output|, for outputs in -1..1).
            spread = y if kind == "Tanh" else 2 * y - 1
            beyond["deepchecker"] = float(np.mean(np.abs(spread)))
        return OfLayer(
            kind,
            float(np.mean(np.abs(y))),
            float(y.std()),
            bool(np.isfinite(y).all()),
            float(np.mean(y <= 0)),
            float(np.mean((units > 0).mean(axis=0) < 0.01)),
            float(np.mean((units < 1e-5).mean(axis=0) > 0.95)),
            beyond,
        )


def _inputs_of(kind: str, y: np.ndarray) -> np.ndarray:
    """Return what a squashing layer was given, infinite where that is rounded away."""
    if kind == "Tanh":
        return np.arctanh(y)
    return np.log(y) - np.log1p(-y)
