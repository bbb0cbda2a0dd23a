"""Dropout, with masks that do not depend on how the batch is spread over processes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import fraction, require_floating, require_images
from .engine.forward_call import ForwardCall
from .engine.layer import Layer
from .engine.memory import contiguous
from .kernels import random
from .types import Array

if TYPE_CHECKING:
    from .engine.call import Call


class Dropout(Layer):
    """In training, set each element to 0 with probability p and multiply the others by 1 / (1 - p);
    else the identity.

    The mask is a function of the tape's seed and step, of the sample's number in the global batch,
    of the element and of the number of the draw on the tape (Srivastava et al. 2014; the numbers
    are Philox 4x32-10).
    """

    analytic = True
    replayable = True

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.p})"

    @property
    def p(self) -> float:
        """The probability of 0; it may be changed between two steps."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        name = type(self).__name__
        self._p = fraction(name, "the probability p", p, f"{name}(0.5) drops half.")

    def mask_shape(self, x: Array) -> tuple[int, ...]:
        """Return the shape of the mask: one number for each that is dropped or kept on its own."""
        return x.shape

    def masked(self, call: ForwardCall, name: str, x: Array, mask: Array) -> Array:
        """Return x times the mask, in a buffer of this name."""
        y = call.output_buffer(name, x.shape, x.dtype)
        call.run(np.multiply, x, mask, y)
        return y

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_floating(self, x)
        if not call.training or self.p == 0:
            call.save(None)
            return x
        p, key, shape = self.p, call.random_key(), self.mask_shape(x)
        mask = call.output_buffer("mask", shape, x.real.dtype)
        self._draw(call, mask, p, key)
        # Where memory is dear the numbers that it is a function of are enough.
        call.save(mask if self.precision.storage is None else None, p, key, shape)
        return self.masked(call, "y", x, mask)

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        mask, *drawn = call.saved
        if not drawn:
            return (dy,)
        if mask is None:
            p, key, shape = drawn
            mask = call.pooled("mask", shape, dy.dtype)
            self._draw(call, mask, p, key)
        return (self.masked(call, "dx", dy, mask),)

    def _draw(self, call: ForwardCall, mask: Array, p: float, key: tuple[Any, ...]) -> None:
        """Write the mask that belongs to a random key."""
        features = int(np.prod(mask.shape[1:]))
        bits = call.buffer("bits", (-(-features // 4) * 4,), np.uint32)
        threshold, scale = np.uint32(round(p * 2**32)), mask.dtype.type(1 / (1 - p))
        rows = mask.reshape(len(mask), features)
        call.run(random.dropout_mask, rows, bits, *key, threshold, scale)


class Dropout2d(Dropout):
    """In training, set each channel of each image (N, H, W, C) to 0 with probability p and scale
    the others as Dropout does.

    Neighbouring pixels are much alike, so that dropping them one by one hides little (Tompson et
    al. 2015, section 3.2). The mask (N, 1, 1, C) is drawn as that of Dropout.
    """

    def forward(self, call: ForwardCall, x: Array) -> Array:
        require_images(self, x)
        return super().forward(call, x)

    def mask_shape(self, x: Array) -> tuple[int, ...]:
        return (len(x), 1, 1, x.shape[3])

    def masked(self, call: ForwardCall, name: str, x: Array, mask: Array) -> Array:
        if x.dtype.kind == "c":
            return super().masked(call, name, x, mask)
        y = call.output_buffer(name, x.shape, x.dtype)
        n, height, width, channels = x.shape
        rows = (n, height, width * channels)
        factors = call.buffer("factors", rows[2:], x.dtype)
        call.run(
            random.mask_channels,
            y.reshape(rows),
            contiguous(x).reshape(rows),
            mask.reshape(n, channels),
            factors,
        )
        return y
