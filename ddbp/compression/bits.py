"""Numbers in 8 or 4 bits: what workers send of what they have moved by."""

from dataclasses import dataclass

import numpy as np

from layers import FlatParameters
from layers.kernels import compression as kernels
from layers.kernels.rounded_sums import BLOCK_8
from layers.types import Array

from .compressor import Compressor, Fields

BITS = (4, 8)


@dataclass(frozen=True)
class Bits(Compressor):
    """Send an integer of so many bits for each number, and a float32 for each block of 256
    neighbours that it is multiplied by: the largest magnitude there over the largest integer.

    The integers are the nearest, and what they leave out goes with the next message. So scales need
    not be powers of two as those of `Rounded`, which others add up, and are up to twice as fine.

    Parameters
    ----------
    bits
        8 or 4.
    """

    bits: int

    def codec(self, flat: FlatParameters) -> "Codes":
        return Codes(flat.values.size, self.bits)


class Codes:
    """The codec of n numbers: see `ddbp.compression.Codec`.

    Parameters
    ----------
    size
        n.
    bits
        8 or 4.

    Attributes
    ----------
    nbytes
        Of a message: the scales and the integers.
    """

    remembers = False

    def __init__(self, size: int, bits: int) -> None:
        self._most = 2 ** (bits - 1) - 1
        blocks = -(-size // BLOCK_8)
        words = (blocks, BLOCK_8 * bits // 8), np.uint8
        self._fields = Fields([((blocks,), np.float32), words])
        self.nbytes = self._fields.nbytes

    def begin(self, sent: Array) -> None:
        """See `Codec`: no message depends on the one before."""

    def encode(self, sent: Array, x: Array, before: Array) -> None:
        """Write the message (nbytes,) uint8 of numbers (n,); what is not finite makes its block
        NaN.
        """
        kernels.coded(*self._fields.of(sent), x, self._most)

    def decode(self, y: Array, sent: Array, start: int) -> None:
        """Write the numbers from `start` on that a message stands for, y (m,)."""
        kernels.of_codes(y, *self._fields.of(sent), self._most, start)
