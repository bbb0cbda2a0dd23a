"""Compressors by name, as flags and configurations tell them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ddbp import written
from layers.errors import message

from .compressor import Compressor
from .power_sgd import PowerSGD
from .rounded import Rounded
from .sign import Sign
from .top_k import TopK


def _top_k(amount: int | float) -> TopK:
    return TopK(count=amount) if isinstance(amount, int) else TopK(amount)


COMPRESSORS: dict[str, tuple[bool, Callable[..., Compressor | Rounded]]] = {
    "top-k": (True, _top_k),
    "power-sgd": (True, PowerSGD),
    "sign": (False, Sign),
    **{name: (False, partial(Rounded, name)) for name in ("float16", "bfloat16", "int8")},
}
"""By name, whether a number belongs to it, as in "top-k:0.01", and what makes it of that."""


def chosen(given: Any) -> Compressor | Rounded | None:
    """Return the compressor of a name, an object that is one as it is, or None for none.

    Raises
    ------
    ValueError
        There is none of that name, or its number is missing or out of range.
    """
    is_one = given is None or isinstance(given, Rounded) or hasattr(given, "codec")
    if is_one and not isinstance(given, type):
        compressor: Compressor | Rounded | None = given
        return compressor
    name, colon, number = given.partition(":") if isinstance(given, str) else ("", "", "")
    takes_number, make = COMPRESSORS.get(name, (False, None))
    if make is None or takes_number != bool(colon):
        shown = [f"{each}:NUMBER" if takes else each for each, (takes, _) in COMPRESSORS.items()]
        fix = 'Write compression="top-k:0.01" or ddbp.TopK(0.01), or leave it out.'
        must = f"compression must be a compressor, or one of {', '.join(shown)}"
        raise ValueError(message("Trainer", must, repr(given), fix))
    if not takes_number:
        return make()
    try:
        amount = written.number(number)
    except ValueError as error:
        must, fix = f"{name}: must have a number", "Write top-k:0.01 or power-sgd:2."
        raise ValueError(message("Trainer", must, repr(number), fix)) from error
    return make(amount)
