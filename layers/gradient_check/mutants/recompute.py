"""The mistakes in segments that are computed again."""

from typing import Any

from layers.containers import Sequential
from layers.dropout import Dropout
from layers.gradient_check.cases.case import BATCH, dense, real
from layers.recompute import Recompute

from .mutant import Gradients, Mutant

_ROWS = (BATCH, 5)


class _DrawnAnew(Recompute):
    def propagate(self, call: Any, dys: list[Any]) -> Gradients:
        call.draws += 1
        return super().propagate(call, [*dys])

    def _require_same(self, *facts: Any) -> None:
        """Not see it."""


class _Twice(Recompute):
    def propagate(self, call: Any, dys: list[Any]) -> Gradients:
        super().propagate(call, [*dys])
        return super().propagate(call, [*dys])


class _Forgotten(Recompute):
    def propagate(self, call: Any, dys: list[Any]) -> Gradients:
        _, *others = super().propagate(call, [*dys])
        return (None, *others)


MUTANTS = (
    Mutant(
        "masks of a segment drawn anew",
        lambda rng: _DrawnAnew(Sequential(dense(5, 5)(rng), Dropout(0.4), dense(5, 3)(rng))),
        real(_ROWS),
    ),
    Mutant("segment propagated twice", lambda rng: _Twice(dense(5, 3)(rng)), real(_ROWS)),
    Mutant(
        "gradient of a segment's input lost", lambda rng: _Forgotten(dense(5, 3)(rng)), real(_ROWS)
    ),
)
