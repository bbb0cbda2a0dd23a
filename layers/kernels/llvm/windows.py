"""Microkernels of pooling: one window of an image, and as many of its channels as a vector holds.

Addresses and strides are in bytes. A window has `height` rows, `row` apart, of `width` pixels,
`column` apart. Of the vectors only the first `lanes` elements are read and written, so that few
channels are no slower than many: a loop over the channels alone would be too short to vectorise.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .emitter import Emitter

# Sides of the square windows that loops are unrolled for: nearly all there are in networks.
UNROLLED = (2, 3)
# Bytes ahead of a window from where its rows are asked for, with few channels: there is then so
# much to do per cache line that the processor does not look far enough ahead by itself (6 channels,
# cold caches: forward took up to three times as long). With whole vectors it does, and asking costs
# more than it brings.
AHEAD = 1024


class _Window(Emitter):
    """Emits loops over a window, with whole vectors or with the first lanes of them."""

    def __init__(
        self, builder: Any, dtype: Any, row: Any, column: Any, height: Any, width: Any, lanes: Any
    ) -> None:
        super().__init__(builder, dtype)
        self.row = row
        self.column = column
        self.height = height
        self.width = width
        self.count = lanes
        self.mask: Any = None

    def emit(self, body: Callable[[], None]) -> None:
        """Emit the body for whole vectors and for the first lanes of them, both with loops of known
        length where that pays.
        """
        whole = self.builder.icmp_signed("==", self.count, self.integer(self.lanes))
        with self.builder.if_else(whole) as (all_lanes, some_lanes):
            with all_lanes:
                self._emit_sizes(body, UNROLLED)
            with some_lanes:
                self.mask = self.first_lanes(self.count)
                self._emit_sizes(body, UNROLLED)

    def _emit_sizes(self, body: Callable[[], None], sizes: Sequence[int]) -> None:
        if not sizes:
            body()
            return
        builder, given, known = self.builder, (self.height, self.width), self.integer(sizes[0])
        same = builder.and_(*(builder.icmp_signed("==", size, known) for size in given))
        with builder.if_else(same) as (yes, no):
            with yes:
                self.height = self.width = known
                body()
                self.height, self.width = given
            with no:
                self._emit_sizes(body, sizes[1:])

    def read(self, pointer: Any) -> Any:
        return self.load(pointer) if self.mask is None else self.masked_load(pointer, self.mask)

    def write(self, value: Any, pointer: Any) -> None:
        if self.mask is None:
            self.store(value, pointer)
        else:
            self.store_first([value], [pointer], self.count)

    def fetch_ahead(self, address: Any) -> None:
        """Ask for the cache lines that the windows to come will read."""

        def ask(i: Any, carried: list[Any]) -> list[Any]:
            row = self.offset(self.pointer(address), self.builder.mul(i, self.row))
            self.prefetch(self.offset(row, AHEAD), write=False)
            return carried

        if self.mask is not None:
            self.loop(self.height, [], ask)

    def bits(self, value: Any) -> Any:
        return self.builder.bitcast(value, ir.VectorType(ir.IntType(8 * self.size), self.lanes))

    def write_or_add(self, value: Any, pointer: Any, accumulate: Any) -> None:
        self.write(
            self.changed_if(
                accumulate, [value], lambda old: [self.builder.fadd(self.read(pointer), old[0])]
            )[0],
            pointer,
        )

    def pixels_of_row(
        self, row: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """Emit `carried = body(offset of the pixel, carried)` for each pixel of a row of the
        window.
        """
        start = self.builder.mul(row, self.row)
        return self.loop(
            self.width,
            carried,
            lambda j, now: body(self.builder.add(start, self.builder.mul(j, self.column)), now),
        )

    def pixels(self, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """Emit `carried = body(offset of the pixel, carried)` for each pixel of the window, in row
        order.
        """
        return self.loop(self.height, carried, lambda i, now: self.pixels_of_row(i, now, body))


def _signature(like: Any, integers: int) -> Any:
    return types.void(like, *([types.intp] * integers))


@intrinsic
def window_maximum(
    typingctx: Any,
    like: Any,
    y: Any,
    x: Any,
    row: Any,
    column: Any,
    height: Any,
    width: Any,
    lanes: Any,
    rectified: Any,
) -> Any:
    """Write the maximum of a window of x to y, or 0 where that is less and `rectified` is 1; NaN if
    the window holds one.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, y, x, *shape, rectified = arguments
        window = _Window(builder, like.dtype, *shape)

        def greater(offset: Any, carried: list[Any]) -> list[Any]:
            value = window.read(window.offset(window.pointer(x), offset))
            wins = builder.or_(
                builder.fcmp_ordered(">", value, carried[0]),
                builder.fcmp_unordered("uno", value, value),
            )
            return [builder.select(wins, value, carried[0])]

        def clipped(old: list[Any]) -> list[Any]:
            return [
                builder.select(builder.fcmp_ordered("<=", old[0], window.zero), window.zero, old[0])
            ]

        def body() -> None:
            window.fetch_ahead(x)
            best = window.pixels([window.read(window.pointer(x))], greater)
            window.write(window.changed_if(rectified, best, clipped)[0], window.pointer(y))

        window.emit(body)
        return context.get_dummy_value()

    return _signature(like, 8), generate


@intrinsic
def route_to_maximum(
    typingctx: Any,
    like: Any,
    dx: Any,
    dy: Any,
    y: Any,
    x: Any,
    row: Any,
    column: Any,
    height: Any,
    width: Any,
    lanes: Any,
    rectified: Any,
    accumulate: Any,
) -> Any:
    """Write (add, if `accumulate` is 1) dy to dx where the window of x first has the bits of its
    maximum y, and 0 elsewhere in it.

    Bits are compared, as NaN equals nothing. If `rectified` is 1, dy counts as 0 where y is not
    positive.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dx, dy, y, x, *shape, rectified, accumulate = arguments
        window = _Window(builder, like.dtype, *shape)

        def body() -> None:
            window.fetch_ahead(x)
            top = window.read(window.pointer(y))

            def gated(old: list[Any]) -> list[Any]:
                return [
                    builder.select(
                        builder.fcmp_unordered(">", top, window.zero), old[0], window.zero
                    )
                ]

            def hand_out(offset: Any, carried: list[Any]) -> list[Any]:
                value = window.read(window.offset(window.pointer(x), offset))
                wins = builder.icmp_signed("==", window.bits(value), window.bits(top))
                share = builder.select(wins, carried[0], window.zero)
                window.write_or_add(share, window.offset(window.pointer(dx), offset), accumulate)
                return [builder.select(wins, window.zero, carried[0])]

            # What is left of dy: all of it until the winner has come.
            window.pixels(
                window.changed_if(rectified, [window.read(window.pointer(dy))], gated), hand_out
            )

        window.emit(body)
        return context.get_dummy_value()

    return _signature(like, 11), generate


@intrinsic
def window_mean(
    typingctx: Any,
    like: Any,
    y: Any,
    x: Any,
    row: Any,
    column: Any,
    height: Any,
    width: Any,
    lanes: Any,
    divisor: Any,
) -> Any:
    """Write the sum of a window of x, over its rows and then of these sums, divided by the integer
    `divisor`, to y.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, y, x, *shape, divisor = arguments
        window = _Window(builder, like.dtype, *shape)

        def added(offset: Any, carried: list[Any]) -> list[Any]:
            return [builder.fadd(carried[0], window.read(window.offset(window.pointer(x), offset)))]

        def add_row(i: Any, carried: list[Any]) -> list[Any]:
            return [builder.fadd(carried[0], window.pixels_of_row(i, [window.zero], added)[0])]

        def body() -> None:
            window.fetch_ahead(x)
            total = window.loop(window.height, [window.zero], add_row)[0]
            window.write(
                builder.fdiv(total, window.splat(builder.sitofp(divisor, window.element))),
                window.pointer(y),
            )

        window.emit(body)
        return context.get_dummy_value()

    return _signature(like, 8), generate


@intrinsic
def spread(
    typingctx: Any,
    like: Any,
    dx: Any,
    dy: Any,
    row: Any,
    column: Any,
    height: Any,
    width: Any,
    lanes: Any,
    divisor: Any,
    accumulate: Any,
) -> Any:
    """Write (add, if `accumulate` is 1) dy, divided by the integer `divisor`, to every pixel of a
    window of dx.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dx, dy, *shape, divisor, accumulate = arguments
        window = _Window(builder, like.dtype, *shape)

        def body() -> None:
            share = builder.fdiv(
                window.read(window.pointer(dy)),
                window.splat(builder.sitofp(divisor, window.element)),
            )

            def hand_out(offset: Any, carried: list[Any]) -> list[Any]:
                window.write_or_add(share, window.offset(window.pointer(dx), offset), accumulate)
                return carried

            window.pixels([], hand_out)

        window.emit(body)
        return context.get_dummy_value()

    return _signature(like, 9), generate
