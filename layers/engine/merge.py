"""Layers that join several inputs. Add and Multiply broadcast as NumPy does."""

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import integer
from layers.errors import message
from layers.types import Array

from .forward_call import ForwardCall
from .layer import Layer
from .sums import unbroadcast_buffer

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
    like = inputs[0] if inputs[0].__class__ is np.ndarray else inputs[-1]
    if like.__class__ is np.ndarray and like.dtype.kind in "fc":
        for x in inputs:
            kind = x.__class__
            if kind is np.ndarray:
                if x.shape != like.shape or x.dtype != like.dtype:
                    break
            elif kind is not float and kind is not int:
                break
        else:
            return call.output_buffer("y", like.shape, like.dtype), inputs
    inputs = of_one_type(layer, inputs)
    shapes = [np.shape(x) for x in inputs]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        fix = "Shapes must agree from the last axis backwards, or be 1."
        raise ValueError(
            message(layer, "the inputs must broadcast to one shape", shapes, fix)
        ) from None
    call.moves_samples(len(shape))
    return call.output_buffer("y", shape, np.result_type(*inputs)), inputs


class Add(Layer):
    """Sum of two inputs or more. Backward: every input gets dy."""

    elementwise = True
    analytic = True
    replayable = True
    keeps_constants = False

    def forward(self, call: ForwardCall, *inputs: Any) -> Array:
        call.save(*(np.shape(x) for x in inputs))
        y, inputs = broadcast_buffer(self, call, *inputs)
        if len(inputs) == 1:
            call.run(np.copyto, y, inputs[0])
            return y
        call.run(np.add, inputs[0], inputs[1], y)
        for x in inputs[2:]:
            call.run(np.add, y, x, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        return tuple(
            unbroadcast_buffer(call, f"dx{i}", dy, shape) if call.wants(i) else None
            for i, shape in enumerate(call.saved)
        )


class Multiply(Layer):
    """Product of two inputs or more. Backward: input i gets dy times the product of the others."""

    elementwise = True
    analytic = True
    replayable = True

    def forward(self, call: ForwardCall, *inputs: Any) -> Array:
        y, inputs = broadcast_buffer(self, call, *inputs)
        call.save(*inputs)
        if len(inputs) == 1:
            call.run(np.copyto, y, inputs[0])
            return y
        call.run(np.multiply, inputs[0], inputs[1], y)
        for x in inputs[2:]:
            call.run(np.multiply, y, x, y)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        gradients: list[Array | None] = []
        for i, x in enumerate(call.saved):
            if not call.wants(i):
                gradients.append(None)
                continue
            dx = call.buffer(f"dx{i}", dy.shape, dy.dtype)
            others = [other for j, other in enumerate(call.saved) if j != i] or [1]
            call.run(np.multiply, dy, others[0], dx)
            for other in others[1:]:
                call.run(np.multiply, dx, other, dx)
            gradients.append(unbroadcast_buffer(call, f"dx{i}", dx, np.shape(x)))
        return tuple(gradients)


class Concatenate(Layer):
    """Inputs side by side along an axis (the last unless said). Backward: every input gets its part
    of dy.
    """

    analytic = True
    replayable = True
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
        for index in range(len(inputs)):
            call.require_samples_apart(self.axis % len(shapes[0]), index)
        inputs = of_one_type(self, inputs)
        sizes = [shape[self.axis] for shape in shapes]
        shape = [*shapes[0]]
        shape[self.axis] = sum(sizes)
        y = call.buffer("y", (*shape,), np.result_type(*inputs))
        call.run(_write_side_by_side, y, self.axis, *inputs)
        call.save(tuple(accumulate(sizes[:-1])))
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (cuts,) = call.saved
        parts = np.split(dy, cuts, axis=self.axis)
        return tuple(self._apart(call, i, part) for i, part in enumerate(parts))

    def _apart(self, call: "Call", index: int, part: Array) -> Array:
        """Return a part of dy in memory of its own: whoever goes on reads it row by row."""
        if part.flags.c_contiguous:
            return part
        dx = call.pooled(f"dx{index}", part.shape, part.dtype)
        call.run(np.copyto, dx, part)
        return dx


def _write_side_by_side(y: Array, axis: int, *inputs: Any) -> None:
    """Write arrays to y, one after the other along an axis."""
    np.concatenate(inputs, axis=axis, out=y)
