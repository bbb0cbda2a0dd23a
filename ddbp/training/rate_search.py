"""The range test of learning rates (Smith 2017, "Cyclical learning rates for training neural
networks", section 3.3): steps at rates that rise, of which nothing is left.
"""

import math
from collections.abc import Mapping
from typing import Any

from ddbp.data.source import Dataset
from ddbp.optim.optimizer import Optimizer
from ddbp.optim.rate_range import RateRange, smooth
from ddbp.optim.schedule import Exponential, Schedule, as_schedule
from layers.checks import positive, positive_int
from layers.errors import message

from .fork import Fork
from .trainer import Trainer

_OWNER = "lr_find"
_LEAST = 10
"""Steps: of fewer nothing can be told."""


def lr_find(
    trainer: Trainer,
    data: Dataset,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
) -> RateRange:
    """Return the losses of a trainer at learning rates that rise, each by the same factor, and a
    rate to begin with; collective.

    Each step is one of `Trainer.fork`: it is the same to the last bit on any number of ranks, and
    after it the trainer has its parameters, states, optimizer, random numbers and place in the
    data as before. The test ends early where the smoothed loss is twice the first, or not finite.

    >>> optimizer = Adam(lr_find(trainer, training).suggestion)

    Parameters
    ----------
    trainer
        What learns, from where it is; its optimizer goes on from its moments. Groups of parameters
        with a rate of their own keep its ratio to that of the others.
    data
        What it learns, from the beginning, and again where that is at its end.
    lowest, highest
        The first and the last rate, positive.
    steps
        How many rates there are, 10 or more.

    Raises
    ------
    ValueError
        A rate or the number of steps is out of range; the trainer has no loss.
    RuntimeError
        The trainer cuts sequences into windows, workers train apart, batches accumulate, or ranks
        survive each other.
    """
    given: Any = trainer
    if not isinstance(given, Trainer):
        must, fix = "trainer must be a ddbp.Trainer", "Make one with the model and the loss."
        raise TypeError(message(_OWNER, must, f"a {type(given).__name__}", fix))
    for name, rate in {"lowest": lowest, "highest": highest}.items():
        positive(_OWNER, name, rate, "1e-6 to 10 is usual.", finite=True)
    if not lowest < highest:
        got = f"{lowest} and {highest}"
        raise ValueError(message(_OWNER, "lowest must be below highest", got, "Swap them."))
    steps = positive_int(_OWNER, "steps", steps, "100 is usual.")
    if steps < _LEAST:
        must, fix = f"steps must be at least {_LEAST}", "100 is usual."
        raise ValueError(message(_OWNER, must, steps, fix))
    begins = trainer.optimizer.members[0].steps
    rise = _Rise(Exponential(lowest, factor=highest / lowest, steps=steps - 1), begins)
    changes = {"schedule": rise, **_groups(trainer.optimizer, rise)}
    losses = Fork(trainer, data, None, None, changes, _OWNER).run(steps, _diverges)
    return RateRange([rise.rate(begins + step) for step in range(len(losses))], losses)


class _Rise(Schedule):
    """Rates of another schedule, `ratio` times as high, which begins at a later step."""

    def __init__(self, schedule: Schedule, begins: int, ratio: float = 1.0) -> None:
        self._schedule = schedule
        self._begins = begins
        self._ratio = ratio

    def rate(self, step: int) -> float:
        return self._ratio * self._schedule.rate(step - self._begins)

    @property
    def base_rate(self) -> float:
        return self._ratio * self._schedule.base_rate

    def with_base_rate(self, rate: float) -> Schedule:
        return _Rise(self._schedule, self._begins, rate / self._schedule.base_rate)


def _groups(optimizer: Optimizer, rise: Schedule) -> Mapping[str, Any]:
    """Return groups whose own rates rise alike, by the name of the option; nothing without."""
    base, groups = optimizer.given.base_rate, dict[Any, Any]()
    for pattern, options in optimizer.groups.items():
        if "learning_rate" in options and base:
            own = as_schedule(options["learning_rate"]).base_rate
            options = {**options, "learning_rate": rise.with_base_rate(rise.base_rate * own / base)}
        groups[pattern] = options
    return {"groups": groups} if groups else {}


def _diverges(losses: list[float]) -> bool:
    """Return whether the smoothed loss is twice the first one, which ends the test."""
    if not math.isfinite(losses[-1]):
        return True
    return len(losses) >= _LEAST and smooth(losses)[-1] > losses[0] + abs(losses[0])
