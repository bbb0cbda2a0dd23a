"""The types of what operators join: constants take that of the values they meet."""

from typing import Any

import numpy as np

from layers.checks import require_unmasked
from layers.engine.layer import Recorded
from layers.errors import message


def array_of(x: Any) -> Any:
    """Return the array of a value; anything else as it is."""
    return x.array if isinstance(x, Recorded) else x


def alike(owner: Any, *inputs: Any) -> tuple[Any, ...]:
    """Return the inputs of an operation, constants in the floating type of its values.

    Python's numbers stay what they are, as NumPy lets them take the type of an array; NumPy's own
    scalars, arrays without axes, arrays of integers or booleans and of a narrower floating type are
    converted. Where nothing is recorded, or no value is floating, all stay what they are.

    Raises
    ------
    TypeError
        A constant has a wider type, or is no number, or there are values of two floating types.
    """
    dtypes = {x.array.dtype for x in inputs if isinstance(x, Recorded)}
    floating = [dtype for dtype in dtypes if dtype.kind in "fc"]
    if not floating:
        return inputs
    dtype = max(floating, key=lambda dtype: (dtype.kind == "f", dtype.itemsize))
    real = [each for each in floating if each.kind == "f"]
    if len(real) > 1:
        must, fix = "values must have one floating type", "Convert one of them: value.astype(…)."
        raise TypeError(message(owner, must, " and ".join(sorted(map(str, real))), fix))
    if len(floating) > 1:
        # Of a complex step, which moves some of the inputs only.
        return inputs
    return tuple(
        x
        if x.__class__ in (float, int, bool) or (isinstance(x, Recorded) and x.array.dtype == dtype)
        else _converted(owner, array_of(x), dtype)
        for x in inputs
    )


def _converted(owner: Any, constant: Any, dtype: Any) -> Any:
    require_unmasked(owner, "x", constant)
    array = np.asarray(constant)
    kind = array.dtype.kind
    if array.dtype == dtype:
        return array
    if kind in "biu" or (kind == "f" and not array.ndim):
        return array.astype(dtype)
    if kind == dtype.kind or (kind == "f" and dtype.kind == "c"):
        if array.dtype.itemsize < dtype.itemsize or dtype.kind == "c":
            return array.astype(dtype)
        fix = f"Convert it with array.astype(np.{dtype}), or the value with value.astype(…)."
    else:
        fix = "Use an array of numbers."
    must = f"a constant must fit the type of the value, {dtype}"
    raise TypeError(message(owner, must, f"an array of {array.dtype}", fix))
