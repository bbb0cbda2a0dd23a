"""The operators and methods of values."""

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from layers.engine.layer import Layer, Recorded
from layers.errors import message, worded, wording
from layers.types import Array

from . import arithmetic, elementary, numpy_protocols, products, reductions, shaping
from .arithmetic import ADD, DIVIDE, MULTIPLY, POWER, SUBTRACT
from .constants import alike, array_of
from .products import MATMUL

if TYPE_CHECKING:
    from layers.engine.value import Value


def recorded(value: Any) -> "Value":
    """Return what a function of a value gave, which is a value."""
    result: Value = value
    return result


def _joined(layer: Layer, value: "Arithmetic", other: Any) -> "Value":
    """Record y = layer(value, other)."""
    kind = other.__class__
    if (
        kind is float
        or kind is int
        or ((kind is np.ndarray or kind is value.__class__) and other.dtype == value.array.dtype)
    ):
        return _recorded_with(layer, value, other)
    return _joined_to(layer, value, other)


def _joined_from(layer: Layer, other: Any, value: "Arithmetic") -> "Value":
    """Record y = layer(other, value)."""
    if other.__class__ is float or other.__class__ is int:
        return _recorded_with(layer, other, value)
    return _joined_to(layer, other, value)


@wording("Value")
def _joined_to(layer: Layer, one: Any, other: Any) -> "Value":
    """Record y = layer(one, other), of constants in the type of the value."""
    return _recorded_with(layer, *alike(layer, one, other))


def _recorded_with(layer: Layer, *pair: Any) -> "Value":
    """Record y = layer(*pair)."""
    try:
        return recorded(layer(*pair))
    except Exception as error:
        ours = worded(layer, error)
        if ours is error:
            raise
        raise ours from error


class Arithmetic(Recorded):
    """The operators and methods of `Value`."""

    __slots__ = ()

    __array_ufunc__ = numpy_protocols.ufunc
    __array_function__ = numpy_protocols.function
    __array__ = numpy_protocols.refuse_conversion

    def __add__(self, other: Any) -> "Value":
        return _joined(ADD, self, other)

    def __radd__(self, other: Any) -> "Value":
        return _joined(ADD, self, other)

    def __sub__(self, other: Any) -> "Value":
        return _joined(SUBTRACT, self, other)

    def __rsub__(self, other: Any) -> "Value":
        return _joined_from(SUBTRACT, other, self)

    def __mul__(self, other: Any) -> "Value":
        return _joined(MULTIPLY, self, other)

    def __rmul__(self, other: Any) -> "Value":
        return _joined(MULTIPLY, self, other)

    def __truediv__(self, other: Any) -> "Value":
        return _joined(DIVIDE, self, other)

    def __rtruediv__(self, other: Any) -> "Value":
        return _joined_from(DIVIDE, other, self)

    def __pow__(self, other: Any) -> "Value":
        return _joined(POWER, self, other)

    def __rpow__(self, other: Any) -> "Value":
        return _joined_to(POWER, other, self)

    def __matmul__(self, other: Any) -> "Value":
        return _joined(MATMUL, self, other)

    def __rmatmul__(self, other: Any) -> "Value":
        return _joined_to(MATMUL, other, self)

    def __neg__(self) -> "Value":
        return recorded(elementary.negative(self))

    def __pos__(self) -> "Value":
        return recorded(self)

    def __abs__(self) -> "Value":
        return recorded(elementary.absolute(self))

    @wording("Value")
    def __getitem__(self, key: Any) -> "Value":
        return recorded(shaping.indexing(key)(self))

    def __setitem__(self, key: Any, new: Any) -> NoReturn:
        must, fix = "a recorded array is not written to", "Use layers.where(mask, new, value)."
        raise TypeError(message("Value", must, f"value[{key!r}] = …", fix))

    # Comparisons give arrays of booleans: they have no gradient.
    def __eq__(self, other: object) -> Any:
        return np.equal(self.array, array_of(other))

    def __ne__(self, other: object) -> Any:
        return np.not_equal(self.array, array_of(other))

    # As ever: in sets and dicts a value stands for itself, not for its elements.
    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> Any:
        return self.array < array_of(other)

    def __le__(self, other: Any) -> Any:
        return self.array <= array_of(other)

    def __gt__(self, other: Any) -> Any:
        return self.array > array_of(other)

    def __ge__(self, other: Any) -> Any:
        return self.array >= array_of(other)

    def __bool__(self) -> bool:
        return bool(self.array)

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the sum over `axis` (an axis, several, or None for all)."""
        return recorded(reductions.total(self, axis, keepdims))

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the mean over `axis` (an axis, several, or None for all)."""
        return recorded(reductions.mean(self, axis, keepdims))

    def max(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the greatest along `axis` (an axis, several, or None for all)."""
        return recorded(reductions.greatest(self, axis, keepdims))

    def min(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the smallest along `axis` (an axis, several, or None for all)."""
        return recorded(reductions.smallest(self, axis, keepdims))

    def prod(self, axis: Any = None, keepdims: bool = False) -> "Value":
        """Return the product over `axis` (an axis, several, or None for all)."""
        return recorded(reductions.prod(self, axis, keepdims))

    def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> "Value":
        """Return the variance over `axis`; see `layers.var`."""
        return recorded(reductions.var(self, axis, ddof, keepdims))

    def std(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> "Value":
        """Return the standard deviation over `axis`; see `layers.std`."""
        return recorded(reductions.std(self, axis, ddof, keepdims))

    def cumsum(self, axis: int | None = None) -> "Value":
        """Return the sums up to each element along `axis`; see `layers.cumsum`."""
        return recorded(reductions.cumsum(self, axis))

    def clip(self, min: Any = None, max: Any = None) -> "Value":  # noqa: A002 - as in NumPy
        """Return it within [min, max]; see `layers.clip`."""
        return recorded(arithmetic.clip(self, min, max))

    def dot(self, other: Any) -> "Value":
        """Return the product with a vector or matrix."""
        return recorded(products.dot(self, other))

    @wording("Value.reshape")
    def reshape(self, *shape: Any) -> "Value":
        """Return the same elements in another shape, as `numpy.reshape`."""
        return recorded(shaping.reshape(self, _one_or_more(shape)))

    def ravel(self) -> "Value":
        """Return all elements in one row."""
        return recorded(shaping.reshape(self, (-1,)))

    flatten = ravel

    @wording("Value.transpose")
    def transpose(self, *axes: Any) -> "Value":
        """Return it with its axes in this order; in the reverse one if none are given."""
        return recorded(shaping.transpose(self, _one_or_more(axes) if axes else None))

    @property
    def T(self) -> "Value":  # noqa: N802 - as in NumPy
        """It with its axes in reverse order."""
        return recorded(shaping.transpose(self))

    def swapaxes(self, axis1: int, axis2: int) -> "Value":
        """Return it with `axis1` and `axis2` exchanged."""
        return recorded(shaping.swapaxes(self, axis1, axis2))

    def squeeze(self, axis: Any = None) -> "Value":
        """Return it without axes of size 1; see `layers.squeeze`."""
        return recorded(shaping.squeeze(self, axis))

    def repeat(self, repeats: Any, axis: int | None = None) -> "Value":
        """Return each element `repeats` times along `axis`; see `layers.repeat`."""
        return recorded(shaping.repeat(self, repeats, axis))

    @wording("Value.astype")
    def astype(self, dtype: Any) -> "Value":
        """Return the same numbers in another floating type; gradients are converted back."""
        return recorded(shaping.Cast(dtype)(self))

    # Indices are constants of the graph.
    @wording("Value.argmax")
    def argmax(self, axis: int | None = None) -> Any:
        """Return the index of the greatest along `axis`, of all in one row if that is None."""
        return self.array.argmax(axis)

    @wording("Value.argmin")
    def argmin(self, axis: int | None = None) -> Any:
        """Return the index of the smallest along `axis`, of all in one row if that is None."""
        return self.array.argmin(axis)

    @wording("Value.argsort")
    def argsort(self, axis: int = -1) -> Array:
        """Return the indices of the elements in ascending order along `axis`, equals in theirs."""
        return self.array.argsort(axis, kind="stable")

    def exp(self) -> "Value":
        """Return the exponential."""
        return recorded(elementary.exp(self))

    def log(self) -> "Value":
        """Return the natural logarithm."""
        return recorded(elementary.log(self))

    def sqrt(self) -> "Value":
        """Return the square root."""
        return recorded(elementary.sqrt(self))

    def sin(self) -> "Value":
        """Return the sine."""
        return recorded(elementary.sin(self))

    def cos(self) -> "Value":
        """Return the cosine."""
        return recorded(elementary.cos(self))

    def tanh(self) -> "Value":
        """Return the hyperbolic tangent."""
        return recorded(elementary.tanh(self))

    def abs(self) -> "Value":
        """Return the absolute value."""
        return recorded(elementary.absolute(self))


def _one_or_more(given: tuple[Any, ...]) -> Any:
    """Return what was given as one tuple or list, or as several arguments."""
    return given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
