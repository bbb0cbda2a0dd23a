"""Where the samples of a batch lie in values: on which axis, once axes are added, moved or merged.

Inputs have them on axis 0, and so has what layers give, until an operation says that it may have
moved them (`Call.moves_samples`). From then on each call on the tape is looked at: two values whose
samples lie on different axes must not be joined, and layers take samples on axis 0 only.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from layers.errors import message
from layers.types import Array

from .layer import Recorded
from .merge import Concatenate
from .operators.products import MatMul
from .operators.reductions import CumulativeSum, Extreme, LogSumExp, Mean, Norm, Product, Sum
from .operators.shaping import BroadcastTo, Index, Pad, ReshapeOp, Transpose
from .sums import axes_of

if TYPE_CHECKING:
    from .call import Call
    from .value import Value


class Merged(NamedTuple):
    """Samples that lie on no axis by themselves, as a reshape has cut across them.

    Attributes
    ----------
    outer
        How often there are all of them, one after the other: by that a reshape finds them again.
    """

    outer: int


NOWHERE = -1
"""The axis of samples where there are none."""
Place = int | Merged


def of(x: Any) -> Place:
    """Return the axis of an input of a call on which samples lie."""
    if not isinstance(x, Recorded):
        return NOWHERE
    value = cast("Value", x)
    left = [value]
    while left:
        each = left[-1]
        call = each.call
        if each.place is not None:
            left.pop()
        elif call is None:
            rows = each.tape.rows
            each.place = 0 if each.array.ndim and len(each.array) == rows else NOWHERE
        else:
            before = [x for x in _values(call) if x.place is None]
            left += before
            if not before:
                place(call)
    assert value.place is not None
    return value.place


def place(call: "Call") -> None:
    """Have the values that a call has given know where samples lie.

    Raises
    ------
    ValueError
        The call joins samples of different axes, or takes them on another axis than they lie on.
    """
    given = getattr(call, "places", None)
    output: Any = call.output
    values = getattr(output, "values", (output,))
    if given is None:
        places = [of(x) for x in call.inputs]
        rule = _aligned if call.layer.elementwise else _RULES.get(type(call.layer), _on_axis_0)
        given = [
            NOWHERE if call.batch_sum is not None else rule(call, places, value.array)
            for value in values
        ]
    for value, each in zip(values, given, strict=True):
        value.place = each


def refuse(call: "Call", got: Any) -> None:
    """Refuse to let samples meet."""
    must = (
        "samples must not meet along the axis of a batch that is spread over shards, where only"
        " sums and means are taken"
    )
    fix = (
        "Write a formula of each sample (axis 1 and on); take BatchNorm for statistics of the"
        " batch, or one process with shards=1."
    )
    raise ValueError(message(call.layer, must, got, fix))


def _values(call: "Call") -> "list[Value]":
    return [cast("Value", x) for x in call.inputs if isinstance(x, Recorded)]


def _on_axis_0(call: "Call", places: list[Place], y: Array) -> Place:
    """Place samples by a layer, which takes and gives them on axis 0."""
    for x, place in zip(call.inputs, places, strict=True):
        if place not in (0, NOWHERE):
            must = "layers must be given samples on axis 0, as the batch is spread over shards"
            where = "merged with others" if isinstance(place, Merged) else f"on axis {place}"
            fix = "Move that axis to the front, or keep samples on axis 0 throughout."
            raise ValueError(message(call.layer, must, f"them {where} of shape {x.shape}", fix))
    if not y.ndim:
        return NOWHERE
    rows = call.tape.rows
    if 0 in places:
        # Several rows of each sample, too; but not any vector.
        if len(y) == 0 or (y.ndim > 1 and rows and len(y) % rows == 0):
            return 0
        return 0 if any(x.shape[:1] == y.shape[:1] for x in _values(call)) else NOWHERE
    return 0 if len(y) == rows else NOWHERE


def _aligned(call: "Call", places: list[Place], y: Array) -> Place:
    """Place samples by what broadcasts its inputs, of which none may mix with others."""
    found: set[Place] = set()
    for x, place in zip(call.inputs, places, strict=True):
        if isinstance(place, Merged):
            if x.shape != y.shape:
                refuse(call, x.shape)
            found.add(place)
        elif place != NOWHERE:
            found.add(place + y.ndim - x.ndim)
    if len(found) > 1:
        axes = sorted(str(x) if isinstance(x, int) else "several" for x in found)
        refuse(call, f"samples on axes {' and '.join(axes)} of shape {y.shape}")
    if found:
        return found.pop()
    rows = call.tape.rows
    constants = (x for x in call.inputs if x.__class__ is np.ndarray and x.ndim == y.ndim)
    return 0 if y.ndim and len(y) == rows and any(len(x) == rows for x in constants) else NOWHERE


def _same(call: "Call", places: list[Place], y: Array) -> Place:
    return places[0]


def _reduced(call: "Call", places: list[Place], y: Array) -> Place:
    (place,) = places
    layer: Any = call.layer
    if not isinstance(place, int) or place == NOWHERE or layer.keepdims:
        return place
    axes = axes_of(layer.axis, call.inputs[0].ndim)
    return NOWHERE if place in axes else place - sum(axis < place for axis in axes)


def _transposed(call: "Call", places: list[Place], y: Array) -> Place:
    (place,) = places
    if place == NOWHERE:
        return place
    if isinstance(place, Merged):
        refuse(call, call.inputs[0].shape)
    layer = cast(Transpose, call.layer)
    return next(axis for axis in range(y.ndim) if layer.source(axis, y.ndim) == place)


def _reshaped(call: "Call", places: list[Place], y: Array) -> Place:
    (place,) = places
    if place == NOWHERE:
        return place
    kept = cast(ReshapeOp, call.layer).kept
    if isinstance(place, Merged):
        outer = place.outer
    elif kept is not None:
        # A sample axis of size 1 that is squeezed away.
        return kept.index(place) if place in kept else Merged(math.prod(y.shape))
    else:
        outer = math.prod(call.inputs[0].shape[:place])
    rows, before = call.tape.rows, 1
    for axis, size in enumerate(y.shape):
        if before == outer and (size % rows == 0 if rows else not size):
            return axis
        before *= size
    return Merged(outer)


def _indexed(call: "Call", places: list[Place], y: Array) -> Place:
    (place,) = places
    if place == NOWHERE:
        return place
    shape, rows = call.inputs[0].shape, call.tape.rows
    layer = cast(Index, call.layer)
    found = None if isinstance(place, Merged) else layer.samples_after(shape, place, rows)
    if found is None:
        refuse(call, shape)
    return cast(int, found)


def _multiplied(call: "Call", places: list[Place], y: Array) -> Place:
    """Place samples by a matrix product; that they are added up has been refused."""
    a, b = (np.ndim(getattr(x, "array", x)) for x in call.inputs)
    ndim = max(a, b, 2)
    found = set()
    if isinstance(places[0], int) and places[0] != NOWHERE:
        found.add(places[0] + ndim - max(a, 2))
    if isinstance(places[1], int) and places[1] != NOWHERE:
        found.add(places[1] + ndim - b)
    if len(found) > 1:
        refuse(call, f"samples on axes {' and '.join(map(str, sorted(found)))} of shape {y.shape}")
    # The row of a vector on the left is gone, before the last axis.
    return found.pop() - (a == 1) if found else NOWHERE


_RULES: "dict[type, Callable[[Call, list[Place], Array], Place]]" = {
    **dict.fromkeys((Sum, Mean, Extreme, Norm, LogSumExp, Product), _reduced),
    **dict.fromkeys((CumulativeSum, Pad), _same),
    **dict.fromkeys((BroadcastTo, Concatenate), _aligned),
    Transpose: _transposed,
    ReshapeOp: _reshaped,
    Index: _indexed,
    MatMul: _multiplied,
}
