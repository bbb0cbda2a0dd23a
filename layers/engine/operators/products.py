"""Matrix products, and what they are the core of."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.memory import contiguous, empty
from layers.engine.sums import unbroadcast
from layers.errors import message, wording
from layers.kernels import gemm
from layers.types import Array

from .arithmetic import MULTIPLY
from .constants import alike, array_of
from .reductions import total
from .shaping import reshape, transpose

if TYPE_CHECKING:
    from layers.engine.call import Call


class MatMul(Layer):
    """Matrix product, y = a b, as `numpy.matmul`. Backward: da = dy bᵀ, db = aᵀ dy.

    Matrices are multiplied by the kernel of `Linear`, so that a row of the result does not depend
    on the others.
    """

    analytic = True

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        a, b = np.asarray(a), np.asarray(b)
        if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[0 if b.ndim == 1 else -2]:
            fix = "The last axis of the first must equal the next-to-last of the second."
            raise ValueError(
                message(self, "the inner sizes of a product must agree", (a.shape, b.shape), fix)
            )
        self._require_samples_apart(call, a, b)
        if a.ndim != b.ndim:
            call.moves_samples(max(a.ndim, b.ndim))
        call.save(a, b)
        added = ((-2,) if a.ndim == 1 else ()) + ((-1,) if b.ndim == 1 else ())
        return self._product(call, "y", *_matrices(a, b)).squeeze(axis=added)

    def flops(self, y: Any, *inputs: Any) -> int:
        return 2 * int(np.size(y)) * int(np.shape(inputs[0])[-1])

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b = call.saved
        rows, columns = _matrices(a, b)
        if b.ndim == 1:
            dy = dy[..., np.newaxis]
        if a.ndim == 1:
            dy = dy[..., np.newaxis, :]
        da = db = None
        if call.wants(0):
            da = self._product(call, "da", dy, np.swapaxes(columns, -1, -2))
            da = unbroadcast(da, rows.shape).reshape(a.shape)
        if call.wants(1):
            db = self._product(call, "db", np.swapaxes(rows, -1, -2), dy)
            db = unbroadcast(db, columns.shape).reshape(b.shape)
        return da, db

    def _require_samples_apart(self, call: ForwardCall, a: Array, b: Array) -> None:
        """Refuse products that add samples up, or pair each with every other one."""
        call.require_samples_apart(a.ndim - 1, 0)
        call.require_samples_apart(max(0, b.ndim - 2), 1)
        if a.ndim > 1 and b.ndim > 1 and a.shape[-2] == b.shape[-1]:
            call.require_samples_apart(b.ndim - 1, 1)

    def _product(self, call: ForwardCall, name: str, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype or a.dtype not in (np.float32, np.float64):
            return np.asarray(np.matmul(a, b))
        try:
            stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            fix = "Leading axes must agree from the last one backwards, or be 1."
            raise ValueError(
                message(self, "stacks of matrices must broadcast", (a.shape, b.shape), fix)
            ) from None
        y = call.output_buffer(name, (*stack, a.shape[-2], b.shape[-1]), a.dtype)
        if stack:
            a = np.broadcast_to(a, (*stack, *a.shape[-2:]))
            b = np.broadcast_to(b, (*stack, *b.shape[-2:]))
        for i in np.ndindex(stack):
            (left, flip_left), (right, flip_right) = _rows(a[i]), _rows(b[i])
            gemm.multiply(y[i], left, flip_left, right, flip_right, empty(y, 1), False)
        return y


def _matrices(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a vector on the left as a row and one on the right as a column."""
    return (a[np.newaxis] if a.ndim == 1 else a), (b[:, np.newaxis] if b.ndim == 1 else b)


def _rows(x: Array) -> tuple[Array, bool]:
    """Return a matrix that kernels take, and whether x is its transpose."""
    if not x.flags.c_contiguous and x.T.flags.carray:
        return x.T, True
    return contiguous(x), False


MATMUL = MatMul()


@wording("dot")
def dot(a: Any, b: Any) -> Any:
    """Return the product of vectors or matrices, or with a number, as `numpy.dot`; b has two axes
    at most.
    """
    if not np.ndim(array_of(a)) or not np.ndim(array_of(b)):
        return MULTIPLY(*alike("dot", a, b))
    if np.ndim(array_of(b)) > 2:
        must, fix = "b must have two axes at most", "Use a @ b for stacks of matrices, or einsum."
        raise ValueError(message("dot", must, np.shape(array_of(b)), fix))
    return MATMUL(*alike("dot", a, b))


@wording("einsum")
def einsum(subscripts: str, *operands: Any) -> Any:
    """Return the sum of products that Einstein's notation names, as `numpy.einsum`.

    It is one stacked matrix product: letters of both operands and the result number the matrices,
    and those that the result lacks are summed over.

    Parameters
    ----------
    subscripts
        Letters for the axes, such as "nij,njk->nik".
    operands
        One array or value, or two.

    Raises
    ------
    ValueError
        The letters do not fit the operands, one occurs twice in an operand, or there are three
        operands or "...".
    """
    given, _, result = subscripts.replace(" ", "").partition("->")
    letters = given.split(",")
    if "->" not in subscripts:
        result = "".join(sorted(c for c in set(given) - {","} if given.count(c) == 1))
    operands = alike("einsum", *operands)
    sizes = _sizes(subscripts, letters, result, [np.shape(array_of(x)) for x in operands])
    kept = [result + "".join(letters[:i] + letters[i + 1 :]) for i in range(len(letters))]
    parts = [
        (_summed(x, axes, needed), "".join(c for c in axes if c in needed))
        for x, axes, needed in zip(operands, letters, kept, strict=True)
    ]
    if len(parts) == 1:
        ((x, axes),) = parts
        return _arranged(x, axes, result)
    (a, of_a), (b, of_b) = parts
    shared = [c for c in of_a if c in of_b]
    stack = "".join(c for c in shared if c in result)
    inner = "".join(c for c in shared if c not in result)
    rows, columns = ("".join(c for c in axes if c not in shared) for axes in (of_a, of_b))

    def size(axes: str) -> int:
        return math.prod(sizes[c] for c in axes)

    a = reshape(_arranged(a, of_a, stack + rows + inner), (size(stack), size(rows), size(inner)))
    b = reshape(
        _arranged(b, of_b, stack + inner + columns), (size(stack), size(inner), size(columns))
    )
    y = reshape(MATMUL(a, b), [sizes[c] for c in stack + rows + columns])
    return _arranged(y, stack + rows + columns, result)


def _sizes(
    subscripts: str, letters: list[str], result: str, shapes: list[tuple[int, ...]]
) -> dict[str, int]:
    """Return the size of each letter, once all have been checked."""
    named = [
        pair
        for axes, shape in zip(letters, shapes, strict=False)
        for pair in zip(axes, shape, strict=False)
    ]
    sizes = dict(named)
    if not (
        1 <= len(letters) == len(shapes) <= 2
        and all(len(set(a)) == len(a) == len(s) for a, s in zip(letters, shapes, strict=True))
        and all(c.isalpha() and sizes[c] == size for c, size in named)
        and len(set(result)) == len(result)
        and set(result) <= set(sizes)
    ):
        must = "one or two operands must fit the letters, each once in an operand and of one size"
        fix = "Write all axes out; take a diagonal by indexing; multiply three in two steps."
        raise ValueError(message("einsum", must, f"{subscripts!r} of shapes {shapes}", fix))
    return sizes


def _summed(x: Any, axes: str, kept: str) -> Any:
    """Return x summed over the axes whose letters are not kept."""
    over = tuple(i for i, c in enumerate(axes) if c not in kept)
    return total(x, over) if over else x


def _arranged(x: Any, axes: str, wanted: str) -> Any:
    """Return x with its axes in another order."""
    return x if axes == wanted else transpose(x, [axes.index(c) for c in wanted])
