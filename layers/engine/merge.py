"""Layers that join several inputs. Add and Multiply broadcast as NumPy does."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import integer
from layers.errors import message
from layers.types import Array

from .forward_call import ForwardCall
from .layer import Layer
from .sums import unbroadcast

if TYPE_CHECKING:
    from .call import Call


def of_one_type(layer: Layer, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the inputs of an operation that joins them: arrays of one floating type, of which
    NumPy's scalars, integers and booleans are made, and Python's numbers.

    Raises
    ------
    TypeError
        There are arrays of two floating types.
    """
    if len({x.dtype for x in inputs if x.__class__ is np.ndarray}) == 1 and all(
        x.__class__ in (np.ndarray, float, int) for x in inputs
    ):
        return inputs
    dtypes = {x.dtype for x in inputs if isinstance(x, np.ndarray) and x.dtype.kind in "fc"}
    real = {dtype for dtype in dtypes if dtype.kind == "f"}
    if len(real) > 1:
        fix = "Convert one of them with astype."
        got = " and ".join(sorted(map(str, real)))
        raise TypeError(message(layer, "the inputs must have one floating type", got, fix))
    if len(dtypes) != 1:
        return inputs
    (dtype,) = dtypes
    return tuple(
        x if isinstance(x, int | float) and not isinstance(x, np.generic) else np.asarray(x, dtype)
        for x in inputs
    )


def broadcast_buffer(
    layer: Layer, call: ForwardCall, *inputs: Any
) -> tuple[Array, tuple[Any, ...]]:
    """Return a buffer for the result of an elementwise operation on the inputs, and these in one
    type.
    """
    first = inputs[0]
    if all(
        type(x) is np.ndarray and x.shape == first.shape and x.dtype == first.dtype for x in inputs
    ):
        return call.buffer("y", first.shape, first.dtype), inputs
    inputs = of_one_type(layer, inputs)
    shapes = [np.shape(x) for x in inputs]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        fix = "Shapes must agree from the last axis backwards, or be 1."
        raise ValueError(
            message(layer, "the inputs must broadcast to one shape", shapes, fix)
        ) from None
    return call.buffer("y", shape, np.result_type(*inputs)), inputs


class Add(Layer):
    """Sum of two inputs or more. Backward: every input gets dy."""

    analytic = True
    keeps_constants = False

    def forward(self, call: ForwardCall, *inputs: Any) -> Array:
        call.save(*(np.shape(x) for x in inputs))
        y, inputs = broadcast_buffer(self, call, *inputs)
        if len(inputs) == 1:
            y[...] = inputs[0]
            return y
        np.add(inputs[0], inputs[1], out=y)
        for x in inputs[2:]:
            np.add(y, x, out=y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return tuple(
            unbroadcast(dy, shape) if call.wants(i) else None for i, shape in enumerate(call.saved)
        )


class Multiply(Layer):
    """Product of two inputs or more. Backward: input i gets dy times the product of the others."""

    analytic = True

    def forward(self, call: ForwardCall, *inputs: Any) -> Array:
        y, inputs = broadcast_buffer(self, call, *inputs)
        call.save(*inputs)
        if len(inputs) == 1:
            y[...] = inputs[0]
            return y
        np.multiply(inputs[0], inputs[1], out=y)
        for x in inputs[2:]:
            np.multiply(y, x, out=y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        gradients: list[Array | None] = []
        for i, x in enumerate(call.saved):
            if not call.wants(i):
                gradients.append(None)
                continue
            dx = call.buffer(f"dx{i}", dy.shape, dy.dtype)
            dx[...] = dy
            for j, other in enumerate(call.saved):
                if j != i:
                    np.multiply(dx, other, out=dx)
            gradients.append(unbroadcast(dx, np.shape(x)))
        return tuple(gradients)


class Concatenate(Layer):
    """Inputs side by side along an axis (the last unless said). Backward: every input gets its part
    of dy.
    """

    analytic = True
    keeps_constants = False

    def __init__(self, axis: int = -1) -> None:
        self.axis = integer("Concatenate", "axis", axis, "-1 is that of the features.")

    def __repr__(self) -> str:
        return f"Concatenate(axis={self.axis})"

    def forward(self, call: ForwardCall, *inputs: Any) -> Array:
        shapes = [np.shape(x) for x in inputs]
        if not all(-len(shape) <= self.axis < len(shape) for shape in shapes):
            must, fix = f"the inputs must have axis {self.axis}", "Choose one that they have."
            raise ValueError(message(self, must, shapes, fix))
        rest = {
            shape[: self.axis % len(shape)] + shape[self.axis % len(shape) + 1 :]
            for shape in shapes
            if shape
        }
        if len(rest) != 1 or not all(shapes):
            fix = f"Only axis {self.axis} may differ."
            raise ValueError(message(self, "the inputs must agree in all other axes", shapes, fix))
        if self.axis % len(shapes[0]) == 0:
            for index in range(len(inputs)):
                call.require_samples_apart(0, index)
        call.save(np.cumsum([shape[self.axis] for shape in shapes])[:-1])
        return np.concatenate(of_one_type(self, inputs), axis=self.axis)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (cuts,) = call.saved
        return tuple(np.split(dy, cuts, axis=self.axis))
