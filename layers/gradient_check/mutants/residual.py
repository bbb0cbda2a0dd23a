"""The mistakes in residual sums."""

from layers.gradient_check.cases.case import BATCH, dense, real, values
from layers.residual import Residual

from .mutant import Mutant

_ROWS = (BATCH, 5)

MUTANTS = (
    Mutant(
        "gradient detached in a residual branch",
        lambda rng: Residual(dense(5, 5)(rng), values(lambda x: x.detach())(rng)),
        real(_ROWS),
    ),
)
