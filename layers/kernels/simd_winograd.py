"""The microkernel of Winograd's transforms: out = M in Mᵀ for a small square grid of vectors and a constant matrix M."""

from fractions import Fraction
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .simd import Emitter

Matrix = tuple[tuple[Fraction, ...], ...]


def _matrix(*rows: str) -> Matrix:
    return tuple(tuple(Fraction(number) for number in row.split()) for row in rows)


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


# Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016, equations 9 to 11 and 13 to 15: with these,
# A^T [(G g G^T) * (B^T d B)] A is the correlation of a tile d with a 3 x 3 filter g. F2 has outputs of 2 x 2, F4 of 4 x 4.
_B2 = _matrix("1 0 -1 0", "0 1 1 0", "0 -1 1 0", "0 1 0 -1")
_G2 = _matrix("1 0 0", "1/2 1/2 1/2", "1/2 -1/2 1/2", "0 0 1")
_A2 = _matrix("1 1 1 0", "0 1 -1 -1")
_B4 = _matrix("4 0 -5 0 1 0", "0 -4 -4 1 1 0", "0 4 -4 -1 1 0", "0 -2 -1 2 1 0", "0 2 -1 -2 1 0", "0 4 0 -5 0 1")
_G4 = _matrix("1/4 0 0", "-1/6 -1/6 -1/6", "-1/6 1/6 -1/6", "1/24 1/12 1/6", "1/24 -1/12 1/6", "0 0 1")
_A4 = _matrix("1 1 1 1 1 0", "0 1 -1 2 -2 0", "0 1 1 4 4 0", "0 1 -1 8 -8 1")

MATRICES = {
    "input 2": _B2,
    "filter 2": _G2,
    "output 2": _A2,
    "output gradient 2": _transposed(_A2),
    "filter gradient 2": _transposed(_G2),
    "input 4": _B4,
    "filter 4": _G4,
    "output 4": _A4,
    "output gradient 4": _transposed(_A4),
    "filter gradient 4": _transposed(_G4),
}


def _combination(emit: Emitter, row: tuple[Fraction, ...], values: list[Any]) -> Any:
    """Emit sum_j row[j] values[j], additions first."""
    builder = emit.builder
    terms = sorted(((c, x) for c, x in zip(row, values, strict=True) if c), key=lambda term: (abs(term[0]) != 1, term[0] < 0))
    total = None
    for c, x in terms:
        if total is None:
            total = x if c == 1 else builder.fneg(x) if c == -1 else builder.fmul(emit.constant(c), x)
        elif abs(c) == 1:
            total = builder.fadd(total, x) if c == 1 else builder.fsub(total, x)
        else:
            total = emit.multiply_add(emit.constant(c), x, total)
    return total


def _groups(matrix: Matrix) -> list[list[int]]:
    """Return the rows of a matrix, together those that read the same columns."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for i, row in enumerate(matrix):
        groups.setdefault(tuple(bool(c) for c in row), []).append(i)
    return list(groups.values())


@intrinsic(prefer_literal=True)
def grid_transform(typingctx: Any, like: Any, out: Any, out_row: Any, out_column: Any, source: Any, source_row: Any,
                   source_column: Any, bias: Any, rectify: Any, accumulate: Any, name: Any) -> Any:  # fmt: skip
    """Write out[i, j] = sum_ab M[i, a] M[j, b] source[a, b] for vectors at the given distances, M being `MATRICES[name]`.

    Of an output, the vector at `bias` is added, and then comes max(out, 0) if `rectify`; of a filter's gradient, what out held
    is added if `accumulate`. Addresses and distances are in bytes.
    """
    integers = (out, out_row, out_column, source, source_row, source_column, bias, rectify, accumulate)
    signature = types.void(like, *([types.intp] * len(integers)), name)
    matrix = MATRICES[name.literal_value]
    columns = range(len(matrix[0]))
    kind = name.literal_value.rstrip(" 24")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, out, out_row, out_column, source, source_row, source_column, bias, rectify, accumulate, _ = arguments
        rows_in, rows_out = [emit.pointer(source)], [emit.pointer(out)]
        for _ in columns:
            rows_in.append(emit.offset(rows_in[-1], source_row))
        for _ in matrix:
            rows_out.append(emit.offset(rows_out[-1], out_row))
        across = [builder.mul(source_column, emit.integer(b)) for b in columns]
        if kind == "output":
            add = emit.load(emit.pointer(bias))
            rectifies = builder.icmp_signed("!=", rectify, emit.integer(0))
            lowest = builder.select(rectifies, emit.zero, emit.constant("-inf"))
        # Group by group: the sums over a whole grid would not fit the registers.
        for group in _groups(matrix):
            half = []
            for b in columns:
                column = [emit.load(emit.offset(rows_in[a], across[b])) if matrix[group[0]][a] else None for a in columns]
                half.append([_combination(emit, matrix[i], column) for i in group])
            for position, i in enumerate(group):
                pointer = rows_out[i]
                for row in matrix:
                    value = _combination(emit, row, [values[position] for values in half])
                    if kind == "output":
                        value = builder.fadd(value, add)
                        value = builder.select(builder.fcmp_ordered("<=", value, lowest), lowest, value)
                    elif kind == "filter gradient":
                        held = pointer
                        [value] = emit.changed_if(accumulate, [value], lambda old, p=held: [builder.fadd(old[0], emit.load(p))])
                    emit.store(value, pointer)
                    pointer = emit.offset(pointer, out_column)
        return context.get_dummy_value()

    return signature, generate
