"""Whether numbers are finite, in the time that it takes to read them, without other memory."""

from typing import Any

import numpy as np

from layers import FlatParameters, Parameter
from layers.kernels.finite import any_not_finite
from layers.kernels.jit import compiled
from layers.types import Array

_LOOKED_AT, _LEAST = 2**13, 2**9
"""About how many elements of gradients are looked at in a step where not all are, and how many of
each parameter at least: that takes next to no time.
"""
_START = np.zeros(1, np.int64)


class GradientCheck:
    """Tells whether the gradients of this rank's shards are finite.

    A number that is not finite spreads over whole layers on its way back. So of large gradients it
    is enough to look at some elements, which are others in every step, where what may escape does
    no harm.

    Parameters
    ----------
    flat
        The parameters.
    whole
        Whether all elements are looked at.
    """

    def __init__(self, flat: FlatParameters, *, whole: bool) -> None:
        self._gradients = flat.gradients
        self._starts = np.array(flat.starts, np.int64)
        sizes = [parameter.size for parameter in flat.parameters]
        self._sizes = np.array(sizes, np.int64)
        self._part = max(sizes) if whole else max(_LEAST, _LOOKED_AT // len(sizes))
        self._any = any_not_finite

    def __call__(self, turn: int) -> bool:
        arguments = self._gradients, self._starts, self._sizes, self._part, turn
        found = self._any(*arguments)
        if self._any is any_not_finite:
            self._any = compiled(any_not_finite, arguments)
        return not found


def is_finite(array: Any) -> bool:
    """Return whether an array has no NaN or infinity; what is not floating has none."""
    if array.dtype.kind != "f" or not array.size:
        return True
    if not array.flags.c_contiguous:
        return bool(np.isfinite(array).all())
    size = np.array([array.size])
    return not any_not_finite(array.reshape(1, -1), _START, size, array.size, 0)


def first_parameter(flat: FlatParameters) -> str | None:
    """Return the name of the first parameter that is not finite."""
    if not flat.frozen and is_finite(flat.values):
        return None
    named = {**dict(zip(flat.names, flat.parameters, strict=True)), **flat.frozen}
    return next((name for name, each in named.items() if not is_finite(each.value)), None)


def gradient_of(parameter: Parameter) -> Array | None:
    """Return what there is of the gradients of a parameter's shards, or of their partial sums, one
    a row; None if nothing has contributed.
    """
    store = parameter.store
    return None if store.stale else store.held


def gradients_not_finite(flat: FlatParameters) -> list[str]:
    """Return the names of the parameters whose gradients on this rank are not finite."""
    held = {
        name: gradient_of(parameter)
        for name, parameter in zip(flat.names, flat.parameters, strict=True)
    }
    return [name for name, each in held.items() if each is not None and not is_finite(each)]
