"""Where numbers that are not finite come from: the first layer whose output, or gradient, is not
finite, and the samples that cause it.

Nobody watches the layers of ordinary steps. When a loss or a gradient turns out not to be finite,
its tape still has what each layer has given, and backward runs once more with an observer.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from ddbp.reduction.shard_gather import ShardGather
from layers import Call, FlatParameters, Module, Tape, TapeHook, Value
from layers.engine.gradients import Gradients
from layers.engine.segment import SegmentCall
from layers.types import Array, Integers

from . import finite

_T = TypeVar("_T")
_NAMED = 8
"""So many samples, and parameters, are named."""
_BACKWARD, LAST = 10**8, 10**9
"""The order of what is found in a backward pass, after all that is found in forward passes, and of
that for which no layer is known.
"""


class Finding(NamedTuple):
    """Where numbers of a rank are not finite.

    Attributes
    ----------
    order
        Less, the earlier in the passes that is: what comes later on other ranks comes of it.
    text
        It, in words.
    """

    order: int
    text: str


class Diagnosis:
    """Finds where a loss, or a gradient, of this rank is not finite, and says it in words.

    Parameters
    ----------
    model, loss
        Whose layers are named.
    gather
        What layers ask other ranks by.
    """

    def __init__(self, model: Module, loss: Any, gather: ShardGather) -> None:
        self._names = {
            id(layer): f"{name}: {layer!r}" if name else repr(layer)
            for name, layer in model.named_layers()
        }
        if isinstance(loss, Module):
            self._names.setdefault(id(loss), f"the loss, {loss!r}")
        self._gather = gather

    def of_loss(self, loss: Value) -> Finding | None:
        """Return where the loss of a batch is not finite, None if it is."""
        return self._of_calls(loss.tape.calls, loss)

    def _of_calls(self, calls: list[Call], loss: Value) -> Finding | None:
        """Return where calls on the way to a loss first give what is not finite, if they do."""
        first = next((call for call in calls if not _finite(call.output.remembered)), None)
        if first is None:
            return None
        given = _given(calls, first)
        if given is not None:
            call, array = given
            samples = _samples(loss.tape, _rows(loss.tape, [array]))
            finding = Finding(-1, f"{self._name(call)} was given {_value(array)}{samples}")
        else:
            call = first
            rows = _rows(loss.tape, first.output.remembered)
            if not rows.size and first is loss.call and not loss.ndim:
                rows = _rows_of_loss(first)
            of = _samples(loss.tape, rows)
            where = f"the first layer whose output is not finite is {self._name(first)}{of}"
            finding = Finding(first.index, where)
        within = self._within(call, lambda inner: self._of_calls(inner, loss))
        return finding if within is None else within._replace(order=finding.order)

    def _within(self, call: Call, look: Callable[[list[Call]], _T | None]) -> _T | None:
        """Return what is found in the calls of a segment, which are made once more; None in a call
        of another layer.
        """
        if not isinstance(call, SegmentCall):
            return None
        try:
            # Numbers of other ranks do not come: any will do.
            with self._gather.alone(), call.again() as (tape, *_):
                return look(tape.calls)
        except Exception:
            # What is known already must be said, whatever a layer makes of a second pass.
            return None
        finally:
            self._gather.asked_alone = False

    def of_gradient(self, loss: Value, flat: FlatParameters, names: list[str]) -> Finding:
        """Return where the gradient of a batch, which is not finite for the parameters of the
        given names, is so first; it stays as it is.
        """
        parameters = _listed(names)
        tape = loss.tape
        observer = _Observer(tape)
        if not self._propagates(loss, flat, _Nobody(), observer):
            # What is known already must be said, whatever a layer makes of a second pass.
            observer.call = None
        call, rows = observer.call, observer.rows
        if call is not None:
            where = f"; the first layer whose gradient is not finite is {self._name(call)}"
            order = _BACKWARD - call.index
        elif (name := self._last_with(_parameters(names, flat), tape.calls)) is not None:
            where, order = f"; what comes back to {name} is finite", LAST
        else:
            where, order = "", LAST
        if not rows.size:
            rows = self._rows_of_shards(loss, flat, names)
        return Finding(order, f"for {parameters}{where}{_samples(tape, rows)}")

    def _propagates(
        self, loss: Value, flat: FlatParameters, owner: "_Nobody", *observers: TapeHook
    ) -> bool:
        """Propagate backwards once more, for another owner of gradients; return whether it went
        well.
        """
        tape, other = loss.tape, cast("FlatParameters", owner)
        tape.owner = other
        try:
            # Numbers of other ranks do not come: any will do.
            with self._gather.alone(), tape.observed(*observers, alone=True):
                loss.backward()
        except Exception:
            return False
        finally:
            self._gather.asked_alone = False
            tape.owner = flat
        return True

    def _rows_of_shards(self, loss: Value, flat: FlatParameters, names: list[str]) -> Integers:
        """Return the rows of the shards whose gradients of parameters of the given names are not
        finite; none if that are all. Of gradients that were added up that is known of no shard, so
        they are computed once more.
        """
        tape, owner = loss.tape, _Nobody()
        stored = dict(zip(flat.names, flat.parameters, strict=True))
        stores = [(stored[name], stored[name].store) for name in names]
        bad = np.zeros(tape.shards, bool)
        for parameter, _ in stores:
            parameter.store = Gradients(parameter.shape, parameter.dtype)
            parameter.store.owner = cast("FlatParameters", owner)
        try:
            self._propagates(loss, flat, owner)
            for parameter, _ in stores:
                apart = parameter.gradients
                if apart is not None:
                    bad |= ~np.isfinite(apart).reshape(tape.shards, -1).all(axis=1)
        finally:
            for parameter, store in stores:
                parameter.store = store
        if bad.all():
            return np.zeros(0, np.int64)
        return np.flatnonzero(np.repeat(bad, np.diff(tape.bounds(tape.rows))))

    def _last_with(self, wanted: set[int], calls: list[Call]) -> str | None:
        """Return the name of the layer of the last call that has one of the parameters with these
        identities.
        """
        call = next((call for call in reversed(calls) if wanted & {*map(id, call.trained)}), None)
        if call is None:
            return None
        return self._within(call, partial(self._last_with, wanted)) or self._name(call)

    def _name(self, call: Call) -> str:
        name = self._names.get(id(call.layer))
        if name is not None:
            return name
        # Neighbours that run as one call.
        parts = [self._names.get(id(part)) for part in getattr(call.layer, "parts", ())]
        known = [part for part in parts if part is not None]
        return " + ".join(known) if known and len(known) == len(parts) else repr(call.layer)


class _Nobody:
    """The owner of no parameters: what a tape computes for it adds to no gradient."""

    def begin_pass(self) -> None:
        """Begin a backward pass."""


class _Observer(TapeHook):
    """Remembers the first call of a backward pass that passes back what is not finite."""

    def __init__(self, tape: Tape) -> None:
        self.call: Call | None = None
        self.rows: Integers = np.zeros(0, np.int64)
        self._tape = tape

    def on_backward_end(self, call: Call) -> None:
        given = [x.received for x in call.inputs if isinstance(x, Value) and x.wants]
        arrays = [dx for dx in given if dx is not None]
        if self.call is None and not _finite(arrays):
            self.call = call
            self.rows = _rows(self._tape, arrays)


def _parameters(names: list[str], flat: FlatParameters) -> set[int]:
    """Return the identities of the parameters of these names."""
    pairs = zip(flat.names, flat.parameters, strict=True)
    return {id(parameter) for name, parameter in pairs if name in names}


def _finite(arrays: Iterable[Array]) -> bool:
    return all(map(finite.is_finite, arrays))


def _given(calls: list[Call], last: Call) -> tuple[Call, Array] | None:
    """Return the call, of those up to the last one, that was given a value that is not finite from
    outside of the tape, and that.
    """
    for each in calls[: last.index + 1]:
        for x in each.inputs:
            array = x.array if isinstance(x, Value) and x.call is None else x
            if isinstance(array, np.ndarray) and not finite.is_finite(array):
                return each, array
    return None


def _value(array: Array) -> str:
    """Return the first number of an array that is not finite."""
    return str(array[~np.isfinite(array)].flat[0])


def _rows(tape: Tape, arrays: Iterable[Array]) -> Integers:
    """Return the rows of the batch in which arrays, of a row for each sample, are not finite."""
    bad = np.zeros(tape.rows, bool)
    for array in arrays:
        if array.ndim and len(array) == tape.rows and array.dtype.kind == "f":
            bad |= ~np.isfinite(array).reshape(tape.rows, -1).all(axis=1)
    return np.flatnonzero(bad)


def _rows_of_loss(call: Call) -> Integers:
    """Return the rows whose own loss is not finite, of a loss layer."""
    arrays = [x.array if isinstance(x, Value) else x for x in call.inputs]
    count = call.tape.rows
    bad = []
    for row in range(count):
        tape = Tape()
        parts = [
            array[row : row + 1] if np.ndim(array) and len(array) == count else array
            for array in arrays
        ]
        try:
            loss = tape.record(call.layer, (tape.input(parts[0]), *parts[1:]))
            if not finite.is_finite(loss.array):
                bad.append(row)
        except Exception:
            # It takes no single samples.
            break
    return np.array(bad, np.int64)


def _samples(tape: Tape, rows: Integers) -> str:
    """Return which samples the rows of this rank are, in words."""
    if not rows.size:
        return ""
    numbers = tape.numbers
    known = isinstance(numbers, np.ndarray)
    found = numbers[rows] if known else (numbers or 0) + rows
    where = "the data" if known else "the batch"
    text = _listed([str(number) for number in found.tolist()])
    return f", in {'sample' if rows.size == 1 else 'samples'} {text} of {where}"


def _listed(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
