"""The cases of trained numbers."""

from collections.abc import Callable

from layers.coefficients import Coefficients

from .case import BATCH, Case, Generator
from .embedding import ids


def coefficients(*shape: int) -> Callable[[Generator], Coefficients]:
    """Return the constructor of coefficients of a shape."""
    return lambda rng: Coefficients(rng.standard_normal(shape))


CASES = (
    Case("Coefficients", coefficients(3, 5), ids(9, BATCH, 2)),
    Case("Coefficients, one number", coefficients(1), ids(9, BATCH)),
)
