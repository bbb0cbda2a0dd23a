"""The microkernel of Winograd's transforms: out = M in Mᵀ for a small square grid of vectors and a constant matrix M."""

import math
from fractions import Fraction
from typing import Any

from numba.core import types
from numba.extending import intrinsic

from .simd import Emitter

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

    With A, G and B of "output", "filter" and "input", A [(G g Gᵀ) * (B d Bᵀ)] Aᵀ is the correlation of a tile d with a filter g:
    Lavin and Gray 2016, equation 8. The algorithm is that of Toom and Cook: Barabasz, Anderson, Soodhalter and Gregg, "Error
    analysis and improving the accuracy of Winograd convolution for deep neural networks", ACM TOMS 46(4), 2020, section 3.
    """
    p = [Fraction(point) for point in points]
    roots = [[-x, Fraction(1)] for x in p]
    zero, one = Fraction(0), Fraction(1)
    scale = [math.prod(x - y for y in p if y != x) for x in p]
    output = [[*(x**i for x in p), one if i == m - 1 else zero] for i in range(m)]
    filters = [[x**k / of for k in range(3)] for x, of in zip(p, scale, strict=True)]
    inputs = [[*_product(roots[:i] + roots[i + 1 :]), zero] for i in range(len(p))]
    matrices = {"output": output, "filter": [*filters, [zero, zero, one]], "input": [*inputs, _product(roots)]}
    result = {f"{name} {m}": tuple(tuple(row) for row in matrix) for name, matrix in matrices.items()}
    for name in ("output", "filter"):
        result[f"{name} gradient {m}"] = tuple(zip(*matrices[name], strict=True))
    return result


# Of all pairs of points a and b in eighths, 0, -a, a, -b and b with these give F(4 x 4) the smallest errors of outputs and of
# weight gradients: 5 and 3 times smaller than with 1 and 2.
MATRICES = {**_transforms(2, ("0", "1", "-1")), **_transforms(4, ("0", "3/4", "-3/4", "3/2", "-3/2"))}


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
