"""What stands for "nothing there": the inputs that attributions are relative to."""

from typing import Any

import numpy as np

from ddbp.data.samples import Ragged, Samples, require_range
from layers.checks import is_number, numbers
from layers.errors import message
from layers.types import Array


def leaves_of(owner: str, x: Samples, baseline: Any, rows: slice) -> list[Array | None]:
    """Return the baseline of some rows of samples, for each input an array that broadcasts to
    those rows, or None for zeros.

    Parameters
    ----------
    owner
        Who is asked.
    x
        All samples.
    baseline
        None, a number, or an array that broadcasts to a sample or to all of them; of several inputs
        a tuple or dict of such.
    rows
        Of which rows.
    """
    if not isinstance(x, tuple | dict):
        return [None if baseline is None else _of_leaf(owner, x, baseline, rows)]
    keys: list[Any] = list(range(len(x))) if isinstance(x, tuple) else list(x)
    if baseline is None or is_number(baseline):
        parts = dict.fromkeys(keys, baseline)
    elif type(baseline) is type(x) and len(baseline) == len(x) and not {*keys} - {*_keys(baseline)}:
        parts = {key: baseline[key] for key in keys}
    else:
        must = f"baseline must be None, a number, or a {type(x).__name__} of so many inputs as x"
        fix = "Give each input its own, None for zeros."
        raise TypeError(message(owner, must, f"a {type(baseline).__name__}", fix))
    return [leaf for key in keys for leaf in leaves_of(owner, x[key], parts[key], rows)]


def _keys(parts: Any) -> Any:
    return range(len(parts)) if isinstance(parts, tuple) else parts


def _of_leaf(owner: str, x: Any, baseline: Any, rows: slice) -> Array | None:
    """Return the baseline of some rows of one input."""
    if x.dtype.kind == "b":
        return None
    ragged = isinstance(x, Ragged)
    shape = x.values.shape[1:] if ragged else x.shape
    given: Array = numbers(owner, "baseline", baseline)
    if not np.isfinite(given).all():
        must, fix = "baseline must be finite", "0 is usual."
        raise ValueError(message(owner, must, "NaN or infinite values", fix))
    if x.dtype.kind == "f":
        require_range(owner, "baseline", given, x.dtype)
    elif (given != np.floor(given)).any() or (np.abs(given) > np.iinfo(x.dtype).max).any():
        must, fix = "the baseline of tokens must be tokens", "Leave it out for vectors of zeros."
        raise TypeError(message(owner, must, repr(baseline), fix))
    if not ragged and given.ndim == len(shape) and len(given) == len(x):
        given, shape = given[rows], x[rows].shape
    try:
        np.broadcast_to(given, shape)
    except ValueError as error:
        must = f"baseline must broadcast to {shape}"
        fix = "Pass a number, or an array of the shape of x or of one sample."
        raise ValueError(message(owner, must, given.shape, fix)) from error
    return given.astype(x.dtype)
