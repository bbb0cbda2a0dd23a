"""What the doctor knows of the data and of the first pass, before there is anything to measure."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.instruments.calls import named, values_with_gradients, written
from layers import Call, Embedding, Loss, Module, TapeHook
from layers.engine.memory import flat
from layers.types import Array

if TYPE_CHECKING:
    from ddbp.data.source import Dataset

_ROWS = 2000
"""Samples that facts are drawn from, at equal distances."""
_EXACT = 1e-3
"""What float32 may lose of a prediction that is a multiple of an output plus a large constant."""


@dataclass(frozen=True)
class DataFacts:
    """What is known of a data set whose samples and targets are one array each.

    Attributes
    ----------
    samples
        How many there are.
    rms, mean, std
        Of the inputs; NaN where these are whole numbers, such as tokens.
    alike
        Whether all samples are the same.
    classes
        The number of labels, 0 where targets are no labels.
    several
        Whether a sample has more than one target.
    labels, counts
        The labels from 0 on (K,), and how often each comes (K,).
    target_rms, target_variance
        Of targets that are numbers, else NaN.
    least, largest
        The range of such targets.
    one_hot
        Whether each target is a row of zeros and a one.
    """

    samples: int
    rms: float
    mean: float
    std: float
    alike: bool
    classes: int
    several: bool
    labels: Array
    counts: Array
    target_rms: float
    target_variance: float
    least: float
    largest: float
    one_hot: bool

    @classmethod
    def of(cls, data: "Dataset") -> "DataFacts | None":
        """Return what is known of a data set, None of one with several or ragged arrays."""
        known = data.excerpt(1)
        if not (isinstance(known.x, np.ndarray) and isinstance(known.y, np.ndarray)):
            return None
        excerpt = data.excerpt(_ROWS)
        x, y = excerpt.x, excerpt.y
        rms = mean = std = np.nan
        if x.dtype.kind == "f":
            numbers = x.astype(np.float64)
            rms, mean, std = (
                float(np.sqrt(np.mean(np.square(numbers)))),
                float(numbers.mean()),
                float(numbers.std()),
            )
        labels = counts = np.zeros(0, np.int64)
        target_rms = variance = least = largest = np.nan
        one_hot = False
        if y.dtype.kind in "iub":
            labels, counts = np.unique(y[y >= 0].astype(np.int64), return_counts=True)
        else:
            numbers = y.astype(np.float64)
            target_rms = float(np.sqrt(np.mean(np.square(numbers))))
            variance = float(np.mean(np.var(numbers, axis=0)))
            least, largest = float(numbers.min()), float(numbers.max())
            zero_or_one = ((numbers == 0) | (numbers == 1)).all()
            one_hot = y.ndim > 1 and zero_or_one and bool((numbers.sum(axis=-1) == 1).all())
        return cls(
            samples=len(data),
            rms=rms,
            mean=mean,
            std=std,
            alike=len(x) > 1 and bool((x == x[:1]).all()),
            classes=len(labels),
            several=y[:1].size > 1,
            labels=labels,
            counts=counts,
            target_rms=target_rms,
            target_variance=variance,
            least=least,
            largest=largest,
            one_hot=bool(one_hot),
        )


@dataclass(frozen=True)
class Stage:
    """A call of the first pass.

    Attributes
    ----------
    name
        The column of the instruments: the layer, as written, whose output it is.
    layers
        What it consists of: more than one where layers are fused.
    names
        Those of the layers, as written.
    positions
        How many numbers its output has for each sample and channel.
    follows
        Whether its input is what the stage before has put out, and nothing else.
    trained
        Whether a gradient of its output is wanted: for itself or for what lies before it.
    sources
        The names of the stages that have put out its inputs, "" where it is none.
    """

    name: str
    layers: tuple[Module, ...]
    names: tuple[str, ...]
    positions: int
    follows: bool
    trained: bool
    sources: tuple[str, ...] = ()

    @property
    def weighs(self) -> bool:
        """Whether it multiplies by weights, and does not look rows up."""
        return any(
            parameter.value.ndim > 1
            for layer in self.layers
            if not isinstance(layer, Embedding)
            for parameter in layer.own_parameters()
        )


class FirstPass(TapeHook):
    """Writes down which layers are called, in which order, and what the loss gets.

    Parameters
    ----------
    model, loss
        Whose pass it is.
    scale
        The loss scale.

    Attributes
    ----------
    stages
        The calls before that of the loss.
    prediction
        What the loss gets (N, …), None if that is no single array.
    criterion
        The one layer that computes the loss, None where there is none, or something is added.
    factor
        What its loss is multiplied by for the gradient.
    weighted
        Whether it gets weights of samples.
    reached
        The root mean square of what the first layer that weighs gets, NaN if that is not known.
    asked
        That of what the last layer must put out for the prediction to be the target, where the
        model has scaled and shifted it after that; NaN where it has done something else, None
        where nothing, or that is not known.
    """

    def __init__(self, model: Module, loss: Any, scale: float) -> None:
        self._loss = loss
        self._scale = scale
        self._names = {id(layer): name for name, layer in named(model)}
        self.stages: list[Stage] = []
        self.prediction: Array | None = None
        self.criterion: Any = None
        self.factor = 1.0
        self.weighted = False
        self.reached = np.nan
        self.asked: float | None = None
        self.over = False
        self._output: Array | None = None
        self._sources: dict[int, str] = {}
        self._loss_call: Call | None = None
        self._value: Any = None

    def on_forward_begin(self, call: Call) -> None:
        if self.over or not (isinstance(call.layer, Loss) or call.layer is self._loss):
            return
        self.over = True
        self._sources.clear()
        self._loss_call = call
        self.weighted = len(call.inputs) > 2 and call.inputs[2] is not None
        given: Any = call.inputs[0]
        array = getattr(given, "array", None)
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.size:
            self.prediction = array.copy()
            if self._output is not None and len(call.inputs) > 1:
                self.asked = _asked(self._output, array, call.inputs[1])
        self._output = None

    def on_forward_end(self, call: Call) -> None:
        if self.over:
            return
        layers = written(call.layer)
        name = self._names.get(id(layers[-1])) or self._names.get(id(call.layer))
        if name is not None:
            trained = bool(values_with_gradients(call))
            names = tuple(self._names.get(id(layer), name) for layer in layers)
            positions = math.prod(call.output.arrays[0].shape[1:-1])
            sources = tuple(self._sources.get(id(each), "") for each in call.inputs)
            alone = bool(self.stages) and sources[:1] == (self.stages[-1].name,)
            self.stages.append(Stage(name, layers, names, positions, alone, trained, sources))
            self._output = call.output.arrays[0]
            if self.stages[-1].weighs and np.isnan(self.reached):
                self.reached = max(map(_rms, call.inputs), default=np.nan)
            self._sources[id(call.output)] = name

    def on_backward_begin(self, call: Call) -> None:
        known = self._loss_call
        if known is None or known.tape is not call.tape:
            return
        if self._value is None:
            # The first one told of is what the pass begins from.
            self._value = call.output.arrays[0]
        if call is known:
            self._loss_call = None
            given: Any = call.output.received
            whole, own = (float(np.sum(x)) for x in (self._value, call.output.arrays[0]))
            factor = float(np.sum(given)) / self._scale
            if abs(whole - factor * own) <= 1e-5 * abs(whole):
                self.criterion, self.factor = call.layer, factor

    def forget_pass(self) -> None:
        """Forget the last value of the pass, and with it the arrays of its tape."""
        self._before = None

    def probabilities(self) -> bool:
        """Return whether each row of the prediction is a distribution."""
        if self.prediction is None or self.prediction.ndim < 2 or self.prediction.shape[-1] < 2:
            return False
        rows = self.prediction.reshape(-1, self.prediction.shape[-1])
        sums = np.abs(rows.sum(axis=1, dtype=np.float64) - 1)
        return bool(flat(self.prediction).min() >= 0 and sums.max() < 1e-3)


def _rms(given: Any) -> float:
    """Return the root mean square of an array or a value, 0 if it is no array of numbers."""
    array = getattr(given, "array", given)
    known = isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.size
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if known else 0.0


def _asked(output: Array, prediction: Array, target: Any) -> float | None:
    """Return the root mean square of the targets in the units of an output, of which the prediction
    is a multiple plus a constant in each column: NaN if it is not, None if it is the output.
    """
    target = getattr(target, "array", target)
    if output.size != prediction.size or np.shape(target) != prediction.shape:
        return None
    columns = prediction.shape[-1] if prediction.ndim > 1 else 1
    x, p, y = (
        np.asarray(each, np.float64).reshape(-1, columns) for each in (output, prediction, target)
    )
    if np.array_equal(x, p):
        return None
    around, away = x - x.mean(axis=0), p - p.mean(axis=0)
    with np.errstate(all="ignore"):
        slope = (around * away).sum(axis=0) / np.square(around).sum(axis=0)
        wanted = x.mean(axis=0) + (y - p.mean(axis=0)) / slope
    if not np.abs(away - slope * around).max() <= _EXACT * np.abs(away).max():
        return np.nan
    return float(np.sqrt(np.mean(np.square(wanted))))
