"""The cases of residual sums."""

from layers.residual import Residual

from .case import BATCH, Case, dense, real

_ROWS = (BATCH, 5)

CASES = (
    Case("Residual", lambda rng: Residual(dense(5, 5)(rng)), real(_ROWS)),
    Case(
        "Residual with shortcut",
        lambda rng: Residual(dense(5, 3)(rng), dense(5, 3, bias=False)(rng)),
        real(_ROWS),
    ),
)
