"""Initial values of parameters: in the type of a model, of the right shape, and within memory."""

from typing import Any

import numpy as np

from .checks import require_model_type, require_room, without_room
from .errors import message
from .types import Array


def drawn(owner: str, init: Any, rng: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return the initial values that an initialiser gives for a layer, in the type of a model.

    Raises
    ------
    TypeError, ValueError, MemoryError
        One of these is not what it must be, or the values are not of this shape.
    """
    dtype = require_model_type(owner, dtype)
    if not isinstance(rng, np.random.Generator):
        fix = "Pass rng=np.random.default_rng(seed)."
        raise TypeError(message(owner, "rng must be a np.random.Generator", repr(rng), fix))
    fix = "It is a function of (rng, shape) that returns an array, such as layers.init.zeros."
    require_room(owner, shape)
    if not callable(init) or isinstance(init, type):
        raise TypeError(message(owner, "an initialiser must be a function", repr(init), fix))
    try:
        values = init(rng, shape)
    except MemoryError as error:
        raise without_room(owner, shape) from error
    if (
        not isinstance(values, np.ndarray)
        or values.shape != shape
        or values.dtype.kind not in "fiu"
    ):
        got = (
            f"an array {values.shape} {values.dtype}" if hasattr(values, "dtype") else repr(values)
        )
        raise ValueError(message(owner, f"an initialiser must return numbers {shape}", got, fix))
    return values.astype(dtype)


def filled(owner: str, value: float, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return the initial values of a layer that are all the same, in the type of a model."""
    dtype = require_model_type(owner, dtype)
    require_room(owner, shape)
    try:
        return np.full(shape, value, dtype)
    except (MemoryError, ValueError) as error:
        raise without_room(owner, shape) from error
