"""The shortcut without parameters that joins residual blocks of different sizes."""

from typing import TYPE_CHECKING

from .checks import positive_int, require_input, sizes
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .errors import message
from .kernels import shortcut
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class PaddedShortcut(Layer):
    """Take every `stride`-th pixel and append zeros as further channels: option A of He et al.
    2015, section 3.3.

    Inputs are (N, H, W, in_channels), outputs (N, ⌈H / stride⌉, ⌈W / stride⌉, out_channels).
    Backward: dx is dy at those pixels and channels, and 0 elsewhere.
    """

    replayable = True

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        in_channels = positive_int("PaddedShortcut", "in_channels", in_channels)
        out_channels = positive_int("PaddedShortcut", "out_channels", out_channels)
        if in_channels > out_channels:
            fix = "A Conv2d of size 1 changes channels in any way."
            must = f"out_channels must be at least in_channels, {in_channels}"
            raise ValueError(message("PaddedShortcut", must, out_channels, fix))
        self.in_channels = in_channels
        self.out_channels = out_channels
        fix = "1 keeps all pixels."
        (self.stride,) = sizes("PaddedShortcut", "the stride", stride, 1, 1, fix)

    def __repr__(self) -> str:
        return f"PaddedShortcut({self.in_channels}, {self.out_channels}, stride={self.stride})"

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_input(self, x, ("N", "H", "W", self.in_channels))
        n, height, width, _ = x.shape
        y = call.output_buffer(
            "y",
            (n, -(-height // self.stride), -(-width // self.stride), self.out_channels),
            x.dtype,
        )
        call.run(shortcut.forward, y, contiguous(x), self.stride)
        call.save(x.shape)
        return y

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (shape,) = call.saved
        dx = call.pooled("dx", shape, dy.dtype)
        call.run(shortcut.backward, dx, contiguous(dy), self.stride)
        return (dx,)
