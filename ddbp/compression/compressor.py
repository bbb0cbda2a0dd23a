"""What a compressor is: a method, and what it becomes for the parameters of one model."""

from collections.abc import Sequence
from typing import Any, Protocol

from layers import FlatParameters
from layers.kernels.machine import CACHE_LINE
from layers.types import Array


class Codec(Protocol):
    """A compressor for the flat gradient (n,), float32, of one model.

    Attributes
    ----------
    nbytes
        The bytes of a message, always as many.
    remembers
        Whether `encode` begins from the message of the step before.
    """

    nbytes: int
    remembers: bool

    def begin(self, sent: Array) -> None:
        """Write what counts as the message of the step before the first."""

    def encode(self, sent: Array, x: Array, before: Array) -> None:
        """Write the message (nbytes,) uint8 of a gradient; `before` is that of the step before if
        it `remembers`. NaN and infinity must be infinite or NaN again when they are decoded.
        """

    def decode(self, y: Array, sent: Array, start: int) -> None:
        """Write elements `start`.. of the gradient that a message stands for, y (m,): the same bits
        for the same elements, whatever part they are asked for in.
        """


class Compressor(Protocol):
    """A method of compression: an object of constants, whose `repr` shows them all."""

    def codec(self, flat: FlatParameters) -> Codec:
        """Return it for the parameters of a model.

        Raises
        ------
        ValueError
            They do not go with its constants.
        """


class Fields:
    """The arrays of a message, one after the other, each at a cache line.

    Parameters
    ----------
    fields
        Shape and type of each.

    Attributes
    ----------
    nbytes
        The bytes that they take.
    """

    def __init__(self, fields: Sequence[tuple[tuple[int, ...], Any]]) -> None:
        self._views: list[tuple[slice, Any, tuple[int, ...]]] = []
        self.nbytes = 0
        for shape, dtype in fields:
            size = dtype().itemsize
            for length in shape:
                size *= length
            place = slice(self.nbytes, self.nbytes + size)
            self._views.append((place, dtype, shape))
            self.nbytes += -(-size // CACHE_LINE) * CACHE_LINE

    def of(self, sent: Array) -> list[Array]:
        """Return the arrays of a message (nbytes,) uint8."""
        return [sent[place].view(dtype).reshape(shape) for place, dtype, shape in self._views]
