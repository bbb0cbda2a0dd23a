"""The signs of the gradient, and one size for each parameter."""

from dataclasses import dataclass

import numpy as np

from layers import FlatParameters
from layers.kernels import compression as kernels
from layers.types import Array

from .compressor import Compressor, Fields


@dataclass(frozen=True)
class Sign(Compressor):
    """Send the sign of each element of a shard's gradient, with the mean absolute value of each
    parameter's, and add the error to the next one.

    Source: Karimireddy, Rebjock, Stich and Jaggi, "Error feedback fixes SignSGD and other gradient
    compression schemes", 2019, algorithm 1, layer by layer. A message has a bit for each element.
    """

    def __str__(self) -> str:
        return "sign"

    def codec(self, flat: FlatParameters) -> "_Codec":
        return _Codec(flat)


class _Codec:
    """See `Codec`; a message is a size for each parameter, and words of 32 signs."""

    remembers = False

    def __init__(self, flat: FlatParameters) -> None:
        places = [(start, stop) for _, _, start, stop in flat.segments() if start < stop]
        self._segments = np.array(places, np.int64).reshape(-1, 2)
        words = -(-flat.values.size // 32)
        self._fields = Fields([((len(places),), np.float32), ((words,), np.uint32)])
        self.nbytes = self._fields.nbytes

    def begin(self, sent: Array) -> None:
        pass

    def encode(self, sent: Array, x: Array, before: Array) -> None:
        scales, words = self._fields.of(sent)
        kernels.signs(scales, words, x, x.view(np.uint32), self._segments)

    def decode(self, y: Array, sent: Array, start: int) -> None:
        scales, words = self._fields.of(sent)
        kernels.signed(y, scales, words, self._segments, start)
