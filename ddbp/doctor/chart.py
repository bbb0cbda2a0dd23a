"""The chart of a run: what rules may look at, up to a step, and the statistics that several use."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.instruments.noise import signal_and_noise
from ddbp.instruments.recording import Recording
from ddbp.optim.optimizer import Optimizer
from layers import SoftmaxCrossEntropy
from layers.loss.regression import MeanSquaredError
from layers.types import Array

from .facts import DataFacts, Stage

if TYPE_CHECKING:
    from ddbp.training.options import TrainerOptions

EARLY = 80
"""Steps within which weights must not multiply."""
_FEW = 8
"""Losses that a median is taken of."""
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
    """

    step: int
    epochs: int
    training: DataFacts | None
    validation: DataFacts | None
    stages: Sequence[Stage]
    probabilities: bool
    loss: Any
    optimizer: Optimizer
    options: "TrainerOptions"
    recording: Recording
    begun: Sequence[float]
    losses: Sequence[float]
    records: Sequence[dict[str, Any]]
    weights: Mapping[str, tuple[int, float]]
    alike: Sequence[str]
    weighted: bool

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
    def base(self) -> float:
        """The loss of the best constant prediction; NaN where that is not known, or is 0."""
        if self.training is None or self.weighted:
            return np.nan
        found = self.training.entropy if self.of_classes else np.nan
        found = self.training.target_variance if self.of_squares else found
        return found if found > 0 else np.nan

    @cached_property
    def recent(self) -> float:
        """The median loss of the last fifth of the steps, at least of eight; NaN if a run that has
        gone on had fewer since.
        """
        if len(self.losses) < min(_FEW, self.step):
            return np.nan
        last = np.array(self.losses[-max(_FEW, len(self.losses) // 5) :])
        return float(np.median(last)) if last.size else np.nan

    @property
    def falls(self) -> bool:
        """Whether the loss falls still: by a hundredth from the third quarter of the steps to the
        last one.
        """
        quarter = len(self.losses) // 4
        before, last = self.losses[-2 * quarter : -quarter], self.losses[-quarter:]
        return quarter > 0 and float(np.median(last)) < 0.99 * float(np.median(before))

    @property
    def finite(self) -> bool:
        """Whether all losses so far are finite."""
        return bool(np.isfinite(self.losses).all() and np.isfinite(self.begun).all())

    # The model and the optimizer

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return self.optimizer.factor * float(self.optimizer.schedule.rate(self.optimizer.steps))

    @property
    def normalises_inputs(self) -> bool:
        """Whether one of the first layers is a norm."""
        first = [layer for stage in self.stages[:2] for layer in stage.layers]
        return any("Norm" in type(layer).__name__ for layer in first)

    # What instruments have measured

    def values(self, name: str) -> Array:
        """Return a quantity of the recording (n, columns)."""
        return self.recording.values[name]

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
        return float(np.nanmax(np.nanmedian(norms / np.maximum(norms[0], usual), axis=1)))

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
        gradients = self.values("gradient_norm").astype(np.float64)
        of_batch = np.nansum(np.square(gradients), axis=1)
        # In shards, not in samples: the ratio is free of scale but for a factor.
        signal, noise = signal_and_noise(of_shards, of_batch, 1, shards.shape[1])
        with np.errstate(all="ignore"):
            found = (signal / noise)[-60:]
        found = found[np.isfinite(found)]
        if len(found) < _LAST:
            return None
        spread = found.std(ddof=1) / np.sqrt(len(found))
        return float(found.mean() / spread) if spread > 0 else np.inf


def _median(found: Array) -> float:
    found = found[np.isfinite(found)]
    return float(np.median(found)) if found.size else 0.0
