"""What instruments measure of layers: their outputs, and the gradients of these."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ddbp.comm.base import Ranks
from layers import Call, Module, Sigmoid, Tanh, Tape, TapeHook
from layers.engine.memory import flat, matrix
from layers.engine.shard_bounds import ShardBounds
from layers.kernels import measure
from layers.kernels.measure import BINS, FIRST_BIN, SATURATED, SQUARES, ZEROS
from layers.types import Array, Integers

from .calls import named, written
from .clock import StepClock

_MEASURES = FIRST_BIN + BINS
_OUTPUT, _GRADIENT = slice(_MEASURES), slice(_MEASURES, 2 * _MEASURES)
_ELEMENTS, _GRADIENTS = 2 * _MEASURES, 2 * _MEASURES + 1
WIDTH = 2 * _MEASURES + 2
"""How many numbers there are of a layer and a shard: what `measures` counts in the output and in
its gradient, and how many elements these have.
"""
_SATURATED: Mapping[type, tuple[float, float]] = {Sigmoid: (0.02, 0.98), Tanh: (-0.98, 0.98)}
"""Beyond what outputs a unit passes next to no gradient on: less than a twelfth of the most."""


def bin_edges() -> Array:
    """Return the edges (BINS + 1,) of the bins of magnitudes."""
    inner = 2.0 ** np.arange(measure.LOWEST, measure.HIGHEST + 1)
    return np.array([0.0, *inner, np.finfo(np.float32).max])


class Measures:
    """Calls `measures` for arrays of one floating type.

    Parameters
    ----------
    dtype
        The type.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._bits = f"i{self.dtype.itemsize}"
        info = np.finfo(self.dtype)
        # Numbers from 2^minexp on have the exponent 1.
        self._exponents = int(info.nmant), measure.LOWEST - int(info.minexp)
        self._all = self._numbers((-np.inf, np.inf))
        self._saturated = {kind: self._numbers(bounds) for kind, bounds in _SATURATED.items()}

    def _numbers(self, bounds: tuple[float, float]) -> tuple[Any, ...]:
        return tuple(map(self.dtype.type, bounds))

    def __call__(self, sums: Array, x: Array, parts: Integers, kind: type = object) -> None:
        """Write what `measures` does of x (n,), the output of a layer of some class."""
        bounds = self._saturated.get(kind, self._all)
        measure.measures(sums, x, x.view(self._bits), parts, *bounds, *self._exponents)


class _Rows(NamedTuple):
    """Where the shards are in an array.

    Attributes
    ----------
    parts
        Where they begin and end in its elements (S, 2).
    elements
        How many elements each has.
    """

    parts: Integers
    elements: Integers


def _columns(model: Module) -> dict[int, tuple[str, type]]:
    """Return by their ids the names and classes of the layers of a model that have an output.

    Those within a fused one have none: what they give exists for a moment in registers.
    """
    found = named(model)
    inner = {id(part) for _, layer in found for part in layer.parts[:-1]}
    return {
        id(layer): (name, type(layer))
        for name, layer in found
        if not layer.parts and id(layer) not in inner
    }


class LayerGauge(TapeHook):
    """Measures the outputs of layers, and their gradients, of each shard of this rank's.

    Of batches that accumulate it is the last one. A layer that is called several times has one
    column.

    Parameters
    ----------
    model
        The model.
    dtype
        The type of its numbers.
    clock
        What is told of the passes, and must not count the time that measuring takes.

    Attributes
    ----------
    layers
        The names of the columns.
    numbers
        What was measured (shards, layers, WIDTH).
    tape
        That of the last batch.
    """

    def __init__(self, model: Module, dtype: Any, clock: StepClock) -> None:
        found = _columns(model)
        self.layers = [name for name, _ in found.values()]
        self._columns = {key: (i, kind) for i, (key, (_, kind)) in enumerate(found.items())}
        self._saturates = np.array([kind in _SATURATED for _, kind in found.values()])
        self._clock = clock
        self._measures = Measures(dtype)
        self.tape: Tape | None = None
        self._passes = 0
        # Which units of a layer have fired, by its column.
        self._fired: dict[int, Array] = {}
        self._make_room(0)

    def _make_room(self, shards: int) -> None:
        self.numbers = np.zeros((shards, len(self.layers), WIDTH))
        self._found = np.zeros((shards, _MEASURES))
        self._bounds: ShardBounds | None = None
        self._rows: dict[tuple[int, ...], _Rows | None] = {}

    def begin(self) -> None:
        """Begin a step."""
        self._passes = 0
        self.tape = None

    def on_forward_begin(self, call: Call) -> None:
        tape = call.tape
        if call.index or not tape.training:
            return
        # Once per pass: a step may have several.
        if self._passes:
            self._clock.mark("data")
        self._passes += 1
        self.tape = tape
        if len(self.numbers) != tape.shards:
            self._make_room(tape.shards)
        self.numbers[...] = 0
        for fired in self._fired.values():
            fired[:] = 0

    def on_forward_end(self, call: Call) -> None:
        found = self._column(call)
        if found is None:
            return
        self._clock.pause()
        column, kind = found
        y = call.output.arrays[0]
        rows = self._rows_of(y)
        if rows is not None:
            into = self.numbers[:, column]
            self._measures(self._found, flat(y), rows.parts, kind)
            into[:, _OUTPUT] += self._found
            into[:, _ELEMENTS] += rows.elements
            measure.fired_units(self._fired_of(column, y.shape[-1]), matrix(y))
        self._clock.go_on()

    def on_backward_pass_begin(self, tape: Tape) -> None:
        self._clock.mark("forward")

    def on_backward_begin(self, call: Call) -> None:
        found = self._column(call)
        if found is None:
            return
        self._clock.pause()
        given: Any = call.output.received
        # Of a recurrence there may be a gradient of its last states only.
        parts: Any = given if type(given) is tuple else (given,)
        dy = next((part for part in parts if part is not None), None)
        rows = None if dy is None else self._rows_of(dy)
        if dy is not None and rows is not None:
            into = self.numbers[:, found[0]]
            self._measures(self._found, flat(dy), rows.parts)
            into[:, _GRADIENT] += self._found
            into[:, _GRADIENTS] += rows.elements
        self._clock.go_on()

    def on_backward_pass_end(self, tape: Tape) -> None:
        self._clock.mark("backward")

    def _column(self, call: Call) -> tuple[int, type] | None:
        """Return the column of a call of this step, and the class of its layer, if there is one."""
        if call.tape is not self.tape:
            return None
        layer: Module = call.layer
        return self._columns.get(id(written(layer)[-1]))

    def _rows_of(self, array: Array) -> _Rows | None:
        """Return where the shards are in an array, None if it is none of numbers of samples."""
        assert self.tape is not None
        bounds = self.tape.shard_bounds
        if bounds is not self._bounds:
            self._bounds = bounds
            self._rows = {}
        if array.dtype != self._measures.dtype:
            return None
        if array.shape not in self._rows:
            self._rows[array.shape] = self._located(array.shape, bounds)
        return self._rows[array.shape]

    @staticmethod
    def _located(shape: tuple[int, ...], bounds: ShardBounds) -> _Rows | None:
        if len(shape) < 2 or 0 in shape or not bounds.rows or shape[0] % bounds.rows:
            return None
        ends = bounds.of(shape[0]) * math.prod(shape[1:])
        return _Rows(np.stack([ends[:-1], ends[1:]], axis=1), np.diff(ends))

    def _fired_of(self, column: int, units: int) -> Array:
        """Return which of so many units have fired, to be added to."""
        fired = self._fired.get(column)
        if fired is None or fired.size < units:
            known, fired = fired, np.zeros(units, np.uint8)
            if known is not None:
                fired[: known.size] = known
            self._fired[column] = fired
        return fired[:units]

    def silent(self, ranks: Ranks) -> Array:
        """Return the shares of units that are 0 in all samples of all ranks (layers,); collective.

        A unit is an index of the last axis.
        """
        widths = np.zeros(len(self.layers), np.int64)
        for column, fired in self._fired.items():
            widths[column] = fired.size if self.numbers[:, column, _ELEMENTS].any() else 0
        # A rank without samples does not know.
        widths, own = ranks.all_gather(widths).max(axis=0), widths
        ends = np.cumsum(widths)
        bits = np.zeros(ends[-1] if len(ends) else 0, np.uint8)
        for column, fired in self._fired.items():
            start = ends[column] - widths[column]
            bits[start : start + own[column]] = fired[: own[column]]
        everywhere = np.bitwise_or.reduce(ranks.all_gather(np.packbits(bits)), axis=0)
        bits = np.unpackbits(everywhere, count=len(bits))
        parts = zip((ends - widths).tolist(), ends.tolist(), strict=True)
        counts = np.array([np.count_nonzero(bits[start:end]) for start, end in parts])
        return 1 - counts / np.where(widths > 0, widths, np.nan)

    def row(self, total: Array, silent: Array) -> dict[str, Array]:
        """Return what is recorded, given the sums over all shards (layers, WIDTH) and the silent
        units.
        """
        with np.errstate(all="ignore"):
            share = total[:, _OUTPUT] / total[:, _ELEMENTS, np.newaxis]
            gradient = total[:, _GRADIENT] / total[:, _GRADIENTS, np.newaxis]
            return {
                "activation_norm": np.sqrt(share[:, SQUARES]),
                "activation_zeros": share[:, ZEROS],
                "activation_silent": silent,
                "activation_saturated": np.where(self._saturates, share[:, SATURATED], np.nan),
                "activation_histogram": share[:, FIRST_BIN:],
                "activation_gradient_norm": np.sqrt(gradient[:, SQUARES]),
                "activation_gradient_histogram": gradient[:, FIRST_BIN:],
            }
