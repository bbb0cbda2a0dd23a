"""Slow, obvious twins of every case in `layers.cases`: loops in float64, written from the equations and from nothing else.

A twin is called as twin(parameters, *inputs), the parameters as a dict from dotted names to arrays. A family of layers has a
file of twins of the same name.
"""

from . import conv, embedding, general, norm, pool, recurrent

TWINS = {**general.TWINS, **conv.TWINS, **embedding.TWINS, **norm.TWINS, **pool.TWINS, **recurrent.TWINS}
