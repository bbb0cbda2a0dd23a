"""Arithmetic on values: the operators, methods and functions that make ordinary Python
differentiable.

Each is a layer without parameters, or made of such; the functions take arrays too: arrays in, array
out.
"""

from .arithmetic import clip, maximum, minimum, where
from .elementary import absolute, cos, erf, exp, expm1, log, log1p, sin, sqrt, tanh
from .methods import Arithmetic
from .products import einsum
from .reductions import cumsum, logsumexp, norm, prod, std, var
from .shaping import (
    broadcast_to,
    concatenate,
    expand_dims,
    flip,
    moveaxis,
    pad,
    repeat,
    roll,
    sort,
    split,
    squeeze,
    stack,
    swapaxes,
    take_along_axis,
    tile,
    top_k,
)

__all__ = [
    "Arithmetic",
    "absolute",
    "broadcast_to",
    "clip",
    "concatenate",
    "cos",
    "cumsum",
    "einsum",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "flip",
    "log",
    "log1p",
    "logsumexp",
    "maximum",
    "minimum",
    "moveaxis",
    "norm",
    "pad",
    "prod",
    "repeat",
    "roll",
    "sin",
    "sort",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "swapaxes",
    "take_along_axis",
    "tanh",
    "tile",
    "top_k",
    "var",
    "where",
]
