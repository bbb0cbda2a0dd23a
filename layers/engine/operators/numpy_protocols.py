"""NumPy's functions on values: those that have a counterpart here are recorded, those that give
indices, shapes or booleans take the arrays, and all others are refused.

https://numpy.org/neps/nep-0013-ufunc-overrides.html, https://numpy.org/neps/nep-0018-array-function-protocol.html
"""

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from layers.errors import message

from . import arithmetic, elementary, products, reductions, shaping
from .constants import alike, array_of


def _joined(layer: Any) -> Callable[[Any, Any], Any]:
    return lambda a, b: layer(*alike(layer, a, b))


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    return reductions.norm(x, ord, axis, keepdims)


RECORDED: dict[Any, Callable[..., Any]] = {
    np.add: _joined(arithmetic.ADD),
    np.subtract: _joined(arithmetic.SUBTRACT),
    np.multiply: _joined(arithmetic.MULTIPLY),
    np.divide: _joined(arithmetic.DIVIDE),
    np.power: _joined(arithmetic.POWER),
    np.matmul: _joined(products.MATMUL),
    np.square: lambda x: x * x,
    np.reciprocal: lambda x: 1 / x,
    np.positive: lambda x: x,
    np.negative: elementary.negative,
    np.absolute: elementary.absolute,
    np.fabs: elementary.absolute,
    np.exp: elementary.exp,
    np.expm1: elementary.expm1,
    np.log: elementary.log,
    np.log1p: elementary.log1p,
    np.sqrt: elementary.sqrt,
    np.sin: elementary.sin,
    np.cos: elementary.cos,
    np.tanh: elementary.tanh,
    np.maximum: arithmetic.maximum,
    np.minimum: arithmetic.minimum,
    np.where: arithmetic.where,
    np.clip: arithmetic.clip,
    np.sum: reductions.total,
    np.mean: reductions.mean,
    np.max: reductions.greatest,
    np.amax: reductions.greatest,
    np.min: reductions.smallest,
    np.amin: reductions.smallest,
    np.prod: reductions.prod,
    np.var: lambda x, axis=None, *, ddof=0, keepdims=False: reductions.var(x, axis, ddof, keepdims),
    np.std: lambda x, axis=None, *, ddof=0, keepdims=False: reductions.std(x, axis, ddof, keepdims),
    np.cumsum: reductions.cumsum,
    np.linalg.norm: _norm,
    np.dot: products.dot,
    np.einsum: products.einsum,
    np.reshape: shaping.reshape,
    np.ravel: lambda x: shaping.reshape(x, (-1,)),
    np.transpose: shaping.transpose,
    np.matrix_transpose: lambda x: shaping.swapaxes(x, -1, -2),
    np.swapaxes: shaping.swapaxes,
    np.moveaxis: shaping.moveaxis,
    np.squeeze: shaping.squeeze,
    np.expand_dims: shaping.expand_dims,
    np.broadcast_to: shaping.broadcast_to,
    np.flip: shaping.flip,
    np.roll: shaping.roll,
    np.take: shaping.take,
    np.take_along_axis: shaping.take_along_axis,
    np.repeat: shaping.repeat,
    np.tile: shaping.tile,
    np.pad: shaping.pad,
    np.concatenate: shaping.concatenate,
    np.stack: shaping.stack,
    np.split: shaping.split,
    np.sort: shaping.sort,
}
"""What is recorded in place of NumPy's function."""

CONSTANT: frozenset[Any] = frozenset(
    (
        *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
        *(np.isnan, np.isinf, np.isfinite, np.signbit, np.sign),
        *(np.isclose, np.allclose, np.array_equal, np.any, np.all),
        *(np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.searchsorted),
        *(np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj, np.isrealobj),
        *(np.zeros_like, np.ones_like, np.full_like, np.empty_like),
        *(np.shares_memory, np.may_share_memory, np.array_repr, np.array_str, np.array2string),
    )
)
"""Functions of the arrays alone: what they give has no gradient in any case."""

_INSTEAD = {
    np.log2: "layers.log(value) / np.log(2)",
    np.log10: "layers.log(value) / np.log(10)",
    np.exp2: "2.0 ** value",
    np.logaddexp: "layers.logsumexp(layers.stack([a, b]), axis=0)",
    np.tan: "layers.sin(value) / layers.cos(value)",
    np.hstack: "layers.concatenate(values, axis=1)",
    np.vstack: "layers.concatenate(values)",
    np.inner: "layers.einsum",
    np.outer: 'layers.einsum("i,j->ij", a, b)',
    np.tensordot: "layers.einsum",
    np.average: "(value * weights).sum() / weights.sum()",
}


def ufunc(self: Any, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """Answer a ufunc of NumPy that was called with a value."""
    name = f"np.{function.__name__}"
    if "out" in options:
        fix = "Write array = array + value, which gives a value."
        _refuse(f"{name} into an array (out=, or array += value)", fix)
    if method != "__call__":
        _refuse(f"{name}.{method}", "Write value.sum(), value.prod(), value.cumsum() or the like.")
    return _answer(name, function, inputs, options)


def function(self: Any, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """Answer any other function of NumPy that was called with a value."""
    name = f"{function.__module__}.{function.__name__}".replace("numpy", "np")
    if kwargs.get("out") is not None:
        _refuse(f"{name} into an array (out=)", "Leave out= away: what it gives is a value.")
    return _answer(name, function, args, kwargs)


def _answer(name: str, function: Any, args: Any, options: Any) -> Any:
    if function in CONSTANT:
        return function(*map(_unwrapped, args), **{k: _unwrapped(v) for k, v in options.items()})
    recorded = RECORDED.get(function)
    if recorded is None:
        constant = (
            f"{name}(value.array) if it is a constant; docs/api/tape.md lists what is recorded"
        )
        _refuse(name, f"Write {_INSTEAD.get(function, constant)}.")
    try:
        inspect.signature(recorded).bind(*args, **options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(recorded).parameters)
        _refuse(f"{name} with other arguments ({error})", f"It is recorded with ({takes}) alone.")
    return recorded(*args, **options)


def _unwrapped(x: Any) -> Any:
    """Return an argument with arrays in place of values, in lists and tuples, too."""
    return type(x)(map(_unwrapped, x)) if isinstance(x, list | tuple) else array_of(x)


def refuse_conversion(self: Any, dtype: Any = None, copy: bool | None = None) -> NoReturn:
    """Refuse what would take a value off its tape unseen."""
    _refuse("a conversion to an array", "Write value.array: it has no gradient.")


def _refuse(what: str, fix: str) -> NoReturn:
    must = "what is computed from it must be recorded"
    raise TypeError(message("Value", must, what, fix))
