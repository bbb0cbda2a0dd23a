"""Checks of options (numbers, pairs of them, and hooks) and of inputs, each with the message of its
refusal.
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

from .errors import message
from .kernels.cache_folder import memory_bytes

LARGEST_SIZE = 2**24
"""Above all windows, strides and paddings."""
_LEAST = 2.0**-1022
_LARGEST = int(np.finfo(np.float64).max)
Pair = tuple[int, int]
Axes = tuple[str | int, ...]


def positive_int(
    owner: str,
    name: str,
    value: Any,
    fix: str = "Pass the size of the axis.",
    most: int | None = None,
) -> int:
    """Return an integer of at least 1, and at most `most` if there is a limit."""
    if not _is_integer(value) or value < 1:
        raise ValueError(message(owner, f"{name} must be a positive integer", repr(value), fix))
    if most is not None and value > most:
        raise ValueError(message(owner, f"{name} must be at most {most}", repr(value), fix))
    return int(value)


def non_negative_int(owner: str, name: str, value: Any, fix: str) -> int:
    """Return an integer of at least 0 that 64 bits hold."""
    if not _is_integer(value) or not 0 <= value < 2**64:
        must = f"{name} must be an integer from 0 to 2^64 - 1"
        raise ValueError(message(owner, must, repr(value), fix))
    return int(value)


def require_below(owner: str, name: str, value: Any, bits: int) -> None:
    """Refuse what is no integer from 0 on that so many bits hold."""
    if not isinstance(value, int | np.integer) or not 0 <= value < 2**bits:
        must = f"{name} must be an integer from 0 to 2^{bits} - 1"
        raise ValueError(message(owner, must, repr(value), "Leave it out for 0."))


def integer(owner: str, name: str, value: Any, fix: str) -> int:
    """Return an integer that 64 bits hold."""
    if not _is_integer(value) or not -(2**63) <= value < 2**63:
        must = f"{name} must be an integer from -2^63 to 2^63 - 1"
        raise ValueError(message(owner, must, repr(value), fix))
    return int(value)


def require_number(owner: str, name: str, value: Any, fix: str) -> None:
    """Refuse what is no real number, or an integer that no floating type holds."""
    if not is_number(value):
        raise TypeError(message(owner, f"{name} must be a number", repr(value), fix))
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        must = f"{name} must be a number within ±{_LARGEST:.4g}"
        raise ValueError(message(owner, must, f"an integer of {value.bit_length()} bits", fix))


def number(owner: str, name: str, value: Any, fix: str) -> float:
    """Return a real number that is not NaN."""
    require_number(owner, name, value, fix)
    if math.isnan(value):
        raise ValueError(message(owner, f"{name} must be a number", value, fix))
    return float(value)


def boolean(owner: str, name: str, value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool | np.bool_ | int) or value not in (0, 1):
        fix = f"Write {name}=True or {name}=False."
        raise TypeError(message(owner, f"{name} must be True or False", repr(value), fix))
    return bool(value)


def one_of(owner: str, name: str, value: Any, choices: Iterable[str], fix: str = "") -> str:
    """Return one of some words; the refusal of another names the one that is nearest to it."""
    words = tuple(choices)
    if not isinstance(value, str) or value not in words:
        must = f"{name} must be one of {', '.join(words)}"
        from difflib import get_close_matches

        near = get_close_matches(str(value), words, 1)
        if near or not fix:
            fix = f'Write {name}="{[*near, words[0]][0]}".'
        raise ValueError(message(owner, must, repr(value), fix))
    return str(value)


def array(owner: Any, name: str, given: Any) -> Any:
    """Return what is given as an array, itself if it is one."""
    try:
        return np.asarray(given)
    except Exception as error:
        must, fix = f"{name} must be an array", "Pass numbers, or lists of them, of equal lengths."
        raise ValueError(message(owner, must, " ".join(str(error).split()), fix)) from error


def numbers(owner: Any, name: str, given: Any, dtype: Any = np.float64) -> Any:
    """Return what is given as a new array of a floating type."""
    require_unmasked(owner, name, given)
    result = array(owner, name, given)
    if result.dtype.kind not in ("fiubc" if np.dtype(dtype).kind == "c" else "fiub"):
        must, fix = f"{name} must be an array of numbers", "Pass real numbers, or lists of them."
        raise TypeError(message(owner, must, f"an array of {result.dtype}", fix))
    return result.astype(dtype)


def positive(owner: str, name: str, value: Any, fix: str, *, finite: bool = False) -> float:
    """Return a number above 0, which must be `finite` if that is asked for."""
    require_number(owner, name, value, fix)
    # Kernels take numbers below the normal ones for 0.
    if not value >= _LEAST or (finite and math.isinf(value)):
        must = f"{name} must be positive{' and finite' if finite else ''}"
        raise ValueError(message(owner, must, value, fix))
    return float(value)


def non_negative(
    owner: str, name: str, value: Any, fix: str = "0 switches it off.", *, finite: bool = False
) -> float:
    """Return a number of at least 0, which must be `finite` if that is asked for."""
    require_number(owner, name, value, fix)
    if not value >= 0 or (finite and math.isinf(value)):
        must = f"{name} must {'be finite and not negative' if finite else 'not be negative'}"
        raise ValueError(message(owner, must, value, fix))
    return _normal(value)


def fraction(owner: str, name: str, value: Any, fix: str, *, closed: bool = False) -> float:
    """Return a number from 0 to below 1; to 1 itself, if `closed`."""
    require_number(owner, name, value, fix)
    if not (0 <= value < 1 or (closed and value == 1)):
        must = f"{name} must be in [0, 1{']' if closed else ')'}"
        raise ValueError(message(owner, must, value, fix))
    return _normal(value)


def _normal(value: Any) -> float:
    """Return a number, as kernels take it: 0 for -0, and for one below the normal ones."""
    return float(value) if value >= _LEAST else 0.0


def pair(
    owner: str, name: str, size: Any, least: int, fix: str = "Pass one number, or (rows, columns)."
) -> Pair:
    """Return a number or a pair (rows, columns) as a pair of integers of at least `least`."""
    rows, columns = sizes(owner, name, size, least, 2, fix)
    return rows, columns


def sizes(owner: str, name: str, size: Any, least: int, count: int, fix: str) -> tuple[int, ...]:
    """Return one number for all, or `count` of them, as integers of at least `least`."""
    each = tuple(size) if isinstance(size, tuple | list) else (size,) * count
    if len(each) != count or any(not _is_integer(n) or n < least for n in each):
        some = ("an integer", "one or two integers", "one or three integers")[count - 1]
        raise ValueError(
            message(owner, f"{name} must be {some} of at least {least}", repr(size), fix)
        )
    if max(each) >= LARGEST_SIZE:
        raise ValueError(message(owner, f"{name} must be below 2^24", repr(size), fix))
    return tuple(map(int, each))


def require_hooks(
    owner: str, name: str, given: Any, kinds: tuple[type, ...], fix: str
) -> tuple[Any, ...]:
    """Return what is to be told of events as a tuple: objects of classes that derive from one of
    `kinds`, as others would never be told of anything.
    """
    must = f"{name} must be {' or '.join(kind.__name__ for kind in kinds)} objects"
    if not isinstance(given, Iterable) or (isinstance(given, np.ndarray) and not given.ndim):
        listed = f"Pass a list: {name}=[…]."
        raise TypeError(message(owner, must, repr(given), listed))
    hooks = tuple(given)
    for each in hooks:
        if not isinstance(each, kinds):
            made = f"Make one: {each.__name__}(…)." if isinstance(each, type) else fix
            raise TypeError(message(owner, must, repr(each), made))
    return hooks


def is_number(value: Any) -> bool:
    """Return whether a value is a real number, of Python or NumPy."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require_input(
    owner: Any, x: Any, axes: Axes, dtype: Any = None, fix: str = "The features are the last axis."
) -> None:
    """Refuse an input whose shape or type a layer does not take.

    Parameters
    ----------
    axes
        Letters for axes of any size, and for the last one perhaps its size; a second one of "…"
        stands for any number of axes. Or the size of each.
    dtype
        That of the layer's weights; any floating type, if None.
    fix
        What mends a shape that is neither without the axis of the batch nor channels-first.
    """
    shape = getattr(x, "shape", None)
    if shape.__class__ is not tuple:
        require_array(owner, x)
    assert shape is not None
    count, last = len(axes), axes[-1]
    if (
        (len(shape) != count and (axes[1] != "…" or len(shape) < count - 1))
        or (shape[-1] != last and last.__class__ is not str)
        or (axes[0].__class__ is int and shape != axes)
    ):
        _refuse_shape(owner, shape, axes, fix)
    if dtype is None:
        require_floating(owner, x)
    elif x.dtype != dtype:
        _refuse_dtype(owner, x.dtype, dtype)


def require_layer(owner: str, name: str, layer: Any) -> Any:
    """Return a layer, or what is called as one."""
    if not callable(layer) or isinstance(layer, type):
        fix = "Pass the layers themselves, such as ReLU(), not a list or a class's name."
        raise TypeError(message(owner, f"{name} must be a layer", repr(layer), fix))
    return layer


def require_count(owner: Any, count: int, inputs: tuple[Any, ...]) -> None:
    """Refuse another number of inputs."""
    if len(inputs) != count:
        fix = "Masks are passed by name."
        raise ValueError(message(owner, f"there must be {count} sequences", len(inputs), fix))


def require_array(owner: Any, x: Any) -> None:
    """Refuse an input that is neither an array nor a value of a tape."""
    if not (hasattr(x, "shape") and isinstance(getattr(x, "dtype", None), np.dtype)):
        must, fix = "the input must be an array", "Convert it with np.asarray(x, np.float32)."
        raise TypeError(message(owner, must, f"a {type(x).__name__}", fix))


def require_floating(owner: Any, x: Any) -> None:
    """Refuse an input that is not of a floating type."""
    if getattr(getattr(x, "dtype", None), "kind", None) not in ("f", "c"):
        require_array(owner, x)
        fix = "Convert it with x.astype(np.float32)."
        raise TypeError(message(owner, "the input must be of a floating type", x.dtype, fix))


_NUMBERS = frozenset("fd?" + np.typecodes["AllInteger"])


def require_numbers(owner: Any, x: Any, *, or_complex: bool = False) -> None:
    """Refuse an array of anything but float32, float64, integers and booleans in this processor's
    byte order; with `or_complex`, complex128 is taken, too: the gradient check's complex step.
    """
    kind = x.dtype.char
    if not x.dtype.isnative:
        must = "arrays must have the byte order of this processor"
        fix = 'Convert it with x.astype(x.dtype.newbyteorder("=")).'
        raise TypeError(message(owner, must, x.dtype, fix))
    if kind not in _NUMBERS and not (or_complex and kind == "D"):
        must = "arrays must be of real numbers: float32, float64, integers or booleans"
        fix = "Convert it with x.astype(np.float32)."
        raise TypeError(message(owner, must, x.dtype, fix))


def require_model_type(owner: Any, dtype: Any) -> "np.dtype[Any]":
    """Return a type that models are made of, in this processor's byte order."""
    kind: Any = None
    with suppress(Exception):
        kind = np.dtype(dtype)
    # Not a type, or None, which NumPy takes for float64.
    if dtype is None or kind not in (np.float32, np.float64):
        fix = "Take np.float32: dtype= of layers, .astype(np.float32) of arrays and models."
        must = "parameters must be of float32 or float64"
        raise TypeError(message(owner, must, repr(dtype) if kind is None else kind, fix))
    result: np.dtype[Any] = kind
    return result


def require_room(owner: Any, shape: tuple[int, ...], itemsize: int = 8) -> None:
    """Refuse an array that this machine's memory cannot hold."""
    if math.prod(map(int, shape)) * itemsize > memory_bytes():
        raise without_room(owner, shape)


def without_room(owner: Any, shape: tuple[int, ...]) -> MemoryError:
    """Return the error that an array of this shape does not fit in memory."""
    fix = f"Choose smaller sizes: this machine has {memory_bytes() / 2**30:.0f} GiB."
    return MemoryError(message(owner, "arrays must fit in memory", f"shape {shape}", fix))


def require_unmasked(owner: Any, name: str, x: Any) -> None:
    """Refuse an array that hides elements: as an array it would show what lies under its mask."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        hidden = np.argwhere(np.ma.getmaskarray(x))
        got = f"{len(hidden)} masked, the first at {name}{hidden[0].tolist()}"
        fix = f"Fill them, {name}.filled(0), or leave those samples out."
        raise TypeError(message(owner, f"{name} must have no masked elements", got, fix))


def require_images(owner: Any, x: Any) -> None:
    """Refuse what cannot be floating images (N, H, W, C)."""
    fix = (
        "Add the missing axes with reshape; channels come last: x.transpose(0, 2, 3, 1) turns"
        " (N, C, H, W) into (N, H, W, C)."
    )
    require_input(owner, x, ("N", "H", "W", "C"), None, fix)


def _refuse_shape(owner: Any, shape: tuple[int, ...], axes: Axes, fix: str) -> NoReturn:
    kinds = {"D": "volume", "H": "image", "T": "sequence"}
    what = next((kind for letter, kind in kinds.items() if letter in axes), "sample")
    if len(shape) == len(axes) - 1 - ("…" in axes) and shape[-1] == axes[-1]:
        fix = f"A single {what} needs a batch axis: x[np.newaxis]."
    elif len(shape) == len(axes) and shape[1] == axes[-1]:
        if what == "image":
            fix = (
                "If the axes are N C H W, convert with x.transpose(0, 2, 3, 1) or put a"
                " ChannelsLast() before this layer."
            )
        elif what == "volume":
            fix = "If the axes are N C D H W, convert with x.transpose(0, 2, 3, 4, 1)."
        elif what == "sequence":
            fix = "If the axes are N C T, convert with x.transpose(0, 2, 1)."
    written = ", ".join(map(str, axes))
    raise ValueError(message(owner, f"the input must have shape ({written})", shape, fix))


def _refuse_dtype(owner: Any, got: Any, expected: Any) -> NoReturn:
    fix = f"Convert it with x.astype(np.{expected})"
    if np.issubdtype(got, np.inexact):
        fix += f" or the layer with layer.astype(np.{got})"
    must = f"the input must have the dtype of the weights, {expected}"
    raise TypeError(message(owner, must, got, f"{fix}."))
