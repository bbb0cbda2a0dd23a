"""The options that decide what a trainer computes."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddbp.reduction.shards import MOST_SHARDS, ShardPlan, chosen
from ddbp.reduction.wire import Wire
from layers.checks import non_negative_int, positive_int
from layers.errors import Renamed, message
from layers.kernels.cache_folder import opened

from . import checks, nonfinite


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """The options of a `Trainer` that decide what it computes.

    Ranks must have them in common, the run folder's configuration holds them, and a state can only
    be loaded where they are the same.

    Parameters
    ----------
    batch_size
        Samples of the global batch, over all ranks.
    drop_last
        Leave out the last batch of an epoch of training where it would be smaller.
    accumulate
        Batches for each update; an epoch's last ones may be fewer. See `no_sync`.
    seed
        Seed of the order of the data and of random masks.
    shards
        S; what DDBP_SHARDS says or else one per rank, which is fastest, unless given.
    clip_norm, clip_value
        Limits of the gradient's global Euclidean norm, and of each of its elements.
    truncate
        Take a step on each window of so many time steps of x (N, T, …) and y (N, T, …), carrying
        the state: see `ddbp.training.truncated_bptt`.
    wire
        Send gradients between hosts as "float16", "bfloat16" or by a `Wire` of your own: see
        `ddbp.reduction.wire`.
    l1, l2
        Add l1 |w|₁ + l2 |w|²/2 over the regularized parameters (weights, not biases) to the loss.
    on_nonfinite
        What is done where a loss or a gradient is not finite: "stop" with an error that names where
        it comes from; "skip" that update; go back to the last checkpoint, "rollback" or a
        `Rollback`. See `ddbp.training.nonfinite`.

    Raises
    ------
    ValueError
        An option is out of range.
    """

    batch_size: int
    drop_last: bool = False
    accumulate: int = 1
    seed: int = 0
    shards: int | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    truncate: int | None = None
    wire: str | Wire | None = None
    l1: float = 0.0
    l2: float = 0.0
    on_nonfinite: Any = "stop"

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "seed": non_negative_int("Trainer", "seed", self.seed, "seed=0 is usual."),
            "batch_size": positive_int(
                "Trainer", "batch_size", self.batch_size, "batch_size=1 is the least."
            ),
            "accumulate": positive_int(
                "Trainer", "accumulate", self.accumulate, "accumulate=1 is the least."
            ),
        }
        if self.shards is not None:
            checked["shards"] = positive_int(
                "Trainer", "shards", self.shards, "Leave it out for one per rank.", MOST_SHARDS
            )
        if self.truncate is not None:
            checked["truncate"] = positive_int(
                "Trainer", "truncate", self.truncate, "truncate=1 is the least."
            )
        checked["on_nonfinite"] = nonfinite.checked(self.on_nonfinite)
        checked |= checks.gradient_changes(self.clip_norm, self.clip_value, self.l1, self.l2)
        drop_last: Any = self.drop_last
        if not isinstance(drop_last, bool | np.bool_):
            must, fix = "drop_last must be True or False", "Write drop_last=True."
            raise ValueError(message("Trainer", must, repr(drop_last), fix))
        checked["drop_last"] = bool(drop_last)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def on(self, ranks: int) -> "TrainerOptions":
        """Return the options on so many ranks, with the number of shards that is chosen there."""
        checks.ranks_have_samples(self.batch_size, ranks)
        return replace(self, shards=chosen(self.shards, ranks))

    def plan(self, rank: int, ranks: int) -> ShardPlan:
        """Return which rank computes which shards."""
        return ShardPlan(chosen(self.shards, ranks), ranks, rank)

    def samples(self, of: int) -> int:
        """Return how many of so many samples an epoch takes."""
        return of - of % self.batch_size if self.drop_last else of

    def steps(self, of: int) -> int:
        """Return the number of updates in an epoch over so many samples."""
        return -(-self.samples(of) // (self.batch_size * self.accumulate))

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def read(cls, run_dir: str | os.PathLike[str]) -> "TrainerOptions":
        """Return the options in the configuration of a run folder.

        >>> options = TrainerOptions.read("runs/first")
        >>> trainer = Trainer(model, loss=loss, optimizer=optimizer, **options.as_dict())

        Raises
        ------
        ValueError
            The folder has no whole configuration.
        """
        path = Path(run_dir) / "config.json"
        try:
            with opened(path, links=True) as file:
                configuration: Mapping[str, Any] = json.loads(file.readall())
            return cls(**{name: configuration[name] for name in _NAMES if name in configuration})
        except (OSError, RecursionError, TypeError, ValueError) as error:
            must = f"{path} must be the configuration of a run"
            fix = "Pass the run_dir= of a trainer whose fit has begun."
            raise ValueError(message("TrainerOptions.read", must, error, fix)) from error


_NAMES = [field.name for field in fields(TrainerOptions)]


class OptionsOfBefore:
    """The options that were attributes of a trainer."""

    batch_size = Renamed("options.batch_size")
    accumulate = Renamed("options.accumulate")
    seed = Renamed("options.seed")
    shards = Renamed("options.shards")
    clip_norm = Renamed("options.clip_norm")
    clip_value = Renamed("options.clip_value")
    truncate = Renamed("options.truncate")
    wire = Renamed("options.wire")
    l1 = Renamed("options.l1")
    l2 = Renamed("options.l2")
