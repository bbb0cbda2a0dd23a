"""Slow, obvious twins of every case in `layers.gradient_check.cases`: loops in float64, written
from the equations and from nothing else.

A twin is called as twin(parameters, *inputs), the parameters as a dict from dotted names to arrays.
A family of layers has a file of twins of the same name.
"""

from . import attention, conv, embedding, general, layer_norm, norm, pool, recurrent, tree

_FAMILIES = (attention, conv, embedding, general, layer_norm, norm, pool, recurrent, tree)
TWINS = {name: twin for family in _FAMILIES for name, twin in family.TWINS.items()}
