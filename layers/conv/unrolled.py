"""Convolution in bfloat16: the product of unrolled windows with the weight, see
`layers.kernels.conv_bf16`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from layers.engine.precision import Precision
from layers.kernels import conv, conv_bf16
from layers.kernels.llvm.numbers_bf16 import RUN
from layers.kernels.machine import BAND_BYTES
from layers.kernels.records import table
from layers.types import Array, Integers

from .algorithm import ConvAlgorithm
from .tables import ConvShape, Geometry


@dataclass(frozen=True)
class _Map:
    """The tables of `kernels.conv_bf16.correlate`, and its scratch in words: the packed weight, a
    matrix of it, the band, unrolled windows.
    """

    phases: Array
    runs: Array
    order: Integers
    plan: Array
    scratch: tuple[int, ...]


def _runs(starts: list[int], length: int) -> list[dict[str, int]]:
    return [{"offset": 2 * start, "bytes": 2 * length} for start in starts]


class Unrolled(ConvAlgorithm):
    """Products of unrolled windows with the weight in bfloat16."""

    takes_words = True

    def __init__(self, shape: ConvShape, dtype: Any, precision: Precision) -> None:
        super().__init__(shape, dtype)
        self.precision = precision
        self._multiple: int = 2 * precision.order.together

    def __repr__(self) -> str:
        return f"Unrolled({self.precision.name})"

    @cached_property
    def _forward(self) -> _Map:
        return self._map(backward=False)

    @cached_property
    def _backward(self) -> _Map:
        return self._map(backward=True)

    def _map(self, *, backward: bool) -> _Map:
        of, groups = Geometry(self.shape, backward=backward), self.shape.window.groups
        read, written = (count // groups for count in of.channels)
        phases: list[dict[str, int]] = []
        runs: list[dict[str, int]] = []
        order: list[int] = []
        packed = matrix = longest = 0
        for phase in of.phases():
            phases.append({**phase.fields, "runs": len(phase.starts)})
            runs += _runs(phase.starts, phase.taps_of_run * read)
            order += phase.taps
            inner = len(phase.taps) * read
            packed += groups * self.precision.packed_size(inner, written, 4)
            matrix = max(matrix, inner * written)
            longest = max(longest, inner)
        row_bytes = 2 * of.band.width * of.channels[0]
        rows = of.band.rows(BAND_BYTES, row_bytes, of.step[0], of.largest[0])
        band = ((rows - 1) * of.step[0] + of.band.span) * row_bytes
        numbers = max(conv_bf16.BLOCK, conv_bf16.LEAST_WINDOWS * longest)
        return _Map(
            table(conv.PHASE, phases),
            table(RUN, runs),
            np.array(order, np.int64),
            of.band.plan(rows, groups, of.step, of.out_step),
            (packed, matrix if backward else 0, *map(_with_slack, (band, 2 * numbers))),
        )

    @cached_property
    def _gradient(self) -> tuple[Array, Array, tuple[int, ...]]:
        """The runs, the plan and the scratch of `kernels.conv_bf16.weight_gradient`."""
        of, (inputs, outputs) = Geometry(self.shape, backward=False), self.shape.channels
        groups, (height, width) = self.shape.window.groups, self.shape.outputs
        (phase,) = of.phases()
        length = len(phase.taps) * inputs // groups
        rows = min(height, max(1, conv_bf16.PIXELS // width))
        images = max(1, conv_bf16.PIXELS // (height * width))
        band = ((rows - 1) * of.step[0] + of.band.span) * of.band.width * inputs * 2
        pixels = images * rows * width
        scratch = (
            _with_slack(images * band),
            _with_slack(2 * pixels * length),
            _with_slack(2 * pixels * outputs),
            length * (outputs + outputs // groups),
        )
        runs = _runs(phase.starts, phase.taps_of_run * inputs // groups)
        return table(RUN, runs), of.band.plan(rows, groups, of.step), scratch

    def gradient(
        self, call: Any, dw: Array, dy: Array, x: Array, bounds: Integers, add: bool
    ) -> None:
        runs, plan, scratch = self._gradient
        call.run(
            conv_bf16.weight_gradient,
            dw,
            dy,
            x,
            bounds,
            runs,
            plan,
            self.precision.like(dw),
            *call.scratch(np.uint32, *scratch),
            add,
        )

    def _correlate(
        self,
        call: Any,
        plan: _Map,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array,
        rectified: bool,
        *,
        transposed: bool,
    ) -> None:
        packed, matrix, band, words = call.scratch(np.uint32, *plan.scratch)
        panels, groups = packed.view(self.precision.words), self.shape.window.groups
        call.run(
            conv_bf16.pack,
            panels,
            weight,
            matrix,
            plan.order,
            plan.phases,
            groups,
            transposed,
            self._multiple,
        )
        call.run(
            conv_bf16.correlate,
            y,
            x,
            panels,
            bias,
            plan.phases,
            plan.runs,
            plan.plan,
            band,
            words,
            self._multiple,
            rectified,
        )


def _with_slack(bytes_: int) -> int:
    """Return how many words hold so many bytes and what may be written after them."""
    return -(-(bytes_ + conv_bf16.SLACK) // 4)
