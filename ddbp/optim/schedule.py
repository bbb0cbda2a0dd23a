"""Learning-rate schedules: functions of the step (0 for the first)."""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ddbp.snapshot import NUMBER, Schema, State, below, integer, like
from layers.checks import is_number, non_negative, positive, positive_int, require_number
from layers.errors import message
from layers.kernels.elementary import cosine_of_number, power_of_number


class Schedule:
    """A learning rate that changes from step to step; give it to an optimizer in place of a
    number.
    """

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        raise NotImplementedError

    @property
    def base_rate(self) -> float:
        """The rate that the schedule was made with: that of the first step, unless it warms up."""
        return self.rate(0)

    def with_base_rate(self, rate: float) -> "Schedule":
        """Return the same schedule, made with another rate: all its rates are multiplied alike."""
        return _Scaled(self, rate / self.base_rate) if self.base_rate else Constant(rate)

    def begin_epoch(self, epoch: int) -> None:
        """Be told that an epoch begins or goes on, in `fit` and `batches`; epochs count from 0."""

    def observe(self, value: float) -> None:
        """Be told the validation loss (the training loss, without validation) at the end of an
        epoch.
        """

    def begun(self) -> "Schedule":
        """Return the schedule for an optimizer to begin with: a copy if it has a `state`, so that
        no other one sees what this one learns.
        """
        return self if type(self).state is Schedule.state else copy.deepcopy(self)

    def state(self) -> dict[str, Any]:
        """Return what changes during training beside the step, by name: nothing, for most."""
        return {}

    def state_schema(self, state: State) -> Schema:
        """Return what all entries of a state must be, if it is to be loaded."""
        return like(self.state())

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""


class Scheduled:
    """What has a learning rate by a schedule, `given` when it is made."""

    given: Schedule

    @property
    def learning_rate(self) -> Schedule:
        """What was given."""
        return self.given

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        owner = type(self).__name__
        must = "`learning_rate` must be given when it is made"
        fix = "Give it a schedule; `with_options(learning_rate=…)` makes one for another trainer."
        raise AttributeError(message(owner, must, f".learning_rate = {rate!r}", fix))


def as_schedule(rate: "float | Schedule", owner: str = "Constant") -> Schedule:
    """Return a schedule for a number, which `owner` refuses if it is no rate, and a schedule as it
    is.
    """
    if isinstance(rate, Schedule):
        return rate
    _require_rate(owner, rate)
    return Constant(rate)


def _require_rate(owner: str, rate: Any) -> None:
    """Refuse what is no constant learning rate."""
    must, fix = "the learning rate must be a number or a Schedule", "Try 1e-3."
    if isinstance(rate, type) and issubclass(rate, Schedule):
        fix = f"Make one: {rate.__name__}(1e-3, …)."
    elif isinstance(rate, Iterable) and not isinstance(rate, str):
        fix = "Leave the parameters out: a trainer passes them."
    if not is_number(rate):
        raise TypeError(message(owner, must, repr(rate), fix))
    require_number(owner, "the learning rate", rate, fix)
    if not (rate >= 0 and math.isfinite(rate)):
        must = "the learning rate must be finite and not negative"
        raise ValueError(message(owner, must, rate, fix))


def _positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        positive(owner, name, value, "1e-3 is a usual learning rate.", finite=True)


def _non_negative(owner: str, **values: float) -> None:
    for name, value in values.items():
        non_negative(owner, name, value, "Leave it out for the default.", finite=True)


def _power(base: float, exponent: float) -> float:
    """Return a power, infinity if that is too large."""
    return float(power_of_number(float(base), float(exponent)))


class Constant(Schedule):
    """The same rate always."""

    def __init__(self, rate: float) -> None:
        _require_rate("Constant", rate)
        self._rate = float(rate)

    def __repr__(self) -> str:
        return repr(self._rate)

    def rate(self, step: int) -> float:
        return self._rate

    def with_base_rate(self, rate: float) -> Schedule:
        return Constant(rate)


class StepDecay(Schedule):
    """Multiply the rate by `factor` at each of the given steps, or every `every` steps."""

    def __init__(
        self, rate: float, *, every: int | None = None, at: Sequence[int] = (), factor: float = 0.1
    ) -> None:
        _positive("StepDecay", rate=rate, factor=factor)
        fix = "StepDecay(0.1, every=1000) or StepDecay(0.1, at=(1000, 2000))."
        if not isinstance(at, list | tuple) or not all(
            isinstance(step, int | np.integer) for step in at
        ):
            raise TypeError(message("StepDecay", "at must be a list of steps", repr(at), fix))
        if every is not None:
            require_number("StepDecay", "every", every, fix)
        if (every is None) == (not at) or (every is not None and every < 1):
            raise ValueError(
                message(
                    "StepDecay",
                    "exactly one of every (at least 1) and at must be given",
                    (every, at),
                    fix,
                )
            )
        self._rate = rate
        self._every = every
        self._at = tuple(sorted(at))
        self._factor = factor

    def __repr__(self) -> str:
        return (
            f"StepDecay({self._rate!r},"
            f" {f'every={self._every}' if self._every else f'at={self._at}'},"
            f" factor={self._factor!r})"
        )

    def rate(self, step: int) -> float:
        times = step // self._every if self._every else sum(step >= bound for bound in self._at)
        return self._rate * _power(self._factor, times)


class Exponential(Schedule):
    """rate · factor^(step / steps): the rate falls (or rises) to `factor` times itself in `steps`
    steps.
    """

    def __init__(self, rate: float, *, factor: float, steps: int = 1) -> None:
        _positive("Exponential", rate=rate, factor=factor, steps=steps)
        self._rate = rate
        self._factor = factor
        self._steps = steps

    def __repr__(self) -> str:
        return f"Exponential({self._rate!r}, factor={self._factor!r}, steps={self._steps})"

    def rate(self, step: int) -> float:
        return self._rate * _power(self._factor, step / self._steps)


class Cosine(Schedule):
    """Half a cosine from `rate` down to `final` in `steps` steps, then `final` (Loshchilov and
    Hutter 2017, eq. 5, no restart).
    """

    def __init__(self, rate: float, *, steps: int, final: float = 0.0) -> None:
        _positive("Cosine", rate=rate, steps=steps)
        _non_negative("Cosine", final=final)
        self._rate = rate
        self._steps = steps
        self._final = final

    def __repr__(self) -> str:
        return f"Cosine({self._rate!r}, steps={self._steps}, final={self._final!r})"

    def rate(self, step: int) -> float:
        done = min(1.0, step / self._steps)
        return _cosine(self._rate, self._final, done)


class CosineRestarts(Schedule):
    """Half a cosine from `rate` down to `final` in `steps` steps, again and again, each `growth`
    times as long as the one before (Loshchilov and Hutter 2017, eq. 5).
    """

    def __init__(self, rate: float, *, steps: int, growth: int = 1, final: float = 0.0) -> None:
        _positive("CosineRestarts", rate=rate)
        _non_negative("CosineRestarts", final=final)
        self._rate = rate
        self._steps = positive_int("CosineRestarts", "steps", steps, "Steps of the first cosine.")
        self._growth = positive_int("CosineRestarts", "growth", growth, "1 is the least.")
        self._final = final

    def __repr__(self) -> str:
        return (
            f"CosineRestarts({self._rate!r}, steps={self._steps}, growth={self._growth},"
            f" final={self._final!r})"
        )

    def rate(self, step: int) -> float:
        length = self._steps
        if self._growth == 1:
            step %= length
        while step >= length:
            step -= length
            length *= self._growth
        return _cosine(self._rate, self._final, step / length)


class Polynomial(Schedule):
    """final + (rate - final) (1 - step / steps)^power, a line unless said, then `final`."""

    def __init__(self, rate: float, *, steps: int, power: float = 1.0, final: float = 0.0) -> None:
        _positive("Polynomial", rate=rate, power=power)
        _non_negative("Polynomial", final=final)
        self._rate = rate
        self._steps = positive_int("Polynomial", "steps", steps, "Steps until it is final.")
        self._power = power
        self._final = final

    def __repr__(self) -> str:
        return (
            f"Polynomial({self._rate!r}, steps={self._steps}, power={self._power!r},"
            f" final={self._final!r})"
        )

    def rate(self, step: int) -> float:
        left = max(0.0, 1 - step / self._steps)
        return self._final + (self._rate - self._final) * _power(left, self._power)


class OneCycle(Schedule):
    """From rate / start_factor up to `rate` in the first `rise` of `steps`, then down to that over
    final_factor, both by cosines.

    Smith and Topin 2018; the defaults are those of PyTorch's OneCycleLR. Momentum is not cycled.
    """

    def __init__(
        self,
        rate: float,
        *,
        steps: int,
        rise: float = 0.3,
        start_factor: float = 25.0,
        final_factor: float = 1e4,
    ) -> None:
        _positive(
            "OneCycle",
            rate=rate,
            steps=steps,
            rise=rise,
            start_factor=start_factor,
            final_factor=final_factor,
        )
        if rise >= 1:
            raise ValueError(
                message(
                    "OneCycle",
                    "rise must be a fraction below 1",
                    rise,
                    "0.3 rises for 30 % of the steps.",
                )
            )
        self._rate = rate
        self._steps = steps
        self._rise = rise
        self._start_factor = start_factor
        self._final_factor = final_factor
        self._start = rate / start_factor
        self._final = self._start / final_factor

    def __repr__(self) -> str:
        return (
            f"OneCycle({self._rate!r}, steps={self._steps}, rise={self._rise!r},"
            f" start_factor={self._start_factor!r}, final_factor={self._final_factor!r})"
        )

    @property
    def base_rate(self) -> float:
        return self._rate

    def rate(self, step: int) -> float:
        top = self._rise * self._steps - 1
        last = self._steps - 1
        if step <= top:
            return _cosine(self._start, self._rate, step / top if top > 0 else 1.0)
        return _cosine(
            self._rate, self._final, min(1.0, (step - top) / (last - top) if last > top else 1.0)
        )


def _cosine(begin: float, end: float, done: float) -> float:
    return float(end + (begin - end) * (1 + cosine_of_number(math.pi * float(done))) / 2)


class _Around(Schedule):
    """Base of schedules that change the rates of another one."""

    def __init__(self, schedule: float | Schedule) -> None:
        self._schedule = as_schedule(schedule, type(self).__name__)

    @property
    def base_rate(self) -> float:
        return self._schedule.base_rate

    def begin_epoch(self, epoch: int) -> None:
        self._schedule.begin_epoch(epoch)

    def observe(self, value: float) -> None:
        self._schedule.observe(value)

    def state(self) -> dict[str, Any]:
        return self._schedule.state()

    def state_schema(self, state: State) -> Schema:
        return self._schedule.state_schema(state)

    def load_state(self, state: State) -> None:
        self._schedule.load_state(state)


class _Scaled(_Around):
    """Another schedule, so many times as high."""

    def __init__(self, schedule: Schedule, factor: float) -> None:
        super().__init__(schedule)
        self._factor = factor

    def __repr__(self) -> str:
        return f"{self._factor!r} * {self._schedule!r}"

    @property
    def base_rate(self) -> float:
        return self._factor * self._schedule.base_rate

    def rate(self, step: int) -> float:
        return self._factor * self._schedule.rate(step)


class WarmUp(_Around):
    """A line from `start` times the schedule's first rate up to it in `steps` steps, then the
    schedule (Goyal et al. 2017, 2.2).
    """

    def __init__(self, schedule: float | Schedule, *, steps: int, start: float = 0.0) -> None:
        _positive("WarmUp", steps=steps)
        _non_negative("WarmUp", start=start)
        super().__init__(schedule)
        self._steps = steps
        self._start = start

    def __repr__(self) -> str:
        return f"WarmUp({self._schedule!r}, steps={self._steps}, start={self._start!r})"

    def rate(self, step: int) -> float:
        if step >= self._steps:
            return self._schedule.rate(step - self._steps)
        return self._schedule.rate(0) * (self._start + (1 - self._start) * (step + 1) / self._steps)


class ByEpoch(_Around):
    """A schedule whose steps are epochs: `ByEpoch(StepDecay(0.1, at=(30, 60)))`.

    `fit` and `batches` tell it of their epochs; a loop that makes its batches itself calls
    `schedule.begin_epoch(epoch)`.
    """

    def __init__(self, schedule: float | Schedule) -> None:
        super().__init__(schedule)
        self._epoch = 0

    def __repr__(self) -> str:
        return f"ByEpoch({self._schedule!r})"

    def rate(self, step: int) -> float:
        return self._schedule.rate(self._epoch)

    def begin_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            **{f"by_epoch.{n}": e for n, e in self._schedule.state().items()},
        }

    def state_schema(self, state: State) -> Schema:
        inner = self._schedule.state_schema(below("by_epoch", state))
        return {"epoch": integer(0), **{f"by_epoch.{name}": entry for name, entry in inner.items()}}

    def load_state(self, state: State) -> None:
        self._epoch = state["epoch"]
        self._schedule.load_state(below("by_epoch", state))


class Plateau(Schedule):
    """Multiply the rate by `factor`, down to `minimum`, when the loss has not fallen by a fraction
    `threshold` for more than `patience` epochs.
    """

    def __init__(
        self,
        rate: float,
        *,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        minimum: float = 0.0,
    ) -> None:
        _positive("Plateau", rate=rate, factor=factor)
        _non_negative("Plateau", patience=patience, threshold=threshold, minimum=minimum)
        self._first = float(rate)
        self._rate = self._first
        self._factor = float(factor)
        self._patience = patience
        self._threshold = threshold
        self._minimum = float(minimum)
        self._best = math.inf
        self._bad = 0

    def __repr__(self) -> str:
        return (
            f"Plateau({self._first!r}, factor={self._factor!r}, patience={self._patience},"
            f" threshold={self._threshold!r}, minimum={self._minimum!r})"
        )

    @property
    def base_rate(self) -> float:
        return self._first

    def rate(self, step: int) -> float:
        return self._rate

    def observe(self, value: float) -> None:
        if value < self._best * (1 - self._threshold) if self._best >= 0 else value < self._best:
            self._best = float(value)
            self._bad = 0
            return
        self._bad += 1
        if self._bad > self._patience:
            self._rate = max(self._minimum, self._rate * self._factor)
            self._bad = 0

    def state(self) -> dict[str, Any]:
        return {"rate": self._rate, "best": self._best, "bad": self._bad}

    def state_schema(self, state: State) -> Schema:
        return {"rate": NUMBER, "best": NUMBER, "bad": integer(0)}

    def load_state(self, state: State) -> None:
        self._rate = state["rate"]
        self._best = state["best"]
        self._bad = state["bad"]


def linear_scaling(rate: float, batch_size: int, base_batch_size: int = 256) -> float:
    """Return the rate for a global batch: rate · batch_size / base_batch_size (Goyal et al. 2017,
    section 2.1).
    """
    _positive("linear_scaling", rate=rate, batch_size=batch_size, base_batch_size=base_batch_size)
    return rate * batch_size / base_batch_size
