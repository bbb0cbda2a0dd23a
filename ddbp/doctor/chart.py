"""The chart of a run: what rules may look at, up to a step, and the statistics that several use."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ddbp.instruments.noise import signal_and_noise
from ddbp.instruments.recording import Recording
from ddbp.optim.optimizer import Optimizer
from layers import SoftmaxCrossEntropy
from layers.loss.regression import MeanSquaredError
from layers.recurrent.recurrence import Recurrence
from layers.types import Array

from . import guess
from .facts import DataFacts, Stage
from .finding import Changes
from .ranks import OfRanks

if TYPE_CHECKING:
    from ddbp.training.options import TrainerOptions

EARLY = 80
"""Steps within which weights must not multiply."""
_EPOCHS, _STEPS = 2, 60
"""After so many of each, and half of the run, something must be learnt."""
_FEW = 8
"""Losses that a median is taken of."""
_BEFORE = 20
"""Losses that the next one is compared with."""
_EACH = 12
"""Losses each of which may be less than the one before."""
_ROUNDING = 1e-6
"""By how much the loss of a constant guess must be more than the least, as a part of it."""
_LAST = 12
"""Recorded steps that a state must have lasted for."""


@dataclass
class Chart:
    """What is known of a run.

    Attributes
    ----------
    step
        How many updates there have been.
    epochs
        How many epochs are over.
    training, validation
        Facts of the data, if they are known.
    stages
        The calls of the first pass, in order.
    probabilities
        Whether the loss got rows that sum to one in the first pass.
    loss
        The loss.
    factor
        What that is multiplied by in the gradient, and in the losses.
    optimizer, options
        Those of the trainer.
    recording
        What instruments have measured.
    begun, losses
        The losses of the first steps and of the last ones.
    records
        The records of epochs.
    weights
        Names of the parameters that are matrices or more, with their sizes and the norm that
        Glorot's weights would have.
    alike
        Names of those whose units all had the same weights when training began.
    weighted
        Whether samples have weights.
    since
        The updates and epochs before, on other data than those of the losses.
    planned
        How many updates a fit is to make, 0 where nobody has said.
    outputs
        The number of logits, 0 if that is not known.
    reached, asked
        The root mean squares of what reaches the first layer that weighs, and of what the last
        layer must put out; see `FirstPass`.
    ranks
        What is known of the ranks.
    """

    step: int
    epochs: int
    training: DataFacts | None
    validation: DataFacts | None
    stages: Sequence[Stage]
    probabilities: bool
    loss: Any
    factor: float
    optimizer: Optimizer
    options: "TrainerOptions"
    recording: Recording
    begun: Sequence[float]
    losses: Array
    records: Sequence[dict[str, Any]]
    weights: Mapping[str, tuple[int, float]]
    alike: Sequence[str]
    weighted: bool
    since: tuple[int, int] = (0, 0)
    planned: int = 0
    outputs: int = 0
    reached: float = np.nan
    asked: float | None = None
    ranks: OfRanks = field(default_factory=OfRanks)

    # The loss

    @property
    def of_classes(self) -> bool:
        """Whether the loss is a cross-entropy of logits."""
        return isinstance(self.loss, SoftmaxCrossEntropy)

    @property
    def of_squares(self) -> bool:
        """Whether the loss is the mean squared error."""
        return isinstance(self.loss, MeanSquaredError)

    @cached_property
    def _bounds(self) -> tuple[float, float]:
        """The loss of the best constant prediction, and the least that there can be."""
        data = self.training
        if data is None or self.weighted:
            return np.nan, np.nan
        if not self.of_classes:
            return (data.target_variance if self.of_squares else np.nan), 0.0
        # What mixes labels makes probabilities of them; those that are given are not known.
        classes = self.outputs or int(data.labels.max(initial=0)) + 1
        return guess.of_labels(self.loss, data.labels, data.counts, classes, self.options.augment)

    @cached_property
    def base(self) -> float:
        """The loss of the best constant prediction; NaN where that is not known, or is no more than
        the least.
        """
        base, floor = self._bounds
        known = min(base, self.factor) > 0 and base - floor > _ROUNDING * base
        return base * self.factor if known else np.nan

    @cached_property
    def floor(self) -> float:
        """The least loss that there can be: not 0 for targets that are smoothed or mixed."""
        return self._bounds[1] * self.factor

    def unlearnt(self, loss: float) -> float:
        """Return which part of what can be learnt a loss has left: 1 for that of the best constant
        prediction, 0 for the least; NaN where these are not known.
        """
        return (loss - self.floor) / (self.base - self.floor)

    @cached_property
    def left(self) -> float:
        """Which part of what can be learnt is left, by the recent loss."""
        return self.unlearnt(self.recent)

    @cached_property
    def recent(self) -> float:
        """The median loss of the last fifth of the steps, at least of eight; NaN if a run that has
        gone on had fewer since.
        """
        if len(self.losses) < min(_FEW, self.step):
            return np.nan
        last = self.losses[-max(_FEW, len(self.losses) // 5) :]
        return float(np.median(last)) if last.size else np.nan

    @property
    def late(self) -> bool:
        """Whether so much of the run is over that something must be learnt.

        Many a model begins late, as a recurrence over long sequences does.
        """
        steps, epochs = self.step - self.since[0], self.epochs - self.since[1]
        return steps >= _STEPS and epochs >= _EPOCHS and 2 * steps >= self.planned

    @property
    def falls(self) -> bool:
        """Whether the loss falls still: by a hundredth from the third quarter of the steps to the
        last one.
        """
        quarter = len(self.losses) // 4
        before, last = self.losses[-2 * quarter : -quarter], self.losses[-quarter:]
        return quarter > 0 and float(np.median(last)) < 0.99 * float(np.median(before))

    @property
    def falls_steadily(self) -> bool:
        """Whether the loss has fallen in nearly all of the last steps, as it can where each batch
        is the whole data.
        """
        return len(self.losses) > _EACH and float(np.mean(np.diff(self.losses[-_EACH:]) < 0)) > 0.9

    @cached_property
    def jumps(self) -> int:
        """In how many steps the loss was half as high again as usual in the 20 before, and had more
        than half of what can be learnt left.
        """
        losses = np.asarray(self.losses)
        if len(losses) <= _BEFORE:
            return 0
        usual = np.median(sliding_window_view(losses[:-1], _BEFORE), axis=1)
        middle = 0.5 * (self.base + self.floor)
        return int(np.sum(losses[_BEFORE:] > np.maximum(1.5 * usual, middle)))

    @cached_property
    def finite(self) -> bool:
        """Whether all losses so far are finite."""
        return bool(np.isfinite(self.losses).all() and np.isfinite(self.begun).all())

    # The model and the optimizer

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return self.optimizer.factor * float(self.optimizer.schedule.rate(self.optimizer.steps))

    def rate_times(self, factor: float) -> Changes:
        """Return the change to so many times the learning rate, to one digit: that which the
        schedule was made with.
        """
        rate = self.optimizer.factor * self.optimizer.schedule.base_rate * factor
        return {"learning_rate": float(f"{rate:.1g}")}

    @property
    def recurs(self) -> bool:
        """Whether the model has a recurrence through time."""
        return any(isinstance(layer, Recurrence) for each in self.stages for layer in each.layers)

    @property
    def normalises_inputs(self) -> bool:
        """Whether one of the first layers is a norm."""
        first = [layer for stage in self.stages[:2] for layer in stage.layers]
        return any("Norm" in type(layer).__name__ for layer in first)

    @property
    def input_rms(self) -> float:
        """That of what reaches the first layer that weighs, or of the inputs if that is not known:
        a model may scale these itself. NaN where inputs are whole numbers.
        """
        if self.training is None:
            return np.nan
        known = np.isfinite(self.training.rms) and self.reached > 0
        return self.reached if known else self.training.rms

    # What instruments have measured

    def values(self, name: str) -> Array:
        """Return a quantity of the recording (n, columns)."""
        return self.recording.values[name]

    def of_run(self, name: str) -> Array:
        """Return a quantity of the whole run (n,)."""
        found = self.values(name)
        return found[:, 0] if found.shape[1] else np.full(len(found), np.nan)

    @property
    def from_beginning(self) -> bool:
        """Whether the first losses are known, and the first step is recorded: not where ranks go on
        that had no part in it.
        """
        known = bool(self.begun) and self.recorded > 0
        return known and int(self.recording.steps[0]) == 0

    @property
    def recorded(self) -> int:
        """How many steps are recorded."""
        return len(self.recording.steps)

    @cached_property
    def whole_gradients(self) -> Array:
        """The norm of the whole gradient in each recorded step (n,)."""
        return np.sqrt(_square_sums(self.values("gradient_norm")))

    @cached_property
    def cosines(self) -> Array:
        """The cosine of the whole update and the whole gradient in each recorded step (n,)."""
        names = "update_cosine", "gradient_norm", "update_norm"
        cosines, *norms = (self.values(name).astype(np.float64) for name in names)
        lengths = [np.sqrt(_square_sums(each)) for each in norms]
        along: Array = np.nansum(cosines * norms[0] * norms[1], axis=1)
        along /= np.maximum(lengths[0] * lengths[1], 1e-300)
        return along

    @cached_property
    def weight_columns(self) -> list[int]:
        """The columns of parameters that are weights and are trained."""
        return [i for i, name in enumerate(self.recording.parameters) if name in self.weights]

    @cached_property
    def ratio(self) -> float:
        """The median over steps of the median over weights of |update| / |weights|."""
        found = self.values("update_ratio")[1:, self.weight_columns]
        return _median(found[found > 0])

    @cached_property
    def early(self) -> float:
        """That of the first steps."""
        few = (self.recording.steps >= 1) & (self.recording.steps <= 24)
        found = self.values("update_ratio")[few][:, self.weight_columns]
        return _median(found[found > 0])

    @cached_property
    def growth(self) -> float:
        """How many times as large weights become in the early steps: the most over these of the
        median over weights, against their first norm or that of Glorot's weights if this is larger.
        """
        columns = self.weight_columns
        if not columns or not self.from_beginning:
            return 1.0
        names = [self.recording.parameters[i] for i in columns]
        norms = self.values("parameter_norm")[self.recording.steps <= EARLY][:, columns]
        usual = np.array([self.weights[name][1] for name in names])
        return float(np.nanmax(_row_medians(norms / np.maximum(norms[0], usual))))

    def share(self, test: Callable[[int], bool], least: int = 3) -> float:
        """Return in which share of the last recorded steps a test of their rows holds, 0 if there
        are too few.
        """
        rows = range(max(0, self.recorded - _LAST), self.recorded)
        return float(np.mean([test(row) for row in rows])) if len(rows) >= least else 0.0

    @cached_property
    def chain(self) -> list[int]:
        """The columns of layers that multiply by weights, in the order of their calls."""
        place = {name: i for i, name in enumerate(self.recording.layers)}
        found = [place[each.name] for each in self.stages if each.weighs and each.name in place]
        return list(dict.fromkeys(found))

    def coherence(self) -> float | None:
        """Return how many standard errors the mean of |G|² / tr Σ is above 0, over the last steps,
        None if there are too few (McCandlish et al. 2018, appendix A.1).
        """
        shards = self.values("shard_gradient_norm").astype(np.float64)
        if shards.shape[1] < 2:
            return None
        of_shards = np.mean(np.square(shards), axis=1)
        of_batch = _square_sums(self.values("gradient_norm"))
        # In shards, not in samples: the ratio is free of scale but for a factor.
        signal, noise = signal_and_noise(of_shards, of_batch, 1, shards.shape[1])
        with np.errstate(all="ignore"):
            found = (signal / noise)[-60:]
        found = found[np.isfinite(found)]
        if len(found) < _LAST:
            return None
        spread = found.std(ddof=1) / np.sqrt(len(found))
        return float(found.mean() / spread) if spread > 0 else np.inf


def _square_sums(norms: Array) -> Array:
    """Return the square of the norm of all columns together, in each row."""
    found: Array = np.nansum(np.square(norms.astype(np.float64)), axis=1)
    return found


def _row_medians(found: Array) -> Array:
    """Return the median of each row without what is NaN, as `np.nanmedian` in a tenth of its
    time.
    """
    ordered = np.sort(found, axis=1)
    counts = found.shape[1] - np.isnan(found).sum(axis=1)
    rows = np.arange(len(found))
    low, high = np.maximum(counts - 1, 0) // 2, counts // 2
    middle = (ordered[rows, low] + ordered[rows, np.minimum(high, found.shape[1] - 1)]) / 2
    return np.where(counts > 0, middle, np.nan)


def _median(found: Array) -> float:
    found = found[np.isfinite(found)]
    return float(np.median(found)) if found.size else 0.0
