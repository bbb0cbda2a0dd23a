"""Moments in 8 bits an element: what is refused, and what their codes are rounded by.

How they are stored: `layers.kernels.packed` and `layers.kernels.llvm.simd_packed`.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from layers.errors import message

if TYPE_CHECKING:
    from .optimizer import Optimizer

Made = ParamSpec("Made")

_GOLDEN = 0.6180339887498949
"""(√5 - 1) / 2, whose multiples, but for their integers, are spread most evenly."""


def checked_bits(kind: "type[Optimizer]", bits: Any) -> int | None:
    """Return how many bits an element of a moment takes in optimizers of a kind: 8, or None for
    those of the parameters.

    Raises
    ------
    ValueError
        It is neither, or the optimizer does not update by blocks.
    """
    if bits is None:
        return None
    owner, fix = kind.__name__, "Write state_bits=8, or leave it out."
    if type(bits) is not int or bits != 8:
        raise ValueError(message(owner, "state_bits must be 8 or None", repr(bits), fix))
    if not kind.blockwise:
        must = "an update must do all by one `apply`, and its class say so, for state_bits=8"
        raise ValueError(message(owner, must, "blockwise = False", fix))
    return bits


def no_state_bits(why: str) -> Callable[[Callable[Made, None]], Callable[Made, None]]:
    """Have the `__init__` of an optimizer refuse `state_bits`, which it does not have, and say
    why.
    """

    def decorate(make: Callable[Made, None]) -> Callable[Made, None]:
        @functools.wraps(make)
        def refusing(*arguments: Made.args, **options: Made.kwargs) -> None:
            if "state_bits" in options:
                owner = type(arguments[0]).__name__
                must, got = f"state_bits must be left out, as {why}", options["state_bits"]
                fix = "Leave it out, or take Adam(1e-3, state_bits=8)."
                raise ValueError(message(owner, must, repr(got), fix))
            make(*arguments, **options)

        return refusing

    return decorate


def code_type(optimizer: "Optimizer", slot: str) -> str | None:
    """Return the type of the codes of a moment, or None for that of the parameters."""
    if optimizer.state_bits is None:
        return None
    return "uint8" if slot in optimizer.positive else "int8"


def dither(steps: int) -> float:
    """Return what the codes of a step are rounded by, in [0, 1)."""
    return steps * _GOLDEN % 1.0
