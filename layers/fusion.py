"""Neighbours in a Sequential that run as one call, with the same bits: the table of them, and the
layers that they become.

The table names exact types: what a subclass computes is not known here, so it stays as it is.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .activation import GELU, ReLU
from .batch_norm import BatchNorm, BatchNorm2d
from .conv.conv import Conv1d, Conv2d, Conv3d
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous, flat
from .engine.merge import Add
from .engine.module import Composite, Module
from .engine.parameter import Parameter
from .group_norm import GroupNorm, InstanceNorm, InstanceNorm1d, InstanceNorm2d
from .kernels import dense, elementwise, merge, pool
from .linear import Linear
from .pool import MaxPool1d, MaxPool2d
from .residual import Residual
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call

Gradients = tuple[Array | None, ...]


class Fused(Layer):
    """Layers in one call."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts))

    def own_parameters(self) -> list[Parameter]:
        return [parameter for part in self.parts for parameter in part.own_parameters()]

    def apart(self, x: Any, *others: Any) -> Any:
        """Return what the layers give one after the other, each called by itself, the same bits;
        `others` are what is added to the input of an `Add` among them.
        """
        for part in self.parts:
            x = part(x, *others) if isinstance(part, Add) else part(x)
        return x


class Activated(Fused):
    """An activation and another layer, `main`, whose kernels do both when its forward and backward
    get a further `argument`.
    """

    def __init__(self, *parts: Any, main: Any, argument: Any) -> None:
        super().__init__(*parts)
        self.main = main
        self.argument = argument
        self.replayable = main.replayable

    def forward(self, call: ForwardCall, x: Array) -> Any:
        return self.main.forward(call, x, self.argument)

    def backward(self, call: "Call", dy: Array) -> Any:
        return self.main.backward(call, dy, self.argument)


class PooledConv2d(Fused):
    """A Conv2d, a ReLU and a MaxPool2d; backward has one pass from the pooled gradient to that of
    the convolution.
    """

    replayable = True

    def __init__(self, convolution: Conv2d, relu: ReLU, pooling: MaxPool2d) -> None:
        super().__init__(convolution, relu, pooling)
        self.convolution = convolution
        self.pooling = pooling

    def forward(self, call: ForwardCall, x: Array) -> Array:
        z, x, algorithm = self.convolution.convolve(call, x, rectified=True)
        found = self.pooling.windows(z)
        y = self.pooling.output(call, z, found, "pooled")
        call.run(pool.maximum, y, z, found.rows, found.columns, False)
        precision = self.precision
        kept = precision.keep(call, x, 0), precision.keep(call, z, "z")
        call.save(*kept, algorithm, precision.keep(call, y))
        return y

    def backward(self, call: "Call", dy: Array) -> Gradients:
        x, z, algorithm, y = call.saved
        z, y = call.kept("z", z), call.kept("y", y)
        dz = call.pooled("dz", z.shape, z.dtype)
        call.run(pool.maximum_backward, dz, contiguous(dy), y, z, *self.pooling.windows(z), True)
        del z, y
        return self.convolution.gradients(call, dz, x, algorithm)


class JoinedBatchNorm(Fused):
    """The end of a residual block, y = max(norm(x) + shortcut, 0). Backward: dy where y > 0, to
    both.
    """

    replayable = True

    def __init__(self, norm: BatchNorm, add: Add, relu: ReLU) -> None:
        super().__init__(norm, add, relu)
        self.norm = norm

    def forward(self, call: ForwardCall, x: Array, shortcut: Array) -> Array:
        return self.norm.forward(call, x, True, shortcut)

    def backward(self, call: "Call", dy: Array) -> Gradients:
        return self.norm.backward(call, dy, joined=True)


class RectifiedAdd(Fused):
    """Sum of two inputs of one shape, y = max(a + b, 0). Backward: dy where y > 0, to both."""

    replayable = True

    def forward(self, call: ForwardCall, a: Array, b: Array) -> Array:
        y = call.output_buffer("y", a.shape, a.dtype)
        call.run(merge.rectified_sum, y.reshape(-1), flat(a), flat(b))
        call.save(self.precision.keep(call, y.reshape(-1)))
        return y

    def backward(self, call: "Call", dy: Array) -> Gradients:
        (y,) = call.saved
        dx = call.pooled("dx", dy.shape, dy.dtype)
        call.run(elementwise.relu_backward, dx.reshape(-1), flat(dy), y)
        return (dx, dx)


class RectifiedResidual(Composite):
    """A Residual and a ReLU: the sum, the ReLU and a batch normalisation that ends the body are one
    call.
    """

    replayable = True

    def __init__(self, residual: Residual, relu: ReLU) -> None:
        self.parts = (residual, relu)
        self._residual = residual
        self._relu = relu
        self._head, self._norm = _head_and_norm(residual.body)
        self._join = (
            RectifiedAdd(residual.add, relu)
            if self._norm is None
            else JoinedBatchNorm(self._norm, residual.add, relu)
        )

    def __repr__(self) -> str:
        return f"{self._residual!r} + {self._relu!r}"

    @property
    def takes_lengths(self) -> bool:
        """Whether the body takes the lengths of its samples."""
        return self._residual.takes_lengths

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        if lengths is not None:
            return self._relu(self._residual(x, lengths))
        shortcut, z = self._residual.shortcut, x
        for step in self._head:
            z = step(z)
        other = x if shortcut is None else shortcut(x)
        if z.shape == other.shape and z.dtype == other.dtype:
            return self._join(z, other)
        return self._relu(self._residual.add(z if self._norm is None else self._norm(z), other))


def _head_and_norm(body: Module) -> tuple[list[Module], Any]:
    """Return the layers of a body without the batch normalisation at its end, and that, or None if
    there is none.
    """
    if type(body) in (BatchNorm, BatchNorm2d):
        return [], body
    *head, last = body._chain() if isinstance(body, Composite) else (body,)
    if last is body:
        return [body], None
    rest, norm = _head_and_norm(last)
    return head + rest, norm


def _activated(activation: int) -> Callable[..., Layer]:
    return lambda linear, following: Activated(linear, following, main=linear, argument=activation)


def _with_gelu(linear: Linear, gelu: GELU) -> Module | None:
    """Return a Linear with the exact GELU; the kernels do not know the other."""
    return _activated(dense.GELU)(linear, gelu) if gelu.approximate == "none" else None


def _rectified(layer: Any, relu: ReLU) -> Layer:
    return Activated(layer, relu, main=layer, argument=True)


def _rectified_pool(relu: ReLU, pooling: Any) -> Module:
    return Activated(relu, pooling, main=pooling, argument=True)


PATTERNS: dict[tuple[type, ...], Callable[..., Module | None]] = {
    (Linear, ReLU): _activated(dense.RECTIFIED),
    (Linear, GELU): _with_gelu,
    (Conv1d, ReLU): _rectified,
    (Conv2d, ReLU): _rectified,
    (Conv3d, ReLU): _rectified,
    (Conv2d, ReLU, MaxPool2d): PooledConv2d,
    (BatchNorm, ReLU): _rectified,
    (BatchNorm2d, ReLU): _rectified,
    (GroupNorm, ReLU): _rectified,
    (InstanceNorm, ReLU): _rectified,
    (InstanceNorm1d, ReLU): _rectified,
    (InstanceNorm2d, ReLU): _rectified,
    (ReLU, MaxPool1d): _rectified_pool,
    (ReLU, MaxPool2d): _rectified_pool,
    (Residual, ReLU): RectifiedResidual,
}
"""By the types of neighbours: what makes one layer of them, or None where their options forbid."""
LONGEST = max(map(len, PATTERNS))


def fuse(layers: Sequence[Module]) -> list[Module]:
    """Return the layers with neighbours joined that the table knows, from the first on, as many at
    once as it can.
    """
    steps: list[Module] = []
    start = 0
    while start < len(layers):
        stop = min(start + LONGEST, len(layers))
        while (fused := _joined(layers[start:stop])) is None:
            stop -= 1
        steps.append(fused)
        start = stop
    return steps


def _joined(layers: Sequence[Module]) -> Module | None:
    """Return one layer for all of these, if there is one."""
    if len(layers) == 1:
        return layers[0]
    join = PATTERNS.get(tuple(map(type, layers)))
    return None if join is None else join(*layers)
