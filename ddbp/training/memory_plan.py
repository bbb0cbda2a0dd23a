"""Which layers of a chain are kept and which computed again, so that a step fits into memory.

A plan is a list: a number is a layer whose insides are kept, a list is a plan of a segment of which
only the input is, and which is computed again in backward. Layers of a plan take memory one above
the other; a segment that is propagated takes that of all after it, which is over by then.

The plans that take least time, among all such lists, are found by the dynamic programme of
Beaumont, Eyraud-Dubois, Hermann, Joly and Shilova 2019 (arXiv 1911.13214, "Optimal checkpointing
for heterogeneous chains", theorem 1), over the memory that is left.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from layers.types import Array

Plan = list[Any]
_SLOTS = 500
"""Into so many parts memory is divided in the search."""
_SHARES = (1.0, 0.995, 0.99, 0.98, 0.96, 0.93, 0.9, 0.85, 0.8)
"""Sizes are rounded to parts: where a plan turns out to be too large, less is allowed."""


class Layer(NamedTuple):
    """A layer of a chain.

    Attributes
    ----------
    output
        Bytes of its output.
    kept
        Bytes of all that it keeps until backward, with its output.
    seconds
        How long its forward takes.
    """

    output: int
    kept: int
    seconds: float


def peak(layers: Sequence[Layer], plan: Plan) -> int:
    """Return the bytes that are taken at once by a step with a plan."""
    return _forward(layers, plan, 0)[1]


def _forward(layers: Sequence[Layer], plan: Plan, base: int) -> tuple[int, int]:
    """Return where what forward keeps above a base ends, and the highest that forward, and then
    backward, reach.
    """
    top = highest = base
    for each in plan:
        if isinstance(each, int):
            top += layers[each].kept
        else:
            # Forward of the segment, and later all of it, from the same place.
            highest = max(highest, _forward(layers, each, top)[1])
            top += layers[last(each)].output
        highest = max(highest, top)
    return top, highest


def last(plan: Plan) -> int:
    """Return the number of the last layer of a plan."""
    end = plan[-1]
    return end if isinstance(end, int) else last(end)


def seconds(layers: Sequence[Layer], plan: Plan) -> float:
    """Return how long the forward passes take that a plan adds to a step."""
    again = 0.0
    for each in plan:
        if not isinstance(each, int):
            again += sum(layers[i].seconds for i in _numbers(each)) + seconds(layers, each)
    return again


def again(plan: Plan) -> int:
    """Return how many layers are computed more than once."""
    return sum(len(_numbers(each)) for each in plan if not isinstance(each, int))


def _numbers(plan: Plan) -> list[int]:
    return [
        number for each in plan for number in ([each] if isinstance(each, int) else _numbers(each))
    ]


def smallest(layers: Sequence[Layer]) -> Plan:
    """Return the plan that takes least memory, among those the one found first."""
    count = len(layers)
    least = np.zeros((count, count), np.int64)
    choice = np.zeros((count, count), np.int64)
    for first in reversed(range(count)):
        least[first, first] = layers[first].kept
        for end in range(first + 1, count):
            # Kept itself, or the input of first..cut-1 only.
            cuts = np.arange(first + 1, end + 1)
            outputs = np.array([layer.output for layer in layers[first:end]])
            parts = np.maximum(least[first, cuts - 1], outputs + least[cuts, end])
            best = int(parts.argmin())
            least[first, end], choice[first, end] = parts[best], cuts[best]
            alone = layers[first].kept + least[first + 1, end]
            if alone <= parts[best]:
                least[first, end], choice[first, end] = alone, 0
    return _read(lambda first, end, _: int(choice[first, end]), lambda *_: 0, 0, count - 1, 0)


def fastest(layers: Sequence[Layer], memory: int) -> Plan:
    """Return the plan that takes least time within so many bytes, or `smallest` where none fits."""
    if sum(layer.kept for layer in layers) <= memory:
        return [*range(len(layers))]
    plans = [smallest(layers)]
    if peak(layers, plans[0]) > memory:
        return plans[0]
    for share in _SHARES:
        found = _search(layers, int(memory * share), memory / _SLOTS)
        if found is not None and peak(layers, found) <= memory:
            plans.append(found)
            break
    return min(plans, key=lambda plan: seconds(layers, plan))


def _search(layers: Sequence[Layer], memory: int, unit: float) -> Plan | None:
    """Return the plan that takes least time within so many bytes, of which a number of units is
    told apart, None if there is none.
    """
    count, slots = len(layers), int(memory / unit)
    output = [round(layer.output / unit) for layer in layers]
    kept = [round(layer.kept / unit) for layer in layers]
    forward = np.cumsum([0.0, *(layer.seconds for layer in layers)])
    # Time added to one forward and backward pass of layers first..end in so many slots; and where
    # the output of the layer before takes some of these.
    added = np.full((count, count, slots + 1), np.inf, np.float32)
    above = added.copy()
    choice = np.zeros((count, count, slots + 1), np.int16)

    def shifted(times: Array, by: int) -> Array:
        result = np.full_like(times, np.inf)
        if by <= slots:
            result[by:] = times[: slots + 1 - by]
        return result

    for first in reversed(range(count)):
        added[first, first, kept[first] :] = 0
        for end in range(first, count):
            if end > first:
                # Kept itself; or the input of first..cut-1 alone, by the cut.
                once = (forward[first + 1 : end + 1] - forward[first]).astype(np.float32)
                times = added[first, first:end] + above[first + 1 : end + 1, end] + once[:, None]
                best, cuts = times.min(axis=0), times.argmin(axis=0) + first + 1
                alone = shifted(added[first + 1, end], kept[first])
                added[first, end] = np.minimum(alone, best)
                choice[first, end] = np.where(alone <= best, 0, cuts)
            if first:
                above[first, end] = shifted(added[first, end], output[first - 1])
    if not np.isfinite(added[0, count - 1, slots]):
        return None

    def chosen(first: int, end: int, left: int) -> int:
        return int(choice[first, end, left])

    def taken(first: int, cut: int) -> int:
        return output[cut - 1] if cut else kept[first]

    return _read(chosen, taken, 0, count - 1, slots)


def _read(chosen: Any, taken: Any, first: int, end: int, left: int) -> Plan:
    """Return the plan of layers first..end in so many slots, given where the first segment of each
    such chain ends, 0 if there is none, and how many slots what is kept of it takes.
    """
    plan: Plan = []
    while first < end:
        cut = chosen(first, end, left)
        plan.append(_read(chosen, taken, first, cut - 1, left) if cut else first)
        left -= taken(first, cut)
        first = cut or first + 1
    return [*plan, *([first] if first == end else [])]
