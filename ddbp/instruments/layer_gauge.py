"""What instruments measure of layers: their outputs, and the gradients of these."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ddbp.comm.base import Ranks
from layers import Call, Module, Sigmoid, Tanh, Tape, TapeHook
from layers.engine.memory import flat, matrix
from layers.engine.segment import outermost
from layers.engine.shard_bounds import ShardBounds
from layers.kernels import measure
from layers.kernels.measure import BINS, FIRST_BIN, SATURATED, SQUARES, ZEROS
from layers.recurrent.recurrence import Recurrence, RecurrentPass
from layers.types import Array, Integers

from .calls import named, written
from .clock import StepClock

_MEASURES = FIRST_BIN + BINS
_OUTPUT, _GRADIENT = slice(_MEASURES), slice(_MEASURES, 2 * _MEASURES)
_ELEMENTS, _GRADIENTS = 2 * _MEASURES, 2 * _MEASURES + 1
_GATES, _CELLS = 2 * _MEASURES + 2, 2 * _MEASURES + 4
WIDTH = 2 * _MEASURES + 6
"""How many numbers there are of a layer and a shard: what `measures` counts in the output and in
its gradient, and how many elements these have; of a recurrence how many gates and cells are
saturated, each before how many there are.
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
        self._bits = f"u{self.dtype.itemsize}"
        # Numbers from 2^minexp on have the exponent 1.
        self._first = measure.LOWEST - int(np.finfo(self.dtype).minexp)
        self._all = self._numbers((-np.inf, np.inf))
        self._saturated = {kind: self._numbers(bounds) for kind, bounds in _SATURATED.items()}

    def _numbers(self, bounds: tuple[float, float]) -> tuple[Any, ...]:
        return tuple(map(self.dtype.type, bounds))

    def __call__(self, sums: Array, x: Array, parts: Integers, kind: type = object) -> None:
        """Write what `measures` does of x (n,), the output of a layer of some class."""
        bits, limits = x.view(self._bits), self.limits(kind)
        measure.measures(sums, x, bits, parts, *limits, self._first)

    def limits(self, kind: type) -> tuple[Any, ...]:
        """Return beyond what outputs a unit of a class of layers is saturated."""
        return self._saturated.get(kind, self._all)

    def magnitudes(self, counts: Array, x: Array, parts: Integers) -> None:
        """Write what the kernel of this name does of x (n,)."""
        measure.magnitudes(counts, x.view(self._bits), parts, self._first)


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
    scale
        What gradients are multiplied by on their way back.
    """

    def __init__(self, model: Module, dtype: Any, clock: StepClock) -> None:
        found = _columns(model)
        self.layers = [name for name, _ in found.values()]
        self._columns = {key: (i, kind) for i, (key, (_, kind)) in enumerate(found.items())}
        self._saturates = np.array([kind in _SATURATED for _, kind in found.values()])
        self._clock = clock
        self._measures = Measures(dtype)
        self.tape: Tape | None = None
        self.scale = 1.0
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
        if not call.begins_pass or not tape.training:
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
        if isinstance(call.layer, RecurrentPass):
            self._measure_steps(self.numbers[:, column], call, call.layer.core)
        self._clock.go_on()

    def _measure_steps(self, into: Array, call: Call, core: Recurrence) -> None:
        """Count the gates and cells of a recurrence that are saturated."""
        _, lengths, _, saved = call.saved
        bounds = call.bounds(len(lengths))
        steps = np.diff(np.append(0, np.cumsum(lengths))[bounds])
        counts = np.empty(len(steps))
        found = core.gates_and_cells(saved)
        for place, kind, parts in zip((_GATES, _CELLS), (Sigmoid, Tanh), found, strict=True):
            limits = self._measures.limits(kind)
            for x, first, last in parts:
                measure.saturated_steps(counts, x, first, last, lengths, bounds, *limits)
                into[:, place] += counts
                into[:, place + 1] += steps * (last - first)

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
            dy = flat(dy) if self.scale == 1 else flat(dy) / dy.dtype.type(self.scale)
            self._measures(self._found, dy, rows.parts)
            into[:, _GRADIENT] += self._found
            into[:, _GRADIENTS] += rows.elements
        self._clock.go_on()

    def on_backward_pass_end(self, tape: Tape) -> None:
        self._clock.mark("backward")

    def _column(self, call: Call) -> tuple[int, type] | None:
        """Return the column of a call of this step, and the class of its layer, if there is one."""
        if outermost(call.tape) is not self.tape:
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
            gates = total[:, _GATES] / total[:, _GATES + 1]
            cells = total[:, _CELLS] / total[:, _CELLS + 1]
            return {
                "activation_norm": np.sqrt(share[:, SQUARES]),
                "activation_zeros": share[:, ZEROS],
                "activation_silent": silent,
                "activation_saturated": np.where(self._saturates, share[:, SATURATED], cells),
                "gates_saturated": gates,
                "activation_histogram": share[:, FIRST_BIN:],
                "activation_gradient_norm": np.sqrt(gradient[:, SQUARES]),
                "activation_gradient_histogram": gradient[:, FIRST_BIN:],
            }
