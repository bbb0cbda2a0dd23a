"""The options that decide what a trainer computes."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddbp import compression
from ddbp.compression import Rounded
from ddbp.data import augment
from ddbp.reduction.shards import MOST_SHARDS, RANKS, ShardPlan, chosen
from ddbp.reduction.wire import Wire
from ddbp.seldom import exchange, workers
from layers.checks import non_negative_int, one_of, positive_int
from layers.errors import Renamed, message
from layers.kernels.cache_folder import opened
from layers.precision import PRECISIONS

from . import checks, learning, loss_scale, nonfinite


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
        S, or "ranks" for one per rank, which is fastest. What DDBP_SHARDS says unless a number is
        given; else 8, or the next power of two from the number of ranks on; but one per rank with
        batch normalisation that is not synchronized, as its statistics are those of a shard.
    clip_norm, clip_value
        Limits of the gradient's global Euclidean norm, and of each of its elements.
    truncate
        Take a step on each window of so many time steps of x (N, T, …) and y (N, T, …), carrying
        the state: see `ddbp.training.truncated_bptt`.
    wire
        Send gradients between hosts as "float16", "bfloat16" or by a `Wire` of your own: see
        `ddbp.reduction.wire`.
    compression
        Send gradients of shards compressed, by a compressor such as `ddbp.TopK(0.01)` or one of
        "top-k:0.01", "power-sgd:2", "sign": see `ddbp.compression`.
    l1, l2
        Add l1 |w|₁ + l2 |w|²/2 over the regularized parameters (weights, not biases) to the loss.
    precision
        What products are computed in: "float32", or "bf16", which takes a float32 model: see
        `layers.set_precision`. "bf16x3" is refused where it takes longer than float32.
    loss_scale
        What gradients are multiplied by on their way back, a `LossScale`; nothing unless given. See
        `ddbp.training.loss_scale`.
    on_nonfinite
        What is done where a loss or a gradient is not finite: "stop" with an error that names where
        it comes from; "skip" that update; go back to the last checkpoint, "rollback" or a
        `Rollback`. See `ddbp.training.nonfinite`.
    exchange
        Have workers train apart and exchange what they have learned seldom: a `LocalSGD` or a
        `DiLoCo`, or its text. They are the shards. See `ddbp.seldom`.
    rule
        What the network learns by in place of exact backpropagation: a `layers.Rule`, or the name
        of one of `layers.rules`, such as "feedback_alignment", with this seed.
    augment
        What changes samples at random each time that `fit` and `batches` give them out: a list such
        as [Flip(), Crop(4)], or its text. See `ddbp.data.augment`.

    Raises
    ------
    ValueError
        An option is out of range.
    """

    batch_size: int
    drop_last: bool = False
    accumulate: int = 1
    seed: int = 0
    shards: Any = None
    clip_norm: float | None = None
    clip_value: float | None = None
    truncate: int | None = None
    wire: str | Wire | None = None
    compression: Any = None
    l1: float = 0.0
    l2: float = 0.0
    precision: str = "float32"
    loss_scale: Any = None
    on_nonfinite: Any = "stop"
    exchange: Any = None
    rule: Any = None
    augment: Any = ()

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
        if self.shards is not None and not (isinstance(self.shards, str) and self.shards == RANKS):
            fix = "Leave it out for 8, or more for more ranks; 'ranks' is one per rank."
            checked["shards"] = positive_int("Trainer", "shards", self.shards, fix, MOST_SHARDS)
        if self.truncate is not None:
            checked["truncate"] = positive_int(
                "Trainer", "truncate", self.truncate, "truncate=1 is the least."
            )
        checked["compression"] = compression.chosen(self.compression)
        if checked["compression"] is not None and self.wire is not None:
            must = "compression and wire cannot go together, as both say what is sent"
            got = f"compression={checked['compression']}, wire={self.wire!r}"
            raise ValueError(message("Trainer", must, got, "Leave one of them out."))
        checked["precision"] = one_of("Trainer", "precision", self.precision, PRECISIONS)
        checked["loss_scale"] = loss_scale.checked(self.loss_scale, self.precision)
        checked["rule"] = learning.checked(self.rule, checked["seed"])
        checked["augment"] = augment.chosen(self.augment)
        checked["on_nonfinite"] = nonfinite.checked(self.on_nonfinite)
        checked |= checks.gradient_changes(self.clip_norm, self.clip_value, self.l1, self.l2)
        drop_last: Any = self.drop_last
        if not isinstance(drop_last, bool | np.bool_):
            must, fix = "drop_last must be True or False", "Write drop_last=True."
            raise ValueError(message("Trainer", must, repr(drop_last), fix))
        checked["drop_last"] = bool(drop_last)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "exchange", exchange.chosen(self.exchange))
        if self.exchange is not None:
            object.__setattr__(self, "shards", workers.require(self))

    def on(self, ranks: int) -> "TrainerOptions":
        """Return the options on so many ranks, with the number of shards that is chosen there."""
        checks.ranks_have_samples(self.batch_size, ranks)
        if self.exchange is not None:
            workers.require_ranks(self.exchange, ranks)
        return replace(self, shards=chosen(self.shards, ranks))

    def plan(self, rank: int, ranks: int) -> ShardPlan:
        """Return which rank computes which shards."""
        return ShardPlan(chosen(self.shards, ranks), ranks, rank)

    def narrow(self, *, sends: bool) -> str | None:
        """Return the option that has sums of gradients rounded to float16, if one does; `wire` does
        so where a host sends them.
        """
        if isinstance(self.compression, Rounded) and self.compression.name == "float16":
            return "compression"
        return "wire" if sends and self.wire == "float16" else None

    def samples(self, of: int) -> int:
        """Return how many of so many samples an epoch takes."""
        return of - of % self.batch_size if self.drop_last else of

    def steps(self, of: int) -> int:
        """Return the number of updates in an epoch over so many samples."""
        batches = -(-self.samples(of) // self.batch_size)
        if self.exchange is not None:
            exchanges: int = self.exchange.exchanges(batches)
            return max(1, exchanges)
        return -(-batches // self.accumulate)

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
