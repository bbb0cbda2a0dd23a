"""What convolutions and transposed convolutions have in common."""

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from layers.checks import Pair, one_of, positive_int, require_input, sizes
from layers.engine.layer import Layer
from layers.engine.memory import contiguous, empty
from layers.engine.parameter import Parameter
from layers.errors import Renamed, message
from layers.init import Initializer
from layers.initial import drawn
from layers.kernels import conv
from layers.types import Array

from .algorithm import ConvAlgorithm
from .algorithms import ALGORITHMS

if TYPE_CHECKING:
    from layers.engine.call import Call

Size = int | tuple[int, ...]
_FIX = "The channels are the last axis."


class Convolution(Layer):
    """A layer with the weight of a convolution: parameters, checks of arguments, the algorithm for
    each shape of input.

    The weight has shape (kernel rows, kernel columns, C / groups, K), with the depth of a volume
    before the rows, for a map from C to K channels.
    """

    replayable = True
    axes: ClassVar[tuple[str, ...]] = ("rows", "columns")
    letters: ClassVar[tuple[str, ...]] = ("N", "H", "W")

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
        self.kernel_size = self._sizes("kernel_size", kernel_size, 1)
        self.stride = self._sizes("stride", stride, 1)
        self.dilation = self._sizes("dilation", dilation, 1)
        fix = "Count the last axis."
        channels = (
            positive_int(name, "channels", channels[0], fix),
            positive_int(name, "channels", channels[1], fix),
        )
        groups = positive_int(name, "groups", groups, "1 is usual.")
        if channels[0] % groups or channels[1] % groups:
            fix = "Choose a common divisor; groups=in_channels convolves each channel by itself."
            must = f"groups must divide the channels, {channels[0]} and {channels[1]}"
            raise ValueError(message(name, must, groups, fix))
        one_of(name, "algorithm", algorithm, ALGORITHMS, "Leave it out.")
        self.groups = groups
        self.algorithm = algorithm
        # Drawn as (K, C / groups, rows, columns), the order that the fans are defined for.
        shape = (channels[1], channels[0] // groups, *self.kernel_size)
        weight = drawn(name, weight_init, rng, shape, dtype)
        self.weight = Parameter(np.ascontiguousarray(np.moveaxis(weight, (1, 0), (-2, -1))))
        self.bias = (
            Parameter(drawn(name, bias_init, rng, (biases,), dtype), regularized=False)
            if biases
            else None
        )
        self._algorithms: dict[Any, ConvAlgorithm] = {}

    def _sizes(self, name: str, size: Any, least: int) -> tuple[int, ...]:
        fix = f"Pass one number, or ({', '.join(self.axes)})."
        return sizes(type(self).__name__, name, size, least, len(self.axes), fix)

    def _images(self, x: Array, channels: int) -> Array:
        """Return the input in adjacent memory, having checked its type and shape."""
        require_input(self, x, (*self.letters, channels), self.weight.dtype, _FIX)
        return contiguous(x)

    def _bias_gradient(self, call: "Call", dy: Array) -> None:
        if self.bias is not None and call.trains(self.bias):
            db, add = call.gradient_buffer(self.bias)
            # The slices of a volume are added like samples: sums are shorter, and stay in a cache.
            images = dy.reshape(-1, math.prod(dy.shape[-3:]))
            (sums,) = call.scratch(dy.dtype, images.shape[1])
            call.run(conv.bias_gradient, db, images, call.bounds(len(images)), sums, add)

    def _saved_images(self, call: "Call", x: Array, algorithm: ConvAlgorithm) -> Array:
        """Return what the algorithm's gradient takes of images that were saved."""
        return x if algorithm.takes_words else call.kept("x", x)

    def _bias(self, x: Array) -> Array:
        return empty(x, 1) if self.bias is None else self.bias.value

    def _options(self, **defaults: Any) -> str:
        return "".join(
            f", {name}={getattr(self, name)}"
            for name, usual in defaults.items()
            if getattr(self, name) != usual
        )
