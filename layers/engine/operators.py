"""Arithmetic on values: the operators and functions that make ordinary Python differentiable.

Each is a layer without parameters; forward and backward are NumPy. The functions take arrays too:
arrays in, array out.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.errors import message
from layers.kernels import gemm
from layers.types import Array

from .forward_call import ForwardCall
from .layer import Layer, Recorded
from .memory import contiguous, empty
from .merge import Add, Multiply, broadcast_buffer, unbroadcast

if TYPE_CHECKING:
    from .call import Call
    from .value import Value


class Subtract(Layer):
    """Difference, y = a - b."""

    analytic = True

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        call.save(np.shape(a), np.shape(b))
        y = broadcast_buffer(self, call, "y", a, b)
        np.subtract(a, b, out=y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b = call.saved
        return unbroadcast(dy, a), unbroadcast(-dy, b)


class Divide(Layer):
    """Quotient, y = a / b. Backward: da = dy / b, db = -dy a / b²."""

    analytic = True

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        call.save(a, b)
        return np.asarray(np.true_divide(a, b))

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b = call.saved
        da = unbroadcast(np.asarray(dy / b), np.shape(a)) if call.wants(0) else None
        db = unbroadcast(np.asarray(-dy * a / (b * b)), np.shape(b)) if call.wants(1) else None
        return da, db


class Power(Layer):
    """Power, y = aᵇ. Backward: da = dy b aᵇ⁻¹, db = dy y ln a, which is 0 where a is 0 and b is not
    negative.
    """

    analytic = True

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        y = np.asarray(np.power(a, b))
        call.save(a, b, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b, y = call.saved
        da = db = None
        if call.wants(0):
            # Where b is 0 the power is constant, though a^-1 may be infinite.
            slope = np.where(
                np.equal(b, 0),
                0,
                np.multiply(b, np.power(a, np.where(np.equal(b, 0), 1, np.subtract(b, 1)))),
            )
            da = unbroadcast(np.asarray(dy * slope).astype(dy.dtype, copy=False), np.shape(a))
        if call.wants(1):
            at_zero = np.where(np.less(b, 0), -np.inf, 0)
            log = np.where(np.equal(a, 0), at_zero, np.log(np.where(np.equal(a, 0), 1, a)))
            db = unbroadcast(np.asarray(dy * y * log).astype(dy.dtype, copy=False), np.shape(b))
        return da, db


class MatMul(Layer):
    """Matrix product, y = a b, as `numpy.matmul`. Backward: da = dy bᵀ, db = aᵀ dy.

    Two matrices are multiplied by the kernel of `Linear`, so that a row of the result does not
    depend on the others.
    """

    analytic = True

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        a, b = np.asarray(a), np.asarray(b)
        if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[0 if b.ndim == 1 else -2]:
            fix = "The last axis of the first must equal the next-to-last of the second."
            raise ValueError(
                message(self, "the inner sizes of a product must agree", (a.shape, b.shape), fix)
            )
        call.save(a, b)
        added = ((-2,) if a.ndim == 1 else ()) + ((-1,) if b.ndim == 1 else ())
        return _product(call, "y", *_matrices(a, b)).squeeze(axis=added)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b = call.saved
        rows, columns = _matrices(a, b)
        if b.ndim == 1:
            dy = dy[..., np.newaxis]
        if a.ndim == 1:
            dy = dy[..., np.newaxis, :]
        da = db = None
        if call.wants(0):
            da = unbroadcast(
                _product(call, "da", dy, np.swapaxes(columns, -1, -2)), rows.shape
            ).reshape(a.shape)
        if call.wants(1):
            db = unbroadcast(
                _product(call, "db", np.swapaxes(rows, -1, -2), dy), columns.shape
            ).reshape(b.shape)
        return da, db


def _matrices(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a vector on the left as a row and one on the right as a column."""
    return (a[np.newaxis] if a.ndim == 1 else a), (b[:, np.newaxis] if b.ndim == 1 else b)


def _product(call: ForwardCall, name: str, a: Array, b: Array) -> Array:
    if not (a.ndim == b.ndim == 2 and a.dtype == b.dtype and a.dtype in (np.float32, np.float64)):
        return np.asarray(np.matmul(a, b))
    y = call.buffer(name, (len(a), b.shape[1]), a.dtype)
    (left, flip_left), (right, flip_right) = _rows(a), _rows(b)
    gemm.multiply(y, left, flip_left, right, flip_right, empty(y, 1), False)
    return y


def _rows(x: Array) -> tuple[Array, bool]:
    """Return a matrix that kernels take, and whether x is its transpose."""
    if not x.flags.c_contiguous and x.T.flags.carray:
        return x.T, True
    return contiguous(x), False


class Function(Layer):
    """An elementwise function of NumPy, with its derivative as a function of (x, y)."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        derivative: Callable[[Any, Any], Any],
        *,
        analytic: bool = True,
    ) -> None:
        self.function = function
        self.derivative = derivative
        self.analytic = analytic

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", "Function")

    def forward(self, call: ForwardCall, x: Array) -> Array:
        y = np.asarray(self.function(x))
        call.save(x, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, y = call.saved
        return (np.asarray(dy * self.derivative(x, y)),)


class Reduce(Layer):
    """Sum, mean or extreme over axes. Backward: dy is spread over what was reduced, for an extreme
    it goes to the first of equals, or the first NaN.
    """

    def __init__(self, kind: str, axis: Any, keepdims: bool) -> None:
        self.kind = kind
        self.axis = axis
        self.keepdims = keepdims
        self.analytic = kind in ("sum", "mean")

    def __repr__(self) -> str:
        return f"{self.kind}(axis={self.axis})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        y = np.asarray(getattr(np, self.kind)(x, axis=self.axis, keepdims=self.keepdims))
        call.save(x, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, y = call.saved
        axes = (
            tuple(range(x.ndim)) if self.axis is None else tuple(np.atleast_1d(self.axis) % x.ndim)
        )
        kept = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
        dy = dy.reshape(kept)
        if self.kind == "sum":
            return (np.broadcast_to(dy, x.shape),)
        if self.kind == "mean":
            return (np.broadcast_to(dy / dy.dtype.type(max(1, x.size // max(1, y.size))), x.shape),)
        order = [i for i in range(x.ndim) if i not in axes] + list(axes)
        others = tuple(size for i, size in enumerate(x.shape) if i not in axes)
        reduced = math.prod(x.shape[i] for i in axes)
        winners = (
            (np.equal(x, y.reshape(kept)) | np.isnan(x)).transpose(order).reshape(*others, reduced)
        )
        first = np.zeros_like(winners)
        np.put_along_axis(first, winners.argmax(axis=-1, keepdims=True), True, axis=-1)
        mask = first.reshape([x.shape[i] for i in order]).transpose(np.argsort(order))
        return (np.where(mask, dy, dy.dtype.type(0)),)


class Index(Layer):
    """Indexing, y = x[key]. Backward: dy is added at the places it came from."""

    analytic = True

    def __init__(self, key: Any) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"Index({self.key!r})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        call.save(x.shape)
        return np.asarray(x[self.key])

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        dx = call.buffer("dx", call.saved[0], dy.dtype)
        dx[...] = 0
        np.add.at(dx, self.key, dy)
        return (dx,)


class Transpose(Layer):
    """Transposition; the axes in reverse order unless said."""

    analytic = True

    def __init__(self, axes: tuple[int, ...] | None) -> None:
        self.axes = axes

    def forward(self, call: ForwardCall, x: Array) -> Array:
        return np.ascontiguousarray(np.transpose(x, self.axes))

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (
            np.ascontiguousarray(
                np.transpose(dy, None if self.axes is None else np.argsort(self.axes))
            ),
        )


class ReshapeOp(Layer):
    """The same elements in another shape."""

    analytic = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, call: ForwardCall, x: Array) -> Array:
        call.save(x.shape)
        return np.asarray(np.reshape(x, self.shape))

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (dy.reshape(call.saved[0]),)


class Where(Layer):
    """Elementwise choice, y = a where the condition holds, else b."""

    analytic = True

    def forward(self, call: ForwardCall, condition: Any, a: Any, b: Any) -> Array:
        call.save(condition, np.shape(a), np.shape(b))
        return np.asarray(np.where(condition, a, b))

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        condition, a, b = call.saved
        zero = dy.dtype.type(0)
        return (
            None,
            unbroadcast(np.where(condition, dy, zero), a),
            unbroadcast(np.where(condition, zero, dy), b),
        )


_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _POWER, _MATMUL, _WHERE = (
    Add(),
    Subtract(),
    Multiply(),
    Divide(),
    Power(),
    MatMul(),
    Where(),
)
_NEGATIVE = Function(np.negative, lambda x, y: -1)

exp = Function(np.exp, lambda x, y: y)
log = Function(np.log, lambda x, y: 1 / x)
sqrt = Function(np.sqrt, lambda x, y: 0.5 / y)
sin = Function(np.sin, lambda x, y: np.cos(x))
cos = Function(np.cos, lambda x, y: -np.sin(x))
tanh = Function(np.tanh, lambda x, y: 1 - y * y)
absolute = Function(np.abs, lambda x, y: np.sign(x), analytic=False)


def where(condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b; the condition is a constant of the graph."""
    return _WHERE(np.asarray(condition), a, b)


def maximum(a: Any, b: Any) -> Any:
    """Return the greater of a and b, element by element; among equals the gradient goes to a. NaN
    is greater than every number.
    """
    return where(_first_unless(np.less, a, b), a, b)


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of a and b, element by element; among equals the gradient goes to a. NaN
    is smaller than every number.
    """
    return where(_first_unless(np.greater, a, b), a, b)


def _first_unless(compare: Any, a: Any, b: Any) -> Array:
    """Return where a is chosen: where it is NaN, or the comparison with b says no; b is, where it
    alone is NaN.
    """
    a, b = _array(a), _array(b)
    return np.asarray(np.isnan(a) | ~(compare(a, b) | np.isnan(b)))


def _array(x: Any) -> Any:
    return x.array if isinstance(x, Arithmetic) else x


def _recorded(layer: Layer, *inputs: Any) -> "Value":
    result: Value = layer(*inputs)
    return result


class Arithmetic(Recorded):
    """The operators and methods of `Value`."""

    __slots__ = ()
    array: Array

    def __add__(self, other: Any) -> "Value":
        return _recorded(_ADD, self, other)

    def __radd__(self, other: Any) -> "Value":
        return _recorded(_ADD, other, self)

    def __sub__(self, other: Any) -> "Value":
        return _recorded(_SUBTRACT, self, other)

    def __rsub__(self, other: Any) -> "Value":
        return _recorded(_SUBTRACT, other, self)

    def __mul__(self, other: Any) -> "Value":
        return _recorded(_MULTIPLY, self, other)

    def __rmul__(self, other: Any) -> "Value":
        return _recorded(_MULTIPLY, other, self)

    def __truediv__(self, other: Any) -> "Value":
        return _recorded(_DIVIDE, self, other)

    def __rtruediv__(self, other: Any) -> "Value":
        return _recorded(_DIVIDE, other, self)

    def __pow__(self, other: Any) -> "Value":
        return _recorded(_POWER, self, other)

    def __rpow__(self, other: Any) -> "Value":
        return _recorded(_POWER, other, self)

    def __matmul__(self, other: Any) -> "Value":
        return _recorded(_MATMUL, self, other)

    def __rmatmul__(self, other: Any) -> "Value":
        return _recorded(_MATMUL, other, self)

    def __neg__(self) -> "Value":
        return _recorded(_NEGATIVE, self)

    def __abs__(self) -> "Value":
        return _recorded(absolute, self)

    def __getitem__(self, key: Any) -> "Value":
        return _recorded(Index(key), self)

    # Comparisons give arrays of booleans: they have no gradient.
    def __lt__(self, other: Any) -> Any:
        return self.array < _array(other)

    def __le__(self, other: Any) -> Any:
        return self.array <= _array(other)

    def __gt__(self, other: Any) -> Any:
        return self.array > _array(other)

    def __ge__(self, other: Any) -> Any:
        return self.array >= _array(other)

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the sum over `axis` (an axis, several, or None for all)."""
        return _recorded(Reduce("sum", axis, keepdims), self)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the mean over `axis` (an axis, several, or None for all)."""
        return _recorded(Reduce("mean", axis, keepdims), self)

    def max(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the greatest along `axis` (an axis, several, or None for all)."""
        return _recorded(Reduce("max", axis, keepdims), self)

    def min(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the smallest along `axis` (an axis, several, or None for all)."""
        return _recorded(Reduce("min", axis, keepdims), self)

    def reshape(self, *shape: Any) -> "Value":
        """Return the same elements in another shape, as `numpy.reshape`."""
        return _recorded(
            ReshapeOp(shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape), self
        )

    def transpose(self, *axes: int) -> "Value":
        """Return it with its axes in this order; in the reverse one if none are given."""
        return _recorded(Transpose(axes or None), self)

    @property
    def T(self) -> "Value":  # noqa: N802 - as in NumPy
        """It with its axes in reverse order."""
        return _recorded(Transpose(None), self)

    def exp(self) -> "Value":
        """Return the exponential."""
        return _recorded(exp, self)

    def log(self) -> "Value":
        """Return the natural logarithm."""
        return _recorded(log, self)

    def sqrt(self) -> "Value":
        """Return the square root."""
        return _recorded(sqrt, self)

    def sin(self) -> "Value":
        """Return the sine."""
        return _recorded(sin, self)

    def cos(self) -> "Value":
        """Return the cosine."""
        return _recorded(cos, self)

    def tanh(self) -> "Value":
        """Return the hyperbolic tangent."""
        return _recorded(tanh, self)

    def abs(self) -> "Value":
        """Return the absolute value."""
        return _recorded(absolute, self)
