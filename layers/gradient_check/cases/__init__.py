"""The table of cases: every layer with every option. Adding a layer means adding a row, and a twin
in tests/layers/twins.

The contract suite, `ddbp gradcheck` and the mutation score all read this table. A family of layers
has a file of cases of the same name.
"""

from . import (
    activation,
    attention,
    batch_norm,
    coefficients,
    containers,
    conv,
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
from .case import BATCH, Apply, Case

_FAMILIES = (
    activation,
    attention,
    batch_norm,
    coefficients,
    containers,
    conv,
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
CASES = tuple(case for family in _FAMILIES for case in family.CASES)
FAMILY = {
    case.name: family.__name__.rpartition(".")[2] for family in _FAMILIES for case in family.CASES
}
"""The family of each case, by their names."""

__all__ = ["BATCH", "CASES", "FAMILY", "Apply", "Case"]
