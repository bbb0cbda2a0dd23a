"""The loss scale: what the loss is multiplied by on its way back, so that small gradients are not
lost in numbers of few exponents, as those of float16.

It is a power of two, which changes no bit but where numbers overflow or underflow. Gradients are
divided by it before anybody sees them but layers: penalties, transforms, limits of norm and value,
the optimizer and instruments get them as they are without it.
"""

import math
from typing import Any, NamedTuple, Self

from ddbp.optim.clipping import NotFiniteError
from ddbp.snapshot import Entry, Schema, State, integer
from layers.checks import positive_int
from layers.errors import message

_FIX = "Write LossScale(initial=65536.0, interval=2000)."
_MOST = 2.0**24
"""Its reciprocal, and gradients of a size of 1 times it, are far from the bounds of float32."""


class _Numbers(NamedTuple):
    initial: float
    interval: int


class LossScale(_Numbers):
    """How the loss is scaled: see `Trainer(loss_scale=…)`.

    The scale is halved where a gradient overflows on any rank, whose step is left out on all: no
    update is made, and no step is counted by trainer, optimizer and schedule. It is doubled, up to
    2^24, after `interval` updates without (Micikevicius et al. 2018, section 3.2).

    Attributes
    ----------
    initial
        The scale of the first step, a power of two from 1 to 2^24.
    interval
        Updates without overflow after which it is doubled.

    Raises
    ------
    ValueError
        A number is out of range.
    """

    __slots__ = ()

    def __new__(cls, initial: float = 2.0**16, interval: int = 2000) -> Self:
        if not _is_scale(initial):
            must = "initial must be a power of two from 1 to 2^24"
            raise ValueError(message("LossScale", must, repr(initial), _FIX))
        interval = positive_int("LossScale", "interval", interval, _FIX)
        return super().__new__(cls, float(initial), interval)


def checked(given: Any, precision: str) -> LossScale | None:
    """Return how the loss is scaled, None if it is not; without a choice it is for float16.

    Raises
    ------
    ValueError
        It is no `LossScale`, or one out of range.
    """
    if given is None:
        return LossScale() if precision == "float16" else None
    # A configuration that was read has it as a list.
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(message("Trainer", "loss_scale must be a LossScale", repr(given), _FIX))
    return LossScale(*given)


def _is_scale(given: Any) -> bool:
    return type(given) in (int, float) and 1 <= given <= _MOST and math.frexp(given)[0] == 0.5


_SCALE = Entry("a power of two from 1 to 2^24", _is_scale)


class GradientOverflowError(NotFiniteError):
    """A gradient has overflowed at a loss scale that can be lowered."""


class LossScaling:
    """The loss scale of a run, the same on all ranks.

    Parameters
    ----------
    given
        How the loss is scaled, None if it is not.

    Attributes
    ----------
    on
        Whether the loss is scaled.
    value
        The scale.
    overflows
        How many steps were left out so far because a gradient overflowed.
    """

    def __init__(self, given: LossScale | None) -> None:
        self.on = given is not None
        self._interval = given.interval if given else 0
        self._begin(given.initial if given else 1.0)

    def _begin(self, value: float) -> None:
        self.value = value
        self.overflows = 0
        self._updates = 0

    @property
    def may_fall(self) -> bool:
        """Whether a lower scale can help where a gradient overflows. Without any, it cannot."""
        return self.value > 1

    def overflow(self, step: int) -> GradientOverflowError:
        """Return the error of an overflow at this scale."""
        fix = "The step is left out, and the scale halved."
        got = f"NaN or inf in step {step} at a loss scale of {self.value:g}"
        return GradientOverflowError(message("Trainer", "the gradient must be finite", got, fix))

    def succeed(self) -> None:
        """Count an update."""
        if not self.on:
            return
        self._updates += 1
        if self._updates >= self._interval:
            self._updates = 0
            self.value = min(2 * self.value, _MOST)

    def fall(self) -> None:
        """Halve the scale, for a step that is left out."""
        self._updates = 0
        self.overflows += 1
        self.value /= 2

    def record(self) -> dict[str, float]:
        """Return the scale for a record, if there is one, and how many steps were left out."""
        return {"loss_scale": self.value, "overflows": self.overflows} if self.on else {}

    def state(self) -> dict[str, Any]:
        """Return the scale and the counts."""
        return {"value": self.value, "overflows": self.overflows, "updates": self._updates}

    def state_schema(self, state: State) -> Schema:
        """Return what `load_state` takes: nothing of a run whose loss was not scaled."""
        schema = {"value": _SCALE, "overflows": integer(0), "updates": integer(0)}
        return schema if state else {}

    def load_state(self, state: State) -> None:
        """Go on from what `state` returned."""
        if state:
            self._begin(state["value"])
            self.overflows, self._updates = state["overflows"], state["updates"]
