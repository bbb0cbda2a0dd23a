"""Dropout, with masks that do not depend on how the batch is spread over processes."""

from typing import TYPE_CHECKING

import numpy as np

from .errors import message, require_floating
from .kernels import random
from .layer import Layer
from .types import Array

if TYPE_CHECKING:
    from .tape import Call


class Dropout(Layer):
    """In training, set each element to 0 with probability p and multiply the others by 1 / (1 - p); else the identity.

    The mask is a function of the tape's seed and step, of the sample's number in the global batch, of the element and of the
    call's number on the tape (Srivastava et al. 2014; the numbers are Philox 4x32-10).
    """

    analytic = True

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ValueError(message("Dropout", "the probability p must be in [0, 1)", p, "Dropout(0.5) drops half."))
        self.p = float(p)

    def __repr__(self) -> str:
        return f"Dropout({self.p})"

    def forward(self, call: "Call", x: Array) -> Array:
        require_floating(self, x)
        if not call.training or self.p == 0:
            call.save(None)
            return x
        tape = call.tape
        mask = call.buffer("mask", x.shape, x.real.dtype)
        features = int(np.prod(x.shape[1:]))
        bits = call.buffer("bits", (-(-features // 4) * 4,), np.uint32)
        threshold, scale = np.uint32(round(self.p * 2**32)), mask.dtype.type(1 / (1 - self.p))
        key = (tape.first_sample, tape.step, call.index, np.uint64(tape.seed))
        random.dropout_mask(mask.reshape(len(x), features), bits, *key, threshold, scale)
        call.save(mask)
        return np.multiply(x, mask, out=call.buffer("y", x.shape, x.dtype))

    def backward(self, call: "Call", dy: Array) -> tuple[Array | None, ...]:
        (mask,) = call.saved
        if mask is None:
            return (dy,)
        return (np.multiply(dy, mask, out=call.buffer("dx", dy.shape, dy.dtype)),)
