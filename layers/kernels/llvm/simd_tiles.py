"""Microkernels of tiles: 16 rows of 64 bytes each, in eight registers, as Intel's AMX has them.

A tile of a holds 16 rows of 32 bfloat16 numbers, one of b 16 pairs of rows of 16 columns, the two
numbers of a pair beside each other; their product is a tile of 16 x 16 float32 sums.

What works on registers is written for a machine: `Hardware` emits the instructions of AMX (Intel 64
and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18), `Software` does by plain
vectors what these say, on registers in memory. Neither does anything to tiles before they are
configured, or after they are released.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from layers.kernels.machine import VECTOR_BYTES

from .emitter import Emitter
from .formulas import fused
from .simd import finish_tile
from .simd_bf16 import rounded_words

TILE = 1024
"""Bytes of a tile."""
ROWS, INNER = 16, 32
"""Rows of a tile, and the inner indices that one of a or b holds."""
SIDE = 2 * ROWS
"""A block of sums has so many rows and columns: four tiles, beside two of a and two of b."""
BLOCK_VECTORS = 4 * SIDE // VECTOR_BYTES
"""Vectors in a row of such a block."""
_REGISTERS = 8
_ROW_BYTES = TILE // ROWS

_I8, _I32 = ir.IntType(8), ir.IntType(32)
_PALETTE, _BYTES_AT, _ROWS_AT, _CONFIGURATION = 1, 16, 48, 64


def _configuration() -> bytes:
    """Return what LDTILECFG reads: the palette, bytes of a row (16 bits each) and rows of tiles."""
    whole = bytearray(_CONFIGURATION)
    whole[0] = _PALETTE
    for tile in range(_REGISTERS):
        whole[_BYTES_AT + 2 * tile] = _ROW_BYTES
        whole[_ROWS_AT + tile] = ROWS
    return bytes(whole)


class _Lines(Emitter):
    """Emits operations on rows of tiles, whatever the width of the processor's vectors."""

    def __init__(self, builder: Any) -> None:
        super().__init__(builder, types.float32)
        self.lanes = ROWS
        self.vector = ir.VectorType(self.element, ROWS)
        self.words = ir.VectorType(_I32, ROWS)
        self.zero = ir.Constant(self.vector, None)

    def load_words(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=4, typ=self.words)

    def store_words(self, words: Any, pointer: Any) -> None:
        self.builder.store(words, pointer, align=4)

    def filled(self, number: int) -> Any:
        return ir.Constant(self.words, [number] * ROWS)

    def halves(self, words: Any) -> tuple[Any, Any]:
        """Return the float32 numbers of the first and of the second of each pair."""
        first = self.builder.shl(words, self.filled(16))
        second = self.builder.and_(words, self.filled(0xFFFF0000))
        return self.builder.bitcast(first, self.vector), self.builder.bitcast(second, self.vector)


class Hardware:
    """The instructions of AMX.

    Parameters
    ----------
    lines
        What emits.
    state
        Not used: where `Software` has its registers.
    """

    STATE_BYTES = 0

    def __init__(self, lines: _Lines, state: Any) -> None:
        self._lines = lines

    def _emit(self, name: str, *arguments: Any) -> None:
        operands = (ir.Constant(_I8, x) if isinstance(x, int) else x for x in arguments)
        self._lines.call(f"llvm.x86.{name}", ir.VoidType(), *operands)

    def configure(self) -> None:
        """Give all tiles their whole size."""
        content = cgutils.make_bytearray(_configuration())
        module = self._lines.builder.module
        place = cgutils.global_constant(module, "tile_configuration", content)
        self._emit("ldtilecfg", place)

    def release(self) -> None:
        """Free the registers: whoever switches threads need not keep them."""
        self._emit("tilerelease")

    def zero(self, tile: int) -> None:
        """Clear a tile."""
        self._emit("tilezero", tile)

    def load(self, tile: int, pointer: Any, stride: Any) -> None:
        """Read the rows of a tile, so many bytes apart."""
        self._emit("tileloadd64", tile, pointer, stride)

    def store(self, tile: int, pointer: Any, stride: Any) -> None:
        """Write the rows of a tile, so many bytes apart."""
        self._emit("tilestored64", tile, pointer, stride)

    def multiply(self, sums: int, a: int, b: int) -> None:
        """Add the product of two tiles to a third."""
        self._emit("tdpbf16ps", sums, a, b)


class Software:
    """The same by plain vectors, for tests: see `Hardware`. Its registers, and the configuration
    after them, lie at `state`.
    """

    STATE_BYTES = _REGISTERS * TILE + _CONFIGURATION

    def __init__(self, lines: _Lines, state: Any) -> None:
        self._lines = lines
        self._state = lines.pointer(state)

    def _byte(self, at: int) -> Any:
        """Return a byte of the configuration: a size, all of which are less than 256."""
        place = self._lines.offset(self._state, _REGISTERS * TILE + at)
        return self._lines.builder.zext(self._lines.builder.load(place, typ=_I8), self._lines.int64)

    def _rows(self, *tiles: int) -> Any:
        """Return the rows of a tile, 0 unless all of these are configured."""
        lines, builder = self._lines, self._lines.builder
        rows = self._byte(_ROWS_AT + tiles[0])
        for tile in tiles:
            width = self._byte(_BYTES_AT + 2 * tile)
            whole = builder.icmp_signed("==", width, lines.integer(_ROW_BYTES))
            rows = builder.select(whole, rows, lines.integer(0))
        return rows

    def _register(self, tile: int) -> Any:
        return self._lines.offset(self._state, tile * TILE)

    def configure(self) -> None:
        """Give all tiles their whole size, and nothing in them."""
        self._set(_configuration())

    def release(self) -> None:
        """Leave no tile any size, and nothing in it."""
        self._set(bytes(_CONFIGURATION))

    def _set(self, configuration: bytes) -> None:
        lines = self._lines
        for at, byte in enumerate(configuration):
            place = lines.offset(self._state, _REGISTERS * TILE + at)
            lines.builder.store(ir.Constant(_I8, byte), place)
        for tile in range(_REGISTERS):
            self._clear(tile, lines.integer(ROWS))

    def _clear(self, tile: int, rows: Any) -> None:
        lines = self._lines

        def row(_: Any, at: list[Any]) -> list[Any]:
            lines.store(lines.zero, at[0])
            return [lines.offset(at[0], _ROW_BYTES)]

        lines.loop(rows, [self._register(tile)], row)

    def zero(self, tile: int) -> None:
        """Clear a tile."""
        self._clear(tile, self._rows(tile))

    def load(self, tile: int, pointer: Any, stride: Any) -> None:
        """Read the rows of a tile, so many bytes apart."""
        step = self._lines.integer(_ROW_BYTES)
        self._copy(tile, self._register(tile), step, pointer, stride)

    def store(self, tile: int, pointer: Any, stride: Any) -> None:
        """Write the rows of a tile, so many bytes apart."""
        step = self._lines.integer(_ROW_BYTES)
        self._copy(tile, pointer, stride, self._register(tile), step)

    def _copy(self, tile: int, to: Any, to_step: Any, of: Any, of_step: Any) -> None:
        lines = self._lines

        def row(_: Any, at: list[Any]) -> list[Any]:
            lines.store_words(lines.load_words(at[1]), at[0])
            return [lines.offset(at[0], to_step), lines.offset(at[1], of_step)]

        lines.loop(self._rows(tile), [to, of], row)

    def multiply(self, sums: int, a: int, b: int) -> None:
        """Add the product of two tiles to a third: to each sum that of two chains of fused
        multiply-adds, from +0, over the first and over the second numbers of the pairs.
        """
        lines, builder = self._lines, self._lines.builder

        def row(_: Any, at: list[Any]) -> list[Any]:
            def pair(_: Any, carried: list[Any]) -> list[Any]:
                of_a, of_b, first, second = carried
                word = lines.splat(builder.load(of_a, align=4, typ=_I32))
                left, right = lines.halves(word), lines.halves(lines.load_words(of_b))
                first = fused(builder, left[0], right[0], first)
                second = fused(builder, left[1], right[1], second)
                return [lines.offset(of_a, 4), lines.offset(of_b, _ROW_BYTES), first, second]

            start = [at[1], self._register(b), lines.zero, lines.zero]
            *_, first, second = lines.loop(self._rows(b), start, pair)
            total = builder.fadd(lines.load(at[0]), builder.fadd(first, second))
            lines.store(total, at[0])
            return [lines.offset(pointer, _ROW_BYTES) for pointer in at]

        lines.loop(self._rows(sums, a, b), [self._register(sums), self._register(a)], row)


Machine = type[Hardware] | type[Software]


class TileKernels(NamedTuple):
    """Microkernels of a machine, whose state lies at an address.

    Attributes
    ----------
    state_bytes
        What the state takes.
    configure, release
        What comes before and after all others.
    multiply
        What multiplies panels of tiles.
    """

    state_bytes: int
    configure: Any
    release: Any
    multiply: Any


def tile_kernels(machine: Machine) -> TileKernels:
    """Return the microkernels of a machine."""

    def named(function: Callable[..., Any]) -> Any:
        # The name by which kernels tell what they close over.
        function.__qualname__ = f"{function.__name__}_by_{machine.__name__}"
        return intrinsic(prefer_literal=True)(function)

    def change(of: Callable[[Any], None]) -> Callable[..., Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            of(machine(_Lines(builder), arguments[0]))
            return context.get_dummy_value()

        return generate

    def configure(typingctx: Any, state: Any) -> Any:
        return types.void(types.intp), change(lambda registers: registers.configure())

    def release(typingctx: Any, state: Any) -> Any:
        return types.void(types.intp), change(lambda registers: registers.release())

    def multiply(
        typingctx: Any,
        state: Any,
        sums: Any,
        begun: Any,
        a: Any,
        a_panel: Any,
        b: Any,
        b_panel: Any,
        count: Any,
        rows: Any,
        columns: Any,
    ) -> Any:
        """Write (add, if `begun`) to a block of sums (32, 32), of which (rows, columns) tiles are
        there, the product of as many panels of a with as many of b, each of `count` tiles one after
        the other. Addresses, and distances of panels, are in bytes.
        """
        signature = types.void(*[types.intp] * 8, rows, columns)
        height, width = rows.literal_value, columns.literal_value

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            lines = _Lines(builder)
            state, sums, begun, a, a_panel, b, b_panel, count, *_ = arguments
            registers = machine(lines, state)
            step, row = lines.integer(4 * SIDE), lines.integer(_ROW_BYTES)
            corners = [
                lines.offset(lines.pointer(sums), 4 * (i * ROWS * SIDE + j * ROWS))
                for i in range(height)
                for j in range(width)
            ]
            with builder.if_else(builder.icmp_signed("!=", begun, lines.integer(0))) as branches:
                with branches[0]:
                    for tile, corner in enumerate(corners):
                        registers.load(tile, corner, step)
                with branches[1]:
                    for tile in range(len(corners)):
                        registers.zero(tile)
            of_a, of_b = lines.multiples(a_panel, height), lines.multiples(b_panel, width)
            left, right = len(corners), len(corners) + height

            def tiles(_: Any, at: list[Any]) -> list[Any]:
                for j in range(width):
                    registers.load(right + j, lines.offset(at[1], of_b[j]), row)
                for i in range(height):
                    registers.load(left + i, lines.offset(at[0], of_a[i]), row)
                    for j in range(width):
                        registers.multiply(i * width + j, left + i, right + j)
                return [lines.offset(pointer, TILE) for pointer in at]

            lines.loop(count, [lines.pointer(a), lines.pointer(b)], tiles)
            for tile, corner in enumerate(corners):
                registers.store(tile, corner, step)
            return context.get_dummy_value()

        return signature, generate

    return TileKernels(machine.STATE_BYTES, named(configure), named(release), named(multiply))


@intrinsic(prefer_literal=True)
def write_tile(
    typingctx: Any,
    like: Any,
    out: Any,
    source: Any,
    row: Any,
    down: Any,
    across: Any,
    paired: Any,
    turned: Any,
) -> Any:
    """Write a tile of float32 numbers, rounded to bfloat16, or of words of that, whose rows are
    `row` bytes apart: see `rounded_words`.

    Pairs are neighbours in one of 16 rows of 32, or, if `paired`, in one of 16 columns of 32 rows;
    the words that they make, (16, 16), are transposed if `turned`. Only so many rows and columns,
    `down` and `across`, are there: the others are zero.
    """
    signature = types.void(like, *[types.intp] * 5, paired, turned)
    size = like.dtype.bitwidth // 8
    by_column, turn = bool(paired.literal_value), bool(turned.literal_value)
    height, width = (INNER, ROWS) if by_column else (ROWS, INNER)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lines = _Lines(builder)
        _, out, source, row, down, across, *_ = arguments
        source_type = lines.vector if size == 4 else ir.VectorType(ir.IntType(16), ROWS)

        def emit(*, whole: bool) -> None:
            pointer, words = lines.pointer(source), []
            steps = (0, 0) if by_column else (0, ROWS)
            masks = [
                None if whole else lines.first_lanes(builder.sub(across, lines.integer(step)))
                for step in steps
            ]

            def read(number: int, at: Any, mask: Any) -> Any:
                if whole:
                    return builder.load(at, align=size, typ=source_type)
                there = builder.icmp_signed("<", lines.integer(number), down)
                mask = builder.and_(mask, lines.splat(there))
                name = f"llvm.masked.load.v{ROWS}{'f32' if size == 4 else 'i16'}.p0"
                nothing, align = ir.Constant(source_type, None), ir.Constant(_I32, size)
                return lines.call(name, source_type, at, align, mask, nothing)

            for number in range(ROWS):
                if by_column:
                    first = read(2 * number, pointer, masks[0])
                    pointer = lines.offset(pointer, row)
                    second = read(2 * number + 1, pointer, masks[1])
                    words.append(rounded_words(lines, first, second, beside=False))
                else:
                    first = read(number, pointer, masks[0])
                    second = read(number, lines.offset(pointer, size * ROWS), masks[1])
                    words.append(rounded_words(lines, first, second, beside=True))
                pointer = lines.offset(pointer, row)
            # Bits pass through vectors of float32 as they are.
            numbers = [builder.bitcast(each, lines.vector) for each in words]
            place = lines.pointer(out)
            for number, line in enumerate(lines.transpose(numbers) if turn else numbers):
                lines.store(line, lines.offset(place, number * _ROW_BYTES))

        is_whole = builder.and_(
            builder.icmp_signed(">=", down, lines.integer(height)),
            builder.icmp_signed(">=", across, lines.integer(width)),
        )
        with builder.if_else(is_whole) as (then, otherwise):
            with then:
                emit(whole=True)
            with otherwise:
                emit(whole=False)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def finish_sums(
    typingctx: Any, like: Any, c: Any, sums: Any, lanes: Any, bias: Any, accumulate: Any, width: Any
) -> Any:
    """Write so many vectors of sums to a row of c, plus what is there, if so said, plus the bias:
    see `simd.finish_tile`.
    """
    signature = types.void(like, *[types.intp] * 5, width)
    count = width.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, c, sums, lanes, bias, accumulate, _ = arguments
        start = emit.pointer(sums)
        values = [emit.load(emit.offset(start, v * VECTOR_BYTES)) for v in range(count)]
        row = emit.integer(0)
        finish_tile(emit, values, (1, count), c, row, lanes, bias, accumulate)
        return context.get_dummy_value()

    return signature, generate
