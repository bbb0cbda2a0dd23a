"""The microkernel of Winograd's transforms: out = M in Mᵀ for a small square grid of vectors and a
constant matrix M.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .emitter import VECTOR_BYTES, Emitter
from .simd_conv import named_intrinsic

Matrix = tuple[tuple[Fraction, ...], ...]


def _product(factors: list[list[Fraction]]) -> list[Fraction]:
    """Return the coefficients of a product of polynomials, constants first."""
    result = [Fraction(1)]
    for factor in factors:
        sums = [Fraction(0)] * (len(result) + len(factor) - 1)
        for i, x in enumerate(result):
            for j, y in enumerate(factor):
                sums[i + j] += x * y
        result = sums
    return result


def _transforms(m: int, points: tuple[str, ...]) -> dict[str, Matrix]:
    """Return the matrices of F(m, 3), that interpolates at these points and at infinity.

    With A, G and B of "output", "filter" and "input", A [(G g Gᵀ) * (B d Bᵀ)] Aᵀ is the correlation
    of a tile d with a filter g: Lavin and Gray 2016, equation 8. The algorithm is that of Toom and
    Cook: Barabasz, Anderson, Soodhalter and Gregg, "Error analysis and improving the accuracy of
    Winograd convolution for deep neural networks", ACM TOMS 46(4), 2020, section 3.
    """
    p = [Fraction(point) for point in points]
    roots = [[-x, Fraction(1)] for x in p]
    zero, one = Fraction(0), Fraction(1)
    scale = [math.prod(x - y for y in p if y != x) for x in p]
    output = [[*(x**i for x in p), one if i == m - 1 else zero] for i in range(m)]
    filters = [[x**k / of for k in range(3)] for x, of in zip(p, scale, strict=True)]
    inputs = [[*_product(roots[:i] + roots[i + 1 :]), zero] for i in range(len(p))]
    matrices = {
        "output": output,
        "filter": [*filters, [zero, zero, one]],
        "input": [*inputs, _product(roots)],
    }
    result = {
        f"{name} {m}": tuple(tuple(row) for row in matrix) for name, matrix in matrices.items()
    }
    for name in ("output", "filter"):
        result[f"{name} gradient {m}"] = tuple(zip(*matrices[name], strict=True))
    return result


# Of all pairs of points a and b in eighths, 0, -a, a, -b and b with these give F(4 x 4) the
# smallest errors of outputs and of weight gradients: 5 and 3 times smaller than with 1 and 2.
MATRICES = {
    **_transforms(2, ("0", "1", "-1")),
    **_transforms(4, ("0", "3/4", "-3/4", "3/2", "-3/2")),
}


def _combination(emit: Emitter, row: tuple[Fraction, ...], values: list[Any]) -> Any:
    """Emit sum_j row[j] values[j], additions first."""
    builder = emit.builder
    terms = sorted(
        ((c, x) for c, x in zip(row, values, strict=True) if c),
        key=lambda term: (abs(term[0]) != 1, term[0] < 0),
    )
    total = None
    for c, x in terms:
        if total is None:
            total = (
                x if c == 1 else builder.fneg(x) if c == -1 else builder.fmul(emit.constant(c), x)
            )
        elif abs(c) == 1:
            total = builder.fadd(total, x) if c == 1 else builder.fsub(total, x)
        else:
            total = emit.multiply_add(emit.constant(c), x, total)
    return total


def _mirrored(vectors: Sequence[tuple[Fraction, ...]]) -> dict[int, int]:
    """Return the numbers of vectors that differ in signs only, the first's and the later's."""
    first: dict[tuple[Fraction, ...], int] = {}
    pairs = {}
    for i, vector in enumerate(vectors):
        earlier = first.setdefault(tuple(map(abs, vector)), i)
        if earlier != i:
            pairs[earlier] = i
    return pairs


def _halves(
    u: tuple[Fraction, ...], v: tuple[Fraction, ...]
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """Return a = (u + v) / 2 and b = (u - v) / 2, so that u = a + b and v = a - b: half of their
    numbers are 0 if u mirrors v.
    """
    return tuple((x + y) / 2 for x, y in zip(u, v, strict=True)), tuple(
        (x - y) / 2 for x, y in zip(u, v, strict=True)
    )


class _Combinations:
    """Emits rows of the product of a constant matrix with values, by few operations.

    Of two columns that differ in signs only, the sum and the difference of their values are
    combined instead; of two such rows, u = a + b and v = a - b, each of a and b is computed once.
    """

    def __init__(self, matrix: Matrix) -> None:
        columns = list(zip(*matrix, strict=True))
        self.column_pairs = _mirrored(columns)
        for i, j in self.column_pairs.items():
            columns[i], columns[j] = _halves(columns[i], columns[j])
        self.matrix: Matrix = tuple(zip(*columns, strict=True))
        self.row_pairs = _mirrored(self.matrix)

    def groups(self) -> list[list[int]]:
        """Return the rows, together those that share what is computed."""
        paired = [j for pair in self.column_pairs.items() for j in pair]
        first_of = {later: first for first, later in self.row_pairs.items()}
        groups: dict[Any, list[int]] = {}
        for i, row in enumerate(self.matrix):
            key = tuple(bool(row[j]) for j in paired) if paired else first_of.get(i, i)
            groups.setdefault(key, []).append(i)
        return list(groups.values())

    def reads(self, rows: Sequence[int]) -> list[bool]:
        """Return which values these rows read."""
        result = self._combines(rows)
        for i, j in self.column_pairs.items():
            result[i] = result[j] = result[i] or result[j]
        return result

    def emit(self, emit: Emitter, rows: Sequence[int], values: list[Any]) -> list[Any]:
        """Return these rows of the product; values that they do not read may be None."""
        values = self._with_sums(emit, values, self._combines(rows))
        results: dict[int, Any] = {}
        for i in rows:
            mirror = self.row_pairs.get(i)
            if mirror in rows:
                a, b = (
                    _combination(emit, half, values)
                    for half in _halves(self.matrix[i], self.matrix[mirror])
                )
                results[i], results[mirror] = emit.builder.fadd(a, b), emit.builder.fsub(a, b)
            elif i not in results:
                results[i] = _combination(emit, self.matrix[i], values)
        return [results[i] for i in rows]

    def _combines(self, rows: Sequence[int]) -> list[bool]:
        return [any(self.matrix[i][j] for i in rows) for j in range(len(self.matrix[0]))]

    def _with_sums(self, emit: Emitter, values: list[Any], used: list[bool]) -> list[Any]:
        """Return the values, and the sums and differences in place of those of paired columns,
        where used.
        """
        result = list(values)
        for i, j in self.column_pairs.items():
            if used[i]:
                result[i] = emit.builder.fadd(values[i], values[j])
            if used[j]:
                result[j] = emit.builder.fsub(values[i], values[j])
        return result


def grid_transform(name: str) -> Any:
    """Return what writes out[i, j] = sum_ab M[i, a] M[j, b] source[a, b] for vectors at the given
    distances, M being `MATRICES[name]`.

    Of an output, the vector at `bias` is added, and then comes max(out, 0) if `rectify`; of a
    filter's gradient, what out held is added if `accumulate`. Addresses and distances are in bytes.
    """
    matrix = MATRICES[name]
    combinations = _Combinations(matrix)
    columns = range(len(matrix[0]))
    kind = name.rstrip(" 24")

    def transform(
        typingctx: Any,
        like: Any,
        out: Any,
        source: Any,
        bias: Any,
        out_row: Any,
        out_column: Any,
        source_row: Any,
        source_column: Any,
        rectify: Any,
        accumulate: Any,
    ) -> Any:
        signature = types.void(like, *([types.intp] * 9))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Emitter(builder, like.dtype)
            out, source, bias, out_row, out_column, source_row, source_column = arguments[1:8]
            rectify, accumulate = arguments[8:]
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
            for group in combinations.groups():
                reads = combinations.reads(group)
                half = []
                for b in columns:
                    column = [
                        emit.load(emit.offset(rows_in[a], across[b])) if reads[a] else None
                        for a in columns
                    ]
                    half.append(combinations.emit(emit, group, column))
                for position, i in enumerate(group):
                    pointer = rows_out[i]
                    for value in combinations.emit(
                        emit, range(len(matrix)), [values[position] for values in half]
                    ):
                        if kind == "output":
                            value = builder.fadd(value, add)
                            value = builder.select(
                                builder.fcmp_ordered("<=", value, lowest), lowest, value
                            )
                        elif kind == "filter gradient":
                            held = pointer
                            [value] = emit.changed_if(
                                accumulate,
                                [value],
                                lambda old, p=held: [builder.fadd(old[0], emit.load(p))],
                            )
                        emit.store(value, pointer)
                        pointer = emit.offset(pointer, out_column)
            return context.get_dummy_value()

        return signature, generate

    return named_intrinsic(transform, f"grid_transform_{name}")


@intrinsic
def copy_between_zeros(
    typingctx: Any, like: Any, out: Any, source: Any, before: Any, count: Any, after: Any
) -> Any:
    """Write zeros, a copy of the source, and zeros, one after the other: so many vectors of
    each.
    """
    signature = types.void(like, *([types.intp] * 5))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder, like.dtype)
        _, out, source, before, count, after = arguments

        def zero(_: Any, carried: list[Any]) -> list[Any]:
            emit.store(emit.zero, carried[0])
            return [emit.offset(carried[0], VECTOR_BYTES)]

        def copy(_: Any, carried: list[Any]) -> list[Any]:
            emit.store(emit.load(carried[1]), carried[0])
            return [emit.offset(pointer, VECTOR_BYTES) for pointer in carried]

        to = emit.loop(before, [emit.pointer(out)], zero)[0]
        to = emit.loop(count, [to, emit.pointer(source)], copy)[0]
        emit.loop(after, [to], zero)
        return context.get_dummy_value()

    return signature, generate
