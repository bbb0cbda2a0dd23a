"""Slow, obvious twins of every case in `layers.gradient_check.cases`: loops in float64, written
from the equations and from nothing else.

A twin is called as twin(parameters, *inputs), the parameters as a dict from dotted names to arrays.
A family of layers has a file of twins of the same name.
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
TWINS = {name: twin for family in _FAMILIES for name, twin in family.TWINS.items()}
