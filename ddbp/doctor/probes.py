"""Probes: what steps with other options tell that looking on does not.

A fork of the run (`Trainer.fork`) is some steps from the present state, of which nothing is left:
two of them on the same batches, of which one has other options, are compared by their last losses.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp.comm.agreement import gather_texts
from ddbp.optim.adam import Adam
from ddbp.optim.groups import changed

from .chart import Chart
from .finding import Changes, Finding, sentence
from .rule import Rule

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

STEPS = 40
"""Of a fork."""
_BETTER = 0.95
"""A change helps if the loss is no more than so much of the usual one."""
_FASTER, _LEARNS, _UNLEARNT = 0.6, 0.8, 0.85
"""A rate is too low if ten times that comes to so much of the loss, and it itself to no less than
the last number of times that of a constant guess; where nothing is learnt at all, the second number
is enough.
"""
_NOTHING = 0.95
"""Where the loss is still so much of that, thirty times the rate is tried."""
_LEAST_STEPS = 60
_NOT_IN_FORKS = {"class_weight", "shards"}


@dataclass(frozen=True)
class Trial:
    """Two forks on the same batches.

    Attributes
    ----------
    changes
        What options one of them had.
    usual, changed
        The losses that they came to: means over the last eighth of the steps.
    """

    changes: Changes
    usual: float
    changed: float

    @property
    def ratio(self) -> float:
        """The loss with the changes as a part of the usual one; infinite if that is not finite."""
        finite = math.isfinite(self.changed) and self.usual > 0
        return self.changed / self.usual if finite else math.inf

    def __str__(self) -> str:
        return (
            f"a fork of {STEPS} steps with that came to a loss of {self.changed:.3g} instead of"
            f" {self.usual:.3g}"
        )


def sound(chart: Chart, found: Finding, exact: Sequence[Rule]) -> Finding:
    """Return a finding, without its changes if exact rules find something wrong with those that is
    not wrong already.
    """
    changes = found.changes
    if not changes:
        return found
    options = {each.name for each in fields(chart.options)}
    of_trainer: dict[str, Any] = {n: value for n, value in changes.items() if n in options}
    try:
        optimizer = changed(chart.optimizer, changes)
    except (AttributeError, TypeError, ValueError):
        # A class of a script's own may be made otherwise.
        return found
    other = replace(chart, optimizer=optimizer, options=replace(chart.options, **of_trainer))
    for rule in exact:
        if rule.finding(other) and not rule.finding(chart):
            remedy = f"{found.remedy} But not that alone: {rule.name} would be found then."
            return replace(found, remedy=remedy, changes={})
    return found


def compare(trainer: "Trainer", changes: Changes, steps: int = STEPS) -> Trial:
    """Return what steps with other options come to, and without; collective.

    Parameters
    ----------
    trainer
        The trainer, between two steps.
    changes
        As `Trainer.fork` takes them.
    steps
        Of each of the two forks.
    """
    options: dict[str, Any] = dict(changes)
    usual, other = trainer.fork(steps), trainer.fork(steps, **options)
    return Trial(changes, _last(usual, steps), _last(other, steps))


def _last(losses: list[float], steps: int) -> float:
    return float(np.mean(losses[-max(1, steps // 8) :]))


def overfit(
    trainer: "Trainer", samples: int = 16, steps: int = 60, learning_rate: float = 1e-2
) -> tuple[float, float]:
    """Return the first and the last loss of learning a few samples by heart, from the present
    weights with Adam; collective. Nothing is left of it.

    A model that cannot even do that has a fault of its own, or stands on dead or saturated units;
    where it can, look for what is wrong in data, options and optimizer. In a trial with small
    networks the loss of those came down to less than a fifth, and to no less than two thirds where
    gradients vanished, units were dead or alike, or softmax was applied twice.

    Parameters
    ----------
    trainer
        The trainer, in a fit or a loop over batches.
    samples
        How many: the first ones of the data.
    steps
        Updates, each on all of them.
    learning_rate
        That of Adam.
    """
    optimizer = Adam(learning_rate)
    losses = trainer.fork(steps, samples=samples, optimizer=optimizer, accumulate=1)
    return losses[0], losses[-1]


class Probes:
    """The forks that a doctor asks for.

    Parameters
    ----------
    when
        "unsure": within the budget; True: whatever they cost; False: never.
    budget
        How many steps of forks there may be for each step of a fit.

    Attributes
    ----------
    spent
        Steps of forks so far.
    doubted
        Whether forks have told already whether the learning rate is too low.
    """

    def __init__(self, when: str | bool, budget: float) -> None:
        self._when = when
        self._budget = budget
        self._allowed = 0.0
        self.spent = 0
        self.doubted = False

    def begin(self, steps: int) -> None:
        """Know how many steps a fit has."""
        self._allowed = math.inf if self._when is True else self._budget * steps

    def _compared(self, trainer: "Trainer", changes: Changes) -> Trial:
        self.spent += 2 * STEPS
        return compare(trainer, changes)

    def consider(
        self,
        trainer: "Trainer",
        found: list[Finding],
        chart: Callable[[], Chart],
        *,
        known: bool,
    ) -> list[Finding]:
        """Return what is found after a second thought, given what makes the chart on the leading
        rank, and whether anything is known already; the same on all ranks, and collective.
        """
        if self._when is False or not (trainer._fit.running and trainer.forkable):
            return found
        if self.spent + 2 * STEPS > self._allowed:
            return found
        unsure = not (found or known) or any(each.rule == "learns_nothing" for each in found)
        if unsure and (found or not self.doubted) and trainer.step_count >= _LEAST_STEPS:
            slow = self._slow(trainer, chart, _LEARNS if found else _FASTER)
            return found if slow is None else [slow]
        return [self._tried(trainer, each) for each in found]

    def _slow(self, trainer: "Trainer", make: Callable[[], Chart], faster: float) -> Finding | None:
        """Return the finding that the learning rate is too low, if ten times that learns so much
        faster and it itself has learnt next to nothing.
        """
        from .rules.steps import rate_low

        chart = make() if trainer.comm.leads else None
        here = None
        if chart is not None:
            here = chart.base, chart.floor, chart.recent if chart.finite else np.nan
        base, floor, recent = json.loads(gather_texts(trainer.comm, json.dumps(here))[0])
        unlearnt, nothing = (floor + part * (base - floor) for part in (_UNLEARNT, _NOTHING))
        if not recent > unlearnt:
            return None
        self.doubted = True
        optimizer = trainer.optimizer
        rate = optimizer.factor * optimizer.schedule.base_rate
        times = 30 if recent > nothing else 10
        trial = self._compared(trainer, {"learning_rate": float(f"{times * rate:.1g}")})
        if not (trial.ratio <= faster and trial.usual > unlearnt):
            return None
        evidence = f"the loss is {recent:.3g}, that of the best constant {base:.3g}"
        numbers = {"loss": recent, "base": base}
        finding = Finding(
            rate_low.name, trainer.step_count, evidence, rate_low.cause, "", "", numbers
        )
        return _proven(finding, trial)

    def _tried(self, trainer: "Trainer", found: Finding) -> Finding:
        """Return a finding with what its change comes to in a fork, if that can be tried."""
        if not found.changes or _NOT_IN_FORKS & found.changes.keys():
            return found
        trial = self._compared(trainer, found.changes)
        if trial.ratio <= _BETTER:
            return _proven(found, trial)
        remedy = f"{found.remedy} Not proven: {trial}."
        return replace(found, remedy=remedy, numbers=_with(found, trial), proven=False)


def _proven(found: Finding, trial: Trial) -> Finding:
    remedy = f"{sentence(trial.changes)} Proven: {trial}."
    numbers = _with(found, trial)
    return replace(found, remedy=remedy, changes=trial.changes, numbers=numbers, proven=True)


def _with(found: Finding, trial: Trial) -> dict[str, float]:
    return {**found.numbers, "fork": trial.changed, "usual_fork": trial.usual}
