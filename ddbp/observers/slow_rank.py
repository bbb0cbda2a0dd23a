"""A rank that is slower than the others: for whom all of them wait, and how much."""

from typing import TYPE_CHECKING

import numpy as np

from ddbp import terminal
from layers.types import Array

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

_SECONDS, _STEPS = 60.0, 200
"""What is compared: so many seconds and so many steps, at least."""
_TIMES = 1.5
"""A rank is slow that needs so many times the time of the others."""
_SHARE = 0.1
"""Waiting for it is worth a line from this share of the time on."""


class SlowRank:
    """Says which rank is slow, once per interval at most, by the seconds that ranks are busy, which
    come with the gradients.

    A rank is busy when it does not wait for others. Those with more shards may take longer.
    """

    def __init__(self) -> None:
        self._before: tuple[object, int, float, Array] | None = None

    def look(self, trainer: "Trainer", now: float) -> None:
        """Say who is slow if there is enough to compare; `now` is the time in seconds."""
        reducer, step = trainer._update.reducer, trainer.step_count
        if not reducer.busy.any():
            # These are readings of clocks, and none has come yet.
            return
        if self._before is None or self._before[0] is not reducer or step < self._before[1]:
            self._begin(reducer, step, now, reducer.busy)
            return
        _, first, since, busy = self._before
        seconds, steps = now - since, step - first
        if seconds < _SECONDS or steps < _STEPS or len(busy) == 1:
            return
        plan = reducer.plan
        shards = [last - start for start, last in map(plan.owned, range(plan.ranks))]
        said = slow_rank(reducer.busy - busy, np.array(shards), seconds)
        self._begin(reducer, step, now, reducer.busy)
        if said:
            terminal.say(f"{said}, in steps {first} to {step}")

    def _begin(self, reducer: object, step: int, now: float, busy: Array) -> None:
        self._before = reducer, step, now, busy.copy()


def slow_rank(busy: Array, shards: Array, seconds: float) -> str:
    """Return which rank is slow, in words, "" if none is.

    Parameters
    ----------
    busy
        Seconds of so many that each rank was busy (R,).
    shards
        How many shards each rank has (R,).
    seconds
        How long all of that took.
    """
    per_shard = busy / np.maximum(shards, 1)
    slowest = int(np.argmax(np.where(shards > 0, per_shard, -np.inf)))
    others = np.arange(len(busy)) != slowest
    usual = float(
        np.median(
            per_shard[others & (shards > 0)],
        )
    )
    share = float(np.mean(busy[slowest] - busy[others])) / seconds
    if not (usual > 0 and per_shard[slowest] >= _TIMES * usual and share >= _SHARE):
        return ""
    return (
        f"rank {slowest} needs {per_shard[slowest] / usual:.1f} times the time of the others:"
        f" {share:.0%} of theirs is waiting for it"
    )
