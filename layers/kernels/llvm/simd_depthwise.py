"""Microkernels of depthwise convolution: a row of pixels, and as many channels as a vector holds.

Addresses and strides are in bytes. Pixel j reads the `height` x `width` taps of x from j `step` on,
rows `row` and columns `column` apart; the weights of a tap are `tap` after those of the one before
it in a row, and those of a row `taps` after the row before. Only the first `lanes` channels are
read and written.
"""

from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .emitter import Emitter

# Pixels whose sums stay in registers together: fewer would wait for each other's multiply-adds, and
# load a weight more often.
BLOCKS = (4, 1)
# Side of the window whose weights, or their gradient, stay in registers while the loop runs over
# pixels.
HELD = 3


class _Row(Emitter):
    """Emits loops over the pixels of a row, with whole vectors or with the first lanes of them."""

    def __init__(self, builder: Any, dtype: Any, shape: Any, weight: Any, lanes: Any) -> None:
        super().__init__(builder, dtype)
        self.row, self.column, self.height, self.width = shape
        self.tap_row, self.tap = weight
        self.count = lanes
        self.mask: Any = None

    def emit(self, body: Callable[[], None]) -> None:
        """Emit the body for whole vectors and for the first lanes of them."""
        whole = self.builder.icmp_signed("==", self.count, self.integer(self.lanes))
        with self.builder.if_else(whole) as (all_lanes, some_lanes):
            with all_lanes:
                body()
            with some_lanes:
                self.mask = self.first_lanes(self.count)
                body()

    def read(self, pointer: Any) -> Any:
        return self.load(pointer) if self.mask is None else self.masked_load(pointer, self.mask)

    def write(self, value: Any, pointer: Any) -> None:
        if self.mask is None:
            self.store(value, pointer)
        else:
            self.store_first([value], [pointer], self.count)

    def by_size(self, held: Callable[[], None], any_size: Callable[[], None]) -> None:
        """Emit one body for windows of HELD x HELD, and one for all others."""
        same = (
            self.builder.icmp_signed("==", size, self.integer(HELD))
            for size in (self.height, self.width)
        )
        with self.builder.if_else(self.builder.and_(*same)) as (yes, no):
            with yes:
                held()
            with no:
                any_size()

    def at(self, pointer: Any, index: Any, stride: Any) -> Any:
        return self.offset(pointer, self.builder.mul(index, stride))

    def held_taps(self, pointer: Any, row: Any, column: Any) -> list[Any]:
        """Return the pointers of a window of HELD x HELD."""
        rows = [self.at(pointer, self.integer(i), row) for i in range(HELD)]
        return [self.at(start, self.integer(j), column) for start in rows for j in range(HELD)]

    def taps(
        self, carried: list[Any], body: Callable[[Any, Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """Emit `carried = body(offset of the pixel, offset of the weight, carried)` for each tap,
        in row order.
        """
        builder = self.builder

        def of_row(i: Any, now: list[Any]) -> list[Any]:
            start, first = builder.mul(i, self.row), builder.mul(i, self.tap_row)

            def of_tap(j: Any, inner: list[Any]) -> list[Any]:
                offset, weight = builder.mul(j, self.column), builder.mul(j, self.tap)
                return body(builder.add(start, offset), builder.add(first, weight), inner)

            return self.loop(self.width, now, of_tap)

        return self.loop(self.height, carried, of_row)


@intrinsic
def row_of_taps(
    typingctx: Any,
    like: Any,
    y: Any,
    y_step: Any,
    x: Any,
    step: Any,
    w: Any,
    taps: Any,
    tap: Any,
    n: Any,
    row: Any,
    column: Any,
    height: Any,
    width: Any,
    lanes: Any,
    bias: Any,
    rectified: Any,
) -> Any:
    """Write the sums over taps of x w, plus the bias (an address, 0 for none), of n pixels to y;
    max(y, 0) if `rectified` is 1.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, y, y_step, x, step, w, taps, tap, n, *shape, lanes, bias, rectified = arguments
        emitter = _Row(builder, like.dtype, shape, (taps, tap), lanes)
        y, x, w = (emitter.pointer(address) for address in (y, x, w))

        def start() -> Any:
            some = builder.zext(builder.icmp_signed("!=", bias, emitter.integer(0)), emitter.int64)
            return emitter.changed_if(
                some, [emitter.zero], lambda old: [emitter.read(emitter.pointer(bias))]
            )[0]

        def finish(places: list[Any], totals: list[Any]) -> None:
            totals = emitter.changed_if(
                rectified, totals, lambda old: [emitter.rectified(total) for total in old]
            )
            for place, total in zip(places, totals, strict=True):
                emitter.write(total, emitter.at(y, place, y_step))

        def held() -> None:
            first = start()
            weights = [emitter.read(pointer) for pointer in emitter.held_taps(w, taps, tap)]

            def pixel(j: Any, carried: list[Any]) -> list[Any]:
                total = first
                pointers = emitter.held_taps(emitter.at(x, j, step), emitter.row, emitter.column)
                for pointer, weight in zip(pointers, weights, strict=True):
                    total = emitter.multiply_add(emitter.read(pointer), weight, total)
                finish([j], [total])
                return carried

            emitter.loop(n, [], pixel)

        def sliding() -> None:
            # Each column of x is loaded once: it is the last of one pixel, the middle of the next,
            # the first of the one after. The loads also run ahead of the stores: with rows of x and
            # y a multiple of 4096 bytes apart they would wait for them.
            first = start()
            pointers = emitter.held_taps(w, taps, tap)
            left, middle, right = (
                [emitter.read(pointers[i]) for i in range(j, HELD * HELD, HELD)]
                for j in range(HELD)
            )

            def column_of(number: Any) -> list[Any]:
                top = emitter.at(x, number, step)
                return [
                    emitter.read(emitter.at(top, emitter.integer(i), emitter.row))
                    for i in range(HELD)
                ]

            def added(total: Any, values: list[Any], weights: list[Any]) -> Any:
                for value, weight in zip(values, weights, strict=True):
                    total = emitter.multiply_add(value, weight, total)
                return total

            def pixel(j: Any, carried: list[Any]) -> list[Any]:
                values = column_of(builder.add(j, emitter.integer(2)))
                finish([j], [added(carried[0], values, right)])
                return [added(carried[1], values, middle), added(first, values, left)]

            second = column_of(emitter.integer(1))
            begun = added(added(first, column_of(emitter.integer(0)), left), second, middle)
            emitter.loop(n, [begun, added(first, second, left)], pixel)

        def three_by_three() -> None:
            with builder.if_else(builder.icmp_signed("==", step, emitter.column)) as (yes, no):
                with yes:
                    sliding()
                with no:
                    held()

        def block(number: Any, done: Any, size: int, first: Any) -> None:
            begin = builder.add(done, builder.mul(number, emitter.integer(size)))
            places = [builder.add(begin, emitter.integer(p)) for p in range(size)]
            pixels = [emitter.at(x, place, step) for place in places]

            def add(offset: Any, weight: Any, totals: list[Any]) -> list[Any]:
                factor = emitter.read(emitter.offset(w, weight))
                return [
                    emitter.multiply_add(emitter.read(emitter.offset(pixel, offset)), factor, total)
                    for pixel, total in zip(pixels, totals, strict=True)
                ]

            finish(places, emitter.taps([first] * size, add))

        def any_size() -> None:
            first, done = start(), emitter.integer(0)
            for size in BLOCKS:
                blocks = builder.sdiv(builder.sub(n, done), emitter.integer(size))

                def of_size(
                    number: Any, carried: list[Any], size: int = size, done: Any = done
                ) -> list[Any]:
                    block(number, done, size, first)
                    return carried

                emitter.loop(blocks, [], of_size)
                done = builder.add(done, builder.mul(blocks, emitter.integer(size)))

        emitter.emit(lambda: emitter.by_size(three_by_three, any_size))
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 15)), generate


@intrinsic
def gradient_of_taps(
    typingctx: Any,
    like: Any,
    dw: Any,
    taps: Any,
    tap: Any,
    dy: Any,
    y_step: Any,
    x: Any,
    step: Any,
    n: Any,
    row: Any,
    column: Any,
    height: Any,
    width: Any,
    lanes: Any,
) -> Any:
    """Add the sums over n pixels of x dy to dw, for each tap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, dw, taps, tap, dy, y_step, x, step, n, *shape, lanes = arguments
        emitter = _Row(builder, like.dtype, shape, (taps, tap), lanes)
        dw, dy, x = (emitter.pointer(address) for address in (dw, dy, x))

        def held() -> None:
            targets = emitter.held_taps(dw, taps, tap)

            def pixel(j: Any, totals: list[Any]) -> list[Any]:
                given = emitter.read(emitter.at(dy, j, y_step))
                pointers = emitter.held_taps(emitter.at(x, j, step), emitter.row, emitter.column)
                return [
                    emitter.multiply_add(emitter.read(pointer), given, total)
                    for pointer, total in zip(pointers, totals, strict=True)
                ]

            for total, target in zip(
                emitter.loop(n, [emitter.read(t) for t in targets], pixel), targets, strict=True
            ):
                emitter.write(total, target)

        def any_size() -> None:
            def of_tap(offset: Any, weight: Any, carried: list[Any]) -> list[Any]:
                target, here = emitter.offset(dw, weight), emitter.offset(x, offset)

                def pixel(j: Any, now: list[Any]) -> list[Any]:
                    value = emitter.read(emitter.at(here, j, step))
                    return [
                        emitter.multiply_add(value, emitter.read(emitter.at(dy, j, y_step)), now[0])
                    ]

                emitter.write(emitter.loop(n, [emitter.read(target)], pixel)[0], target)
                return carried

            emitter.taps([], of_tap)

        emitter.emit(lambda: emitter.by_size(held, any_size))
        return context.get_dummy_value()

    return types.void(like, *([types.intp] * 13)), generate
