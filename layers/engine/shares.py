"""Shares: values of which each rank has its part, and what may be done with them.

A rank knows its own part of the global batch only. A loss, or a mean over the axis of the batch, is
there its share of the whole, which is the sum of the shares of all ranks. Sums of shares and their
multiples by numbers are shares, too; nothing else is.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from layers.errors import message
from layers.kernels import reduce

from .batch_sum import BatchSum
from .layer import Recorded
from .merge import Add, Multiply
from .operators.arithmetic import Divide, Power, Subtract
from .operators.elementary import Function
from .operators.reductions import Mean, Sum

if TYPE_CHECKING:
    from .call import Call
    from .value import Value

_KNOWN = 64
"""So many numbers of losses are remembered: one may have other numbers in each batch."""


def of(value: "Value") -> BatchSum | None:
    """Return what a value is the mean of, None if it is no share of a whole."""
    known = value.known_share
    if known is not None:
        return known
    call = value.call
    if call is None:
        return None
    if call.batch_sum is None:
        combine = _COMBINED.get(type(call.layer))
        if combine is not None:
            call.batch_sum = combine(call)
    return call.batch_sum


def required(value: "Value", owner: str, known: set[float] | None = None) -> BatchSum:
    """Return what a loss is the mean of; that of a whole batch which is one shard may be any value.

    `known` are numbers of the losses of other batches, which are no counts of this batch's samples;
    those of this loss are added.

    Raises
    ------
    ValueError
        It is no sum of shares, or one of them depends on another share: then it would be another
        one on another number of ranks, or its gradient would.
    """
    found = value.known_share
    if found is not None:
        return found
    tape = value.tape
    found = of(value)
    if not tape.divided:
        if found is None:
            found = BatchSum(np.array([value.item() * (tape.samples or 1)]), None)
        return found
    if found is None or found.sums.ndim != 1:
        must = (
            "on several shards a loss must be that of a loss layer, a mean or sum over the axis of"
            " the batch, or a sum of such and of multiples by numbers"
        )
        fix = (
            "Compute a number for each sample (N,), then its .mean(); or use shards=1 on one rank."
        )
        raise ValueError(message(owner, must, repr(value.call or value), fix))
    if tape.rows != tape.samples:
        _require_global(owner, value, set() if known is None else known)
    terms = _terms(value)
    if len(tape.shares) > len(terms):
        _require_independent(owner, terms, tape.shares)
    return found


def _require_global(owner: str, value: "Value", known: set[float]) -> None:
    """Refuse a sum over the batch that is divided by the number of this rank's rows or elements."""
    tape = value.tape
    rows, samples = tape.rows, tape.samples or tape.rows
    left: list[tuple[Call | None, list[float], set[int]]] = [(value.call, [], set())]
    while left:
        call, divisors, sizes = left.pop()
        if call is None or not (call.reported or type(call.layer) in _ELEMENTWISE):
            own = [x for x in divisors if x not in known and _is_one_of(x, sizes)]
            if own and not any(_is_one_of(x * rows / samples, sizes) for x in divisors):
                must = "a sum over the batch must not be divided by this rank's number of samples"
                fix = "Write .mean() in place of .sum(), or divide by batch.samples."
                raise ValueError(message(owner, must, f"a division by {own[0]:.6g}", fix))
            if len(known) < _KNOWN:
                known.update(divisors)
            continue
        values = _values(call)
        if type(call.layer) is Divide:
            divisors = divisors + [float(x) for x in call.inputs[1:] if _is_number(x)]
        elif type(call.layer) is Multiply:
            # 1 is a weight, not the inverse of one row.
            divisors = divisors + [1 / float(x) for x in call.inputs if _is_number(x) and x != 1]
        if call.reported:
            if type(call.layer) is not Sum:
                continue
            sizes = {rows}
        if sizes:
            # Above the sum: what was added up, and of how many elements it is.
            values = values[:1]
            sizes = sizes | {values[0].array.size}
        left += [(x.call, divisors, sizes) for x in values]


def _is_number(x: Any) -> bool:
    return not isinstance(x, Recorded) and np.ndim(x) == 0 and bool(x)


def _is_one_of(x: float, sizes: set[int]) -> bool:
    """Return whether x is a size, up to rounding."""
    return any(abs(x - size) < 1e-6 * size for size in sizes)


def _terms(value: "Value") -> "dict[int, Call]":
    """Return the calls that reduced over the batch, of which a value is combined."""
    terms: dict[int, Call] = {}
    left = [value.call]
    while left:
        call = left.pop()
        if call is None:
            continue
        if call.reported:
            terms[call.index] = call
        else:
            left += [x.call for x in _values(call)]
    return terms


def _require_independent(owner: str, terms: "dict[int, Call]", shares: "list[Call]") -> None:
    """Refuse terms of a loss that were computed from a share."""
    known = {call.index for call in shares}
    seen: set[int] = set()
    left = [x.call for call in terms.values() for x in _values(call)]
    while left:
        call = left.pop()
        if call is None or call.index in seen:
            continue
        seen.add(call.index)
        if call.index in known:
            must = (
                "what was averaged over the batch must only be added up and multiplied by numbers,"
                " as a rank knows its own samples only"
            )
            fix = (
                "BatchNorm(…, synchronized=True) has the statistics of the global batch; or use"
                " shards=1 on one rank."
            )
            raise ValueError(message(owner, must, f"other uses of {call!r}", fix))
        left += [x.call for x in _values(call)]


def _values(call: "Call") -> "list[Value]":
    return [cast("Value", x) for x in call.inputs if isinstance(x, Recorded)]


# What operators make of shares. None: no share.


def _sum(call: "Call") -> BatchSum | None:
    """Combine a + b, and a + number."""
    return _added(call, [1.0] * len(call.inputs))


def _difference(call: "Call") -> BatchSum | None:
    return _added(call, [1.0, -1.0])


def _added(call: "Call", signs: list[float]) -> BatchSum | None:
    shape = call.output.arrays[0].shape
    shares: list[tuple[float, BatchSum]] = []
    constant = 0.0
    for sign, x in zip(signs, call.inputs, strict=True):
        if isinstance(x, Recorded):
            share = of(cast("Value", x))
            if share is None or share.sums.shape[1:] != shape:
                return None
            shares.append((sign, share))
        elif np.ndim(x) == 0:
            constant += sign * x
        else:
            return None
    if not shares:
        return None
    samples = call.tape.samples or call.tape.rows
    divisor = shares[0][1].divisor
    if any(share.divisor != divisor for _, share in shares):
        # Means over different things: over the samples then, of which each has its part.
        divisor = None
        parts = [sign * share.per_sample(samples) for sign, share in shares]
    else:
        parts = [sign * share.sums for sign, share in shares]
    sums = parts[0]
    for part in parts[1:]:
        sums = sums + part
    if constant:
        rows = np.diff(call.tape.bounds(call.tape.rows))
        whole = samples if divisor is None else divisor
        sums = sums + (constant * whole / samples) * rows.reshape(-1, *[1] * len(shape))
    return BatchSum(sums, divisor)


def _multiple(call: "Call") -> BatchSum | None:
    """Combine a times numbers."""
    return _scaled(call, np.multiply)


def _quotient(call: "Call") -> BatchSum | None:
    return None if not isinstance(call.inputs[0], Recorded) else _scaled(call, np.true_divide)


def _scaled(call: "Call", operation: Any) -> BatchSum | None:
    values = _values(call)
    share = of(values[0]) if len(values) == 1 else None
    if share is None or share.sums.shape[1:] != call.output.arrays[0].shape:
        return None
    sums = share.sums
    for x in call.inputs:
        if not isinstance(x, Recorded):
            sums = operation(sums, np.asarray(x, np.float64))
    return BatchSum(sums, share.divisor)


def _reduced(call: "Call") -> BatchSum | None:
    """Combine the sum or mean over the remaining axes."""
    layer: Any = call.layer
    share = of(call.inputs[0])
    if share is None or layer.axis is not None or layer.keepdims:
        return None
    terms = np.ascontiguousarray(share.sums.reshape(len(share.sums), -1).T)
    sums = np.empty((1, len(share.sums)), terms.dtype)
    reduce.column_sums(sums, terms, np.array((0, len(terms)), np.int64), False)
    return BatchSum(sums[0] * layer.scale(len(terms)), share.divisor)


def _function(call: "Call") -> BatchSum | None:
    layer: Any = call.layer
    share = of(call.inputs[0]) if layer.name == "negative" else None
    return None if share is None else BatchSum(-share.sums, share.divisor)


_COMBINED: "dict[type, Callable[[Call], BatchSum | None]]" = {
    Add: _sum,
    Subtract: _difference,
    Multiply: _multiple,
    Divide: _quotient,
    Sum: _reduced,
    Mean: _reduced,
    Function: _function,
}
# What is followed from a loss up to its sums over the batch, and on to what they are of.
_ELEMENTWISE = {*_COMBINED, Power}
