"""What gradients look like on their way between hosts: as they are, or in half the bytes.

A `Wire` is also where other compression of gradients belongs. Inside a host nothing is sent, so
nothing is rounded; parameters are always published as they are.
"""

from typing import Any, Protocol

import numpy as np

from layers.errors import message
from layers.kernels import half
from layers.types import Array


class Wire(Protocol):
    """A format of gradients between hosts.

    Of a bucket and a receiver `sent` is the same array in every step: a format that adds what it
    has left out to the next gradients (error feedback) finds it by that array's identity. Gradients
    are parts of the flat array, sent once: methods that need whole matrices or several rounds
    (PowerSGD) do not fit.
    """

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return memory for what is sent of an array of gradients."""

    def encode(self, sent: Array, gradients: Array) -> None:
        """Write what is sent, given gradients of one type; sent is from `buffer`."""

    def decode(self, gradients: Array, sent: Array) -> None:
        """Write the gradients, given what was sent."""


class Float16:
    """IEEE half precision: 11 bits, from 6e-8 to 65504; what is larger becomes infinite, which is
    found before the update.
    """

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.empty(shape, np.uint16)

    def encode(self, sent: Array, gradients: Array) -> None:
        with np.errstate(over="ignore"):
            sent.view(np.float16)[...] = gradients

    def decode(self, gradients: Array, sent: Array) -> None:
        gradients[...] = sent.view(np.float16)


class BFloat16:
    """The upper half of a float32: 8 bits, in its whole range; rounded to nearest, ties to even."""

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.empty(shape, np.uint16)

    def encode(self, sent: Array, gradients: Array) -> None:
        half.to_bfloat16(
            sent.reshape(-1), gradients.astype(np.float32, copy=False).reshape(-1).view(np.uint32)
        )

    def decode(self, gradients: Array, sent: Array) -> None:
        gradients[...] = (sent.astype(np.uint32) << 16).view(np.float32)


WIRES: dict[str, type[Any]] = {"float16": Float16, "bfloat16": BFloat16}


def chosen(name: str | Wire | None) -> Wire | None:
    """Return the format of that name, a format of the user's own as it is, or None for gradients as
    they are.
    """
    if isinstance(name, str):
        if name not in WIRES:
            fix = (
                "Leave it out to send gradients as they are, or pass an object with buffer, encode"
                " and decode."
            )
            raise ValueError(
                message("Trainer", f"wire must be one of {', '.join(WIRES)}", repr(name), fix)
            )
        wire: Wire = WIRES[name]()
        return wire
    return name
