"""What convolutions and transposed convolutions have in common."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import Pair, pair, require_input
from layers.engine.layer import Layer
from layers.engine.memory import contiguous, empty
from layers.engine.parameter import Parameter
from layers.errors import Renamed, message
from layers.init import Initializer
from layers.kernels import conv
from layers.types import Array

from .algorithms import ALGORITHMS, ConvAlgorithm
from .tables import Axis, Window

if TYPE_CHECKING:
    from layers.engine.call import Call

Size = int | tuple[int, int]
_FIX = "The channels are the last axis."


class Convolution(Layer):
    """A layer with the weight of a convolution: parameters, checks of arguments, the algorithm for
    each shape of input.

    The weight has shape (kernel rows, kernel columns, C / groups, K), for a map from C to K
    channels.
    """

    size = Renamed("kernel_size")
    method = Renamed("algorithm")

    def __init__(
        self,
        channels: Pair,
        kernel_size: Size,
        *,
        rng: np.random.Generator,
        stride: Size,
        dilation: Size,
        groups: int,
        biases: int,
        algorithm: str,
        weight_init: Initializer,
        bias_init: Initializer,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        self.kernel_size = pair(name, "kernel_size", kernel_size, 1)
        self.stride = pair(name, "stride", stride, 1)
        self.dilation = pair(name, "dilation", dilation, 1)
        for label, count in zip(
            ("channels", "channels", "groups"), (*channels, groups), strict=True
        ):
            if not isinstance(count, int | np.integer) or count < 1:
                raise ValueError(
                    message(
                        name,
                        f"{label} must be positive integers",
                        repr(count),
                        "Count the last axis.",
                    )
                )
        if channels[0] % groups or channels[1] % groups:
            fix = "Choose a common divisor; groups=in_channels convolves each channel by itself."
            must = f"groups must divide the channels, {channels[0]} and {channels[1]}"
            raise ValueError(message(name, must, groups, fix))
        if algorithm not in ALGORITHMS:
            raise ValueError(
                message(
                    name,
                    f"algorithm must be one of {', '.join(ALGORITHMS)}",
                    repr(algorithm),
                    "Leave it out.",
                )
            )
        self.groups = int(groups)
        self.algorithm = algorithm
        # Drawn as (K, C / groups, rows, columns), the order that the fans are defined for.
        drawn = weight_init(rng, (channels[1], channels[0] // groups, *self.kernel_size))
        self.weight = Parameter(np.ascontiguousarray(drawn.transpose(2, 3, 1, 0)).astype(dtype))
        self.bias = (
            Parameter(bias_init(rng, (biases,)).astype(dtype), regularized=False)
            if biases
            else None
        )
        self._algorithms: dict[Any, ConvAlgorithm] = {}

    def _axes(self, before: Pair, after: Pair) -> Window:
        rows, columns = (
            Axis(*numbers)
            for numbers in zip(
                self.kernel_size, self.stride, before, after, self.dilation, strict=True
            )
        )
        return Window(rows, columns, self.groups)

    def _images(self, x: Array, channels: int) -> Array:
        """Return the input in adjacent memory, having checked its type and shape."""
        require_input(self, x, ("N", "H", "W", channels), self.weight.dtype, _FIX)
        return contiguous(x)

    def _bias_gradient(self, call: "Call", dy: Array) -> None:
        if self.bias is not None and call.trains(self.bias):
            db, add = call.gradient_buffer(self.bias)
            (sums,) = call.scratch(dy.dtype, dy[0].size if len(dy) else 0)
            conv.bias_gradient(db, dy.reshape(len(dy), sums.size), call.bounds(len(dy)), sums, add)

    def _bias(self, x: Array) -> Array:
        return empty(x, 1) if self.bias is None else self.bias.value

    def _options(self, **defaults: Any) -> str:
        return "".join(
            f", {name}={getattr(self, name)}"
            for name, usual in defaults.items()
            if getattr(self, name) != usual
        )
