"""Deliberately wrong backward passes, and the score: how many of them `gradcheck` catches.

Each mutant is a right layer with one usual mistake in it. A check that lets any of them pass is
broken. A family of layers has a file of mutants of the same name.
"""

from dataclasses import dataclass

import numpy as np

from layers.gradient_check.check import gradcheck

from . import (
    activation,
    attention,
    batch_norm,
    coefficients,
    conv,
    conv_frames,
    depthwise,
    dropout,
    embedding,
    group_norm,
    layer_norm,
    linear,
    loss,
    merge,
    operators,
    pool,
    pool_volume,
    recompute,
    recurrent,
    residual,
    shape,
    shortcut,
    time_pool,
    tree,
    upsample,
)
from .mutant import Mutant

_FAMILIES = (
    activation,
    attention,
    batch_norm,
    coefficients,
    conv,
    conv_frames,
    depthwise,
    dropout,
    embedding,
    group_norm,
    layer_norm,
    linear,
    loss,
    merge,
    operators,
    pool,
    pool_volume,
    recompute,
    recurrent,
    residual,
    shape,
    shortcut,
    time_pool,
    tree,
    upsample,
)
MUTANTS = tuple(mutant for family in _FAMILIES for mutant in family.MUTANTS)

__all__ = ["MUTANTS", "Mutant", "Score", "mutation_score"]


@dataclass(frozen=True)
class Score:
    """How many mutants were caught, and what gave each of them away ("" if nothing did)."""

    revealed_by: dict[str, str]

    @property
    def total(self) -> int:
        return len(self.revealed_by)

    @property
    def caught(self) -> int:
        return sum(bool(what) for what in self.revealed_by.values())

    @property
    def passed(self) -> bool:
        return self.total > 0 and self.caught == self.total

    def __str__(self) -> str:
        return (
            f"mutation score: {self.caught}/{self.total} ="
            f" {100 * self.caught / max(1, self.total):.0f} %"
        )


def mutation_score(seed: int = 0) -> Score:
    """Run `gradcheck` on every mutant."""
    revealed = {}
    for mutant in MUTANTS:
        rng = np.random.default_rng(seed)
        report = gradcheck(mutant.make(rng), *mutant.inputs(rng), seed=seed)
        found = [
            f"{block.name}: {block.verdict}" for block in report.blocks if not block.passed
        ] + report.faults
        revealed[mutant.name] = "" if report.passed else found[0]
    return Score(revealed)
