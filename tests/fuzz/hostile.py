"""Values that nobody expects."""

import array
import collections
import decimal
import fractions
import pathlib
from typing import Any

import numpy as np


class Lies:
    """An object that raises whatever is asked of it."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("no array")

    def __repr__(self) -> str:
        return "Lies()"


class OtherArray:
    """An array of another library."""

    def __init__(self, x: Any) -> None:
        self._x = x
        self.shape, self.dtype, self.ndim = x.shape, str(x.dtype), x.ndim

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self._x, dtype)

    def __len__(self) -> int:
        return len(self._x)

    def __repr__(self) -> str:
        return "OtherArray()"


def _nested(depth: int) -> Any:
    result: Any = 1
    for _ in range(depth):
        result = [result]
    return result


def _endless() -> Any:
    result: Any = []
    result.append(result)
    return result


def values() -> dict[str, Any]:
    """Return values of all kinds by what they are."""
    numbers = [
        *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, -(2**31), 2**62, 2**63, 2**64, -(2**63)),
        *(10**400, 10**12, 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 1e-320, 1e38, 1e300),
        *(float("nan"), float("inf"), float("-inf")),
        *("", "x", "max", "nearest\0", "../x", "é" * 5, b"x", 1j),
    ]
    named = {repr(each)[:30]: each for each in numbers}
    others = {
        "np.float32(nan)": np.float32("nan"),
        "np.float16(1)": np.float16(1),
        "np.int8(-1)": np.int8(-1),
        "np.uint64(2**64-1)": np.uint64(2**64 - 1),
        "np.bool_": np.bool_(True),
        "np.str_": np.str_("x"),
        "longdouble": np.longdouble(1),
        "Decimal": decimal.Decimal("0.5"),
        "Fraction": fractions.Fraction(1, 2),
        "()": (),
        "[]": [],
        "{}": {},
        "set()": set(),
        "(1,)": (1,),
        "(0, 0)": (0, 0),
        "(-1, -1)": (-1, -1),
        "(1, 1)": (1, 1),
        "(2**62, 2**62)": (2**62, 2**62),
        "(10**12, 2)": (10**12, 2),
        "(nan, nan)": (float("nan"),) * 2,
        "(None, None)": (None, None),
        "(1.5, 2)": (1.5, 2),
        "(1, 1, 1)": (1, 1, 1),
        "[1, 2, 3, 4, 5]": [1, 2, 3, 4, 5],
        "100 ones": (1,) * 100,
        "[[1, 2], [3]]": [[1, 2], [3]],
        "strings": ["a", "b"],
        "[None]": [None],
        "dict": {"a": 1},
        "range": range(3),
        "generator": (n for n in range(3)),
        "deque": collections.deque([1, 2]),
        "class": dict,
        "function": lambda *given, **named: None,
        "object": object(),
        "Ellipsis": ...,
        "slice": slice(None),
        "Path": pathlib.Path("x"),
        "nested": _nested(100),
        "endless": _endless(),
        "Lies": Lies(),
        "memoryview": memoryview(b"\1\2"),
        "array.array": array.array("f", [1, 2, 3, 4]),
        "array(3)": np.array(3),
        "array(nan)": np.array(np.nan),
        "array (0,)": np.zeros(0),
        "array (2, 2)": np.ones((2, 2), np.float32),
        "array of objects": np.array([None, "x"], object),
        "array of texts": np.array(["a", "b"]),
        "array of dates": np.array(["2020-01-01"], "datetime64[D]"),
        "array of records": np.zeros(3, [("a", "f4"), ("b", "i4")]),
        "np.float32": np.float32,
        "dtype float16": np.dtype("float16"),
        "dtype records": np.dtype([("a", "f4")]),
        "dtype swapped": np.dtype(">f4"),
    }
    return {**named, **others}


def arrays(x: Any) -> dict[str, Any]:
    """Return what an array may be mistaken for: other types, shapes, layouts, contents and
    sizes.
    """
    result: dict[str, Any] = {
        f"as {kind}": x.astype(kind)
        for kind in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", "?", "c8", "c16", "O", "U4")
    }
    result |= {
        "as longdouble": x.astype(np.longdouble),
        "swapped": x.astype(x.dtype.newbyteorder()),
        "as a list": x.tolist(),
        "memory": memoryview(np.ascontiguousarray(x)),
        "masked": np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) % 3 == 1),
        "unmasked": np.ma.masked_array(x),
        "of another library": OtherArray(x),
        "readonly": _readonly(x),
        "Fortran": np.asfortranarray(x),
        "reversed": np.flip(x),
        "transposed": x.T,
        "strided": np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
        "one more axis": x[np.newaxis],
        "one more last axis": x[..., np.newaxis],
        "broadcast": np.broadcast_to(x.reshape(-1)[:1].reshape(()), x.shape),
        "unaligned": _unaligned(x),
        "30 axes": x.reshape((1,) * 30 + x.shape),
        "no axes": x.reshape(-1)[0] if x.size else x,
        "0-d": x.reshape(-1)[:1].reshape(()),
    }
    for axis in range(x.ndim):
        for size in (0, 1, 2):
            if size < x.shape[axis]:
                result[f"{size} along axis {axis}"] = np.take(x, range(size), axis)
        result[f"axis {axis} twice"] = np.repeat(x, 2, axis)
        result[f"axis {axis} gone"] = x.take(0, axis) if x.shape[axis] else x
    contents = {"f": (np.nan, np.inf, -np.inf, 0, -1, 1e38, -1e38, 1e-45)}.get(
        x.dtype.kind, (0, -1, 7, 127, 2**31, 2**62, -(2**63))
    )
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        contents = tuple(each for each in contents if limits.min <= each <= limits.max)
    for content in contents:
        with np.errstate(all="ignore"):
            result[f"all {content}"] = np.full_like(x, content)
            if x.size:
                one = x.copy()
                one.reshape(-1)[-1] = content
                result[f"one {content}"] = one
    return result


def _readonly(x: Any) -> Any:
    result = x.copy()
    result.flags.writeable = False
    return result


def _unaligned(x: Any) -> Any:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    result = raw[1:].view(x.dtype).reshape(x.shape)
    result[...] = x
    return result
