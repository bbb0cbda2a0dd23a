"""Sums, and what else makes one number of many."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.engine.batch_sum import sum_rows
from layers.engine.fixed_tree import tree_sum
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.sums import axes_of, sum_over
from layers.errors import message, wording
from layers.types import Array

from .arithmetic import SUBTRACT
from .constants import array_of
from .elementary import absolute, exp, log
from .made import made

if TYPE_CHECKING:
    from layers.engine.call import Call


class Reduction(Layer):
    """Base of what makes one number of those along axes.

    Parameters
    ----------
    axis
        An axis, several, or None for all.
    keepdims
        Whether they stay, of size 1.
    """

    def __init__(self, axis: Any = None, keepdims: bool = False) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def __repr__(self) -> str:
        return f"{type(self).__name__}(axis={self.axis})"

    def require_samples_apart(self, call: ForwardCall, x: Array) -> None:
        """Refuse to reduce samples of which others hold a part."""
        for axis in axes_of(self.axis, x.ndim):
            call.require_samples_apart(axis)

    def shaped(self, y: Array, x: Array) -> Array:
        """Return a reduction of x, with its axes if they are kept."""
        return y.reshape(self.spread(x.shape)) if self.keepdims else y

    def spread(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a reduction that broadcasts against what was reduced."""
        axes = axes_of(self.axis, len(shape))
        return tuple(1 if i in axes else size for i, size in enumerate(shape))

    def columns(self, x: Array) -> Array:
        """Return x with the reduced axes as one, in front of the others."""
        order, count = self._order(x.ndim)
        x = x.transpose(order)
        return x.reshape(math.prod(x.shape[:count]), *x.shape[count:])

    def uncolumned(self, dx: Array, shape: tuple[int, ...]) -> Array:
        """Return what `columns` made of an array of this shape as it was."""
        order, _ = self._order(len(shape))
        return dx.reshape([shape[i] for i in order]).transpose(np.argsort(order))

    def _order(self, ndim: int) -> tuple[list[int], int]:
        axes = axes_of(self.axis, ndim)
        return [*axes, *(i for i in range(ndim) if i not in axes)], len(axes)


class Sum(Reduction):
    """Sum over axes. Backward: dy is spread over what was added.

    Along the axis of a batch that is spread over shards it is this rank's share of the sum over the
    global batch: see `layers.engine.shares`.
    """

    analytic = True
    replayable = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        axes, samples = axes_of(self.axis, x.ndim), call.samples_axis()
        if samples in axes:
            return self._share(call, x, samples)
        call.save(x.shape, math.prod(x.shape[i] for i in axes))
        if x.dtype.kind not in "fc":
            return self._reduced(x)
        kept = tuple(size for i, size in enumerate(x.shape) if i not in axes)
        y = call.output_buffer("y", self.spread(x.shape) if self.keepdims else kept, x.dtype)
        call.run(self._write, y, x)
        return y

    def _write(self, y: Array, x: Array) -> None:
        y[...] = self._reduced(x)

    def _reduced(self, x: Array) -> Array:
        return self.shaped(sum_over(x, axes_of(self.axis, x.ndim)), x)

    def _share(self, call: ForwardCall, x: Array, axis: int) -> Array:
        """Return the share of a sum over the global batch, whose samples lie on an axis, and report
        the sums of shards.
        """
        others, rows = [i for i in axes_of(self.axis, x.ndim) if i != axis], x.shape[axis]
        samples = call.samples(rows)
        terms = samples * call.rows_per_sample(rows) * math.prod(x.shape[i] for i in others)
        axes = 0, *(i + (i < axis) for i in others)
        sums = sum_rows(np.moveaxis(x, axis, 0), axes, call.bounds(rows))
        # In units of the mean over samples.
        sums *= self.scale(terms) * samples
        if self.keepdims:
            sums = sums.reshape(-1, *self.spread(x.shape))
        call.report(sums)
        call.save(x.shape, terms)
        return np.asarray(tree_sum(sums) / samples, x.dtype)

    def scale(self, terms: int) -> float:
        """Return what the sum of so many terms is multiplied by."""
        return 1.0

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        shape, _ = call.saved
        dx = call.pooled("dx", shape, dy.dtype)
        call.run(np.copyto, dx, dy.reshape(self.spread(shape)))
        return (dx,)


class Mean(Sum):
    """Mean over axes. Backward: dy / terms is spread over what was added."""

    def _reduced(self, x: Array) -> Array:
        y = super()._reduced(x)
        terms = x.size // max(1, y.size)
        return np.asarray(y / (y.dtype.type if y.dtype.kind in "fc" else float)(terms))

    def scale(self, terms: int) -> float:
        return 1 / max(1, terms)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        _, terms = call.saved
        part = call.pooled("dy", dy.shape, dy.dtype)
        call.run(np.true_divide, dy, dy.dtype.type(max(1, terms)), part)
        return super().backward(call, part)


class Extreme(Reduction):
    """Greatest or smallest along axes. Backward: dy goes to the first of equals; to the first NaN,
    if there is one.
    """

    def __init__(self, sign: int, axis: Any = None, keepdims: bool = False) -> None:
        super().__init__(axis, keepdims)
        self.sign = sign

    def __repr__(self) -> str:
        return f"{'max' if self.sign > 0 else 'min'}(axis={self.axis})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        self.require_samples_apart(call, x)
        columns = self.columns(x)
        if not len(columns):
            fix = "Leave empty arrays out."
            raise ValueError(message(self, "there must be an element to choose", x.shape, fix))
        winners = (columns.argmax if self.sign > 0 else columns.argmin)(axis=0)[np.newaxis]
        call.save(x.shape, columns.shape, winners)
        return self.shaped(np.take_along_axis(columns, winners, 0)[0], x)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        shape, columns, winners = call.saved
        dx = np.zeros(columns, dy.dtype)
        np.put_along_axis(dx, winners, dy.reshape(winners.shape), 0)
        return (self.uncolumned(dx, shape),)


class Norm(Reduction):
    """Root of the sum of squares over axes, which neither overflow nor underflow. Backward: dx =
    dy x / y, 0 where y is 0.
    """

    analytic = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        self.require_samples_apart(call, x)
        factor = self._factor(x)
        scaled = x * factor
        squares = sum_over(scaled * scaled, axes_of(self.axis, x.ndim))
        y = np.asarray(np.sqrt(squares) / factor.reshape(squares.shape))
        call.save(x, y)
        return self.shaped(y, x)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        x, y = call.saved
        shape = self.spread(x.shape)
        return (x / np.where(y == 0, y.dtype.type(1), y).reshape(shape) * dy.reshape(shape),)

    def _factor(self, x: Array) -> Array:
        """Return powers of two, exact factors that bring the greatest of each vector near 1."""
        sizes = np.abs(x)
        if sizes.dtype.kind != "f":
            sizes = sizes.astype(np.float64)
        greatest = sizes.max(axis=axes_of(self.axis, x.ndim), keepdims=True, initial=0)
        _, exponents = np.frexp(np.where(np.isfinite(greatest), greatest, 1))
        most = np.finfo(sizes.dtype).maxexp - 2
        return np.asarray(np.ldexp(sizes.dtype.type(1), -np.clip(exponents, -most, most)))


class LogSumExp(Reduction):
    """Logarithm of the sum of exponentials over axes, log Σ eˣ. Backward: dx = dy eˣ / Σ eˣ, which
    is 1 for a single infinity.
    """

    analytic = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        self.require_samples_apart(call, x)
        if x.dtype.kind in "biu":
            x = x.astype(np.float64)
        axes = axes_of(self.axis, x.ndim)
        peak = x.real.max(axis=axes, keepdims=True)
        # Infinities are the limit of numbers that grow together: their differences are 0.
        shifted = np.zeros_like(x)
        np.subtract(x, peak, out=shifted, where=(x != peak) | np.isfinite(peak))
        powers = exp(shifted)
        sums = sum_over(powers, axes)
        call.save(powers, sums)
        return self.shaped(np.asarray(log(sums) + peak.reshape(sums.shape)), x)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        powers, sums = call.saved
        return (powers * (dy.reshape(sums.shape) * (1 / sums)).reshape(self.spread(powers.shape)),)


class Product(Reduction):
    """Product over axes. Backward: dx = dy times the product of the others, right where some are
    0.
    """

    analytic = True

    def forward(self, call: ForwardCall, x: Array) -> Array:
        self.require_samples_apart(call, x)
        factors = self.columns(x)
        # Of those before each, in order, and at last of all.
        one = np.ones((1, *factors.shape[1:]), x.dtype)
        before = np.multiply.accumulate(np.concatenate([one, factors]))
        call.save(x.shape, factors, before)
        return self.shaped(before[-1].copy(), x)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        shape, factors, before = call.saved
        after = np.multiply.accumulate(np.concatenate([np.ones_like(before[:1]), factors[:0:-1]]))
        dx = dy.reshape(factors.shape[1:]) * before[:-1] * after[::-1]
        return (self.uncolumned(dx, shape),)


class CumulativeSum(Layer):
    """Sums of the elements up to each along an axis. Backward: sums of dy from each on."""

    analytic = True

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, call: ForwardCall, x: Array) -> Array:
        call.require_samples_apart(self.axis % x.ndim)
        return np.add.accumulate(x, self.axis)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return (np.flip(np.add.accumulate(np.flip(dy, self.axis), self.axis), self.axis),)


@wording("sum")
def total(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the sum over `axis` (an axis, several, or None for all)."""
    return made(Sum, axis, keepdims)(x)


@wording("mean")
def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the mean over `axis` (an axis, several, or None for all)."""
    return made(Mean, axis, keepdims)(x)


@wording("max")
def greatest(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the greatest along `axis` (an axis, several, or None for all)."""
    return Extreme(1, axis, keepdims)(x)


@wording("min")
def smallest(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the smallest along `axis` (an axis, several, or None for all)."""
    return Extreme(-1, axis, keepdims)(x)


@wording("prod")
def prod(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the product over `axis` (an axis, several, or None for all), which stays as 1 with
    `keepdims`.
    """
    return Product(axis, keepdims)(x)


@wording("var")
def var(x: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the variance over `axis` (an axis, several, or None for all): the mean of squared
    deviations, or their sum over `ddof` less than their number. With `keepdims` the axis stays.
    """
    deviations = _deviations(x, axis)
    return total(deviations * deviations, axis, keepdims) / _freedom(x, axis, ddof)


@wording("std")
def std(x: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the standard deviation over `axis`, the root of `var`; where it is 0, so is its
    gradient. `ddof` is subtracted from the number of terms. With `keepdims` the axis stays.
    """
    return Norm(axis, keepdims)(_deviations(x, axis)) / math.sqrt(_freedom(x, axis, ddof))


def _deviations(x: Any, axis: Any) -> Any:
    return SUBTRACT(x, mean(x, axis, keepdims=True))


def _freedom(x: Any, axis: Any, ddof: int) -> int:
    shape: tuple[int, ...] = np.shape(array_of(x))
    terms = math.prod(shape[i] for i in axes_of(axis, len(shape)))
    if terms <= ddof:
        must, fix = f"there must be more than ddof={ddof} terms", "Reduce over other axes."
        raise ValueError(message("var", must, terms, fix))
    return terms - ddof


@wording("norm")
def norm(x: Any, order: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the length of vectors along `axis` (an axis, several, or None for all): the root of
    the sum of squares; where it is 0, so is its gradient. With `keepdims` the axis stays.

    Parameters
    ----------
    order
        None or 2; 1 for the sum of absolute values, infinity for the greatest.
    """
    if order in (None, 2) and (order is None or _along_one_axis(x, axis)):
        return Norm(axis, keepdims)(x)
    if order in (1, math.inf) and _along_one_axis(x, axis):
        return (total if order == 1 else greatest)(absolute(x), axis, keepdims)
    must, fix = "the order must be None, or 1, 2 or inf of vectors", "Pass the axis of the vectors."
    raise ValueError(message("norm", must, f"order={order}, axis={axis}", fix))


def _along_one_axis(x: Any, axis: Any) -> bool:
    return isinstance(axis, int) or (axis is None and np.ndim(array_of(x)) == 1)


@wording("cumsum")
def cumsum(x: Any, axis: int | None = None) -> Any:
    """Return the sums of all elements up to each along `axis`, of all in one row if that is
    None.
    """
    return CumulativeSum(0)(x.reshape(-1)) if axis is None else CumulativeSum(axis)(x)


@wording("logsumexp")
def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the logarithm of the sum of exponentials over `axis` (an axis, several, or None for
    all), which does not overflow. With `keepdims` the axis stays.
    """
    return LogSumExp(axis, keepdims)(x)
