"""Operators of two inputs, element by element. They broadcast as NumPy does."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.memory import flat
from layers.engine.merge import Add, Multiply, broadcast_buffer
from layers.engine.sums import unbroadcast, unbroadcast_buffer
from layers.errors import wording
from layers.kernels import elementary
from layers.types import Array

from .constants import alike, array_of

if TYPE_CHECKING:
    from layers.engine.call import Call


class Subtract(Layer):
    """Difference, y = a - b."""

    elementwise = True
    analytic = True
    replayable = True
    keeps_constants = False

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        call.save(np.shape(a), np.shape(b))
        y, (a, b) = broadcast_buffer(self, call, a, b)
        call.run(np.subtract, a, b, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b = call.saved
        da = unbroadcast_buffer(call, "da", dy, a) if call.wants(0) else None
        if not call.wants(1):
            return da, None
        db = call.pooled("db", dy.shape, dy.dtype)
        call.run(np.negative, dy, db)
        return da, unbroadcast_buffer(call, "db", db, b)


class Divide(Layer):
    """Quotient, y = a / b. Backward: da = dy / b, db = -dy a / b²."""

    elementwise = True
    analytic = True
    replayable = True

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        y, (a, b) = broadcast_buffer(self, call, a, b)
        call.save(a, b)
        if y.dtype.kind not in "fc":
            return np.asarray(np.true_divide(a, b))
        call.run(np.true_divide, a, b, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b = call.saved
        da = db = None
        if call.wants(0):
            da = call.pooled("da", dy.shape, dy.dtype)
            call.run(np.true_divide, dy, b, da)
            da = unbroadcast_buffer(call, "da", da, np.shape(a))
        if call.wants(1):
            db = call.pooled("db", dy.shape, dy.dtype)
            call.run(_gradient_of_divisor, db, dy, a, b)
            db = unbroadcast_buffer(call, "db", db, np.shape(b))
        return da, db


def _gradient_of_divisor(db: Array, dy: Array, a: Any, b: Any) -> None:
    """Write db = -dy a / b²."""
    np.negative(dy, db)
    np.multiply(db, a, db)
    np.true_divide(db, b * b, db)


class Power(Layer):
    """Power, y = aᵇ. Backward: da = dy b aᵇ⁻¹, db = dy y ln a (0 where a is 0 and b is not
    negative).
    """

    elementwise = True
    analytic = True
    replayable = True

    def forward(self, call: ForwardCall, a: Any, b: Any) -> Array:
        y, (a, b) = broadcast_buffer(self, call, a, b)
        call.run(_write_power, y, a, b)
        call.save(a, b, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        a, b, y = call.saved
        da = db = None
        if call.wants(0):
            da = call.pooled("da", dy.shape, dy.dtype)
            call.run(_gradient_of_base, da, dy, a, b)
            da = unbroadcast_buffer(call, "da", da, np.shape(a))
        if call.wants(1):
            db = call.pooled("db", dy.shape, dy.dtype)
            call.run(_gradient_of_exponent, db, dy, a, b, y)
            db = unbroadcast_buffer(call, "db", db, np.shape(b))
        return da, db


def _gradient_of_base(da: Array, dy: Array, a: Any, b: Any) -> None:
    """Write da = dy b aᵇ⁻¹."""
    exponent = np.asarray(b, dy.dtype)
    # Where b is 0 the power is constant, though a^-1 may be infinite.
    constant = exponent == 0
    slope = exponent * _power(a, np.where(constant, exponent, exponent - 1))
    np.multiply(dy, np.where(constant, 0 * exponent, slope), da)


def _gradient_of_exponent(db: Array, dy: Array, a: Any, b: Any, y: Array) -> None:
    """Write db = dy y ln a."""
    flat_at_0 = np.equal(a, 0) & (np.asarray(b, y.dtype).real >= 0)
    log = _log(np.asarray(np.where(flat_at_0, 1, a), y.dtype))
    np.multiply(dy * y, log, db)


def _power(a: Any, b: Any) -> Array:
    """Return a^b, in the type that a product of both has."""
    y = np.empty(np.broadcast_shapes(np.shape(a), np.shape(b)), np.result_type(a, b))
    _write_power(y, a, b)
    return y


def _write_power(y: Array, a: Any, b: Any) -> None:
    """Write y = a^b."""
    if y.dtype not in (np.float32, np.float64):
        np.power(a, b, y)
        return
    if np.ndim(b) == 0:
        product = _PRODUCTS.get(float(b))
        if product is not None:
            product(np.asarray(a, y.dtype), y)
            return
    operands = (np.broadcast_to(np.asarray(x, y.dtype), y.shape) for x in (a, b))
    elementary.power(y.reshape(-1), *map(flat, operands))


_PRODUCTS: dict[float, Callable[[Array, Array], Any]] = {
    -1.0: np.reciprocal,
    0.5: np.sqrt,
    1.0: np.positive,
    2.0: np.square,
    3.0: lambda x, y: np.multiply(x * x, x, y),
}
"""Powers that rounded operations give, by their exponents: they write to their second argument."""


def _log(x: Array) -> Array:
    if x.dtype.kind == "c":
        return np.asarray(np.log(x))
    y = np.empty(x.shape, x.dtype)
    elementary.log(y.reshape(-1), flat(x))
    return y


class Where(Layer):
    """Elementwise choice, y = a where the condition holds, else b."""

    elementwise = True
    analytic = True

    def forward(self, call: ForwardCall, condition: Any, a: Any, b: Any) -> Array:
        call.save(condition, np.shape(a), np.shape(b))
        y = np.asarray(np.where(condition, a, b))
        call.moves_samples(y.ndim)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        condition, a, b = call.saved
        zero = dy.dtype.type(0)
        da = unbroadcast(np.where(condition, dy, zero), a) if call.wants(1) else None
        db = unbroadcast(np.where(condition, zero, dy), b) if call.wants(2) else None
        return None, da, db


ADD, SUBTRACT, MULTIPLY, DIVIDE, POWER = Add(), Subtract(), Multiply(), Divide(), Power()
_WHERE = Where()


@wording("where")
def where(condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b; the condition is a constant of the graph."""
    return _WHERE(np.asarray(array_of(condition), bool), *alike("where", a, b))


@wording("maximum")
def maximum(a: Any, b: Any) -> Any:
    """Return the greater of a and b, element by element, NaN if either is; among equals the
    gradient goes to a.
    """
    first = array_of(a)
    return where((first >= array_of(b)) | np.not_equal(first, first), a, b)


@wording("minimum")
def minimum(a: Any, b: Any) -> Any:
    """Return the smaller of a and b, element by element, NaN if either is; among equals the
    gradient goes to a.
    """
    first = array_of(a)
    return where((first <= array_of(b)) | np.not_equal(first, first), a, b)


@wording("clip")
def clip(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    """Return a within [a_min, a_max], None being no bound; the gradient goes to a where that lies
    within, bounds included.
    """
    a = a if a_min is None else maximum(a, a_min)
    return a if a_max is None else minimum(a, a_max)
