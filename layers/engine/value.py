"""The handle of an array while recording."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import numbers
from layers.errors import message
from layers.kernels import half
from layers.types import Array

from . import sample_axes, shares
from .batch_sum import BatchSum
from .operators import Arithmetic
from .rules import Rule

if TYPE_CHECKING:
    from .call import Call
    from .tape import Tape


_ONE = {np.dtype(dtype): np.ones((), dtype) for dtype in (np.float32, np.float64)}
"""The gradient that backward starts from; read-only, as it is shared."""
for _one in _ONE.values():
    _one.flags.writeable = False
_GONE = np.full(16, 0xFF, np.uint8)
"""The one element of an array that has been let go of."""


class Value(Arithmetic):
    """The handle of an array while recording. Operators and functions on it are recorded too.

    Attributes
    ----------
    array
        The array itself. It is valid until the tape's workspace is used by the next step.
    """

    __slots__ = ("_giver", "_gradient", "_kept", "array", "call", "place", "tape", "wants", "words")

    def __init__(self, tape: "Tape", array: Array, call: "Call | None", wants: bool) -> None:
        self.tape = tape
        self.array = array
        self.call = call
        self.wants = wants
        self._kept = False
        self._gradient: Array | None = None
        self._giver: Call | None = None
        self.words: Array | None = None
        """What it is kept in by calls whose backward needs it: see `Call.keep`."""
        self.place: sample_axes.Place | None = None
        """On which axis samples lie, once that is known: see `sample_axes.of`."""

    @property
    def batch_sum(self) -> BatchSum | None:
        """What this is the mean of over the batch, if it is a loss, a mean over the axis of the
        batch, or made of such by adding and multiplying by numbers; else None.
        """
        return shares.of(self)

    @property
    def known_share(self) -> BatchSum | None:
        """What this is known to be the mean of, without a look at the calls that it came from."""
        return None

    @property
    def shard_sums(self) -> Array | None:
        """The sums over the samples of each shard (S,), before division, if this is a loss."""
        found = shares.of(self)
        return None if found is None else found.sums

    @property
    def divisor(self) -> float | None:
        """What a loss is divided by: the sum of weights over the global batch, or None if it is a
        mean over the samples.
        """
        found = shares.of(self)
        return None if found is None else found.divisor

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The array alone: what `Outputs` has several of."""
        return (self.array,)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.array.shape

    @property
    def dtype(self) -> Any:
        """The array's type."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """The number of the array's axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """The number of the array's elements."""
        return self.array.size

    @property
    def grad(self) -> Array | None:
        """The gradient, after `backward`, of an input or of a value on which `keep_grad` was
        called; None if backward did not reach it.

        Raises
        ------
        ValueError
            Nothing asked for a gradient of this value.
        """
        if not self.wants:
            fix = "Use tape.input(x, gradient=True) on a floating array."
            raise ValueError(
                message(
                    "Value",
                    "only a value that takes part in differentiation has a gradient",
                    "a constant",
                    fix,
                )
            )
        if not self._kept:
            fix = "Call value.keep_grad() before backward."
            raise ValueError(
                message(
                    "Value", "only inputs keep their gradient unasked", "an intermediate value", fix
                )
            )
        return self._gradient

    def keep_grad(self) -> "Value":
        """Keep the gradient of this intermediate value in `grad`; return the value."""
        if not self._kept:
            self._kept = True
            self.tape.kept.append(self)
        return self

    def detach(self) -> "Value":
        """Return a value with the same array through which nothing is differentiated."""
        value = Value(self.tape, self.array, None, wants=False)
        value.place = sample_axes.of(self) if self.tape.moved else None
        return value

    def item(self) -> float:
        """Return the only element as a Python float."""
        return float(self.array.item())

    def __float__(self) -> float:
        return self.item()

    def __format__(self, how: str) -> str:
        return format(self.item(), how) if how else repr(self)

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator["Value"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Value({self.array!r})"

    def backward(self, gradient: Any = None, *, rule: Rule | None = None) -> None:
        """Propagate from this value to all inputs and parameters; gradients of parameters
        accumulate.

        Parameters
        ----------
        gradient
            The gradient of this value, same shape; 1 unless said, which a value of one element
            allows.
        rule
            What to propagate instead of the exact gradient.

        Raises
        ------
        ValueError
            The value has several elements and no gradient is given, or nothing in it can be
            differentiated.
        """
        if gradient is None:
            if self.array.size != 1:
                fix = "Reduce it with .sum() or .mean(), or pass gradient=."
                raise ValueError(
                    message(
                        "Value.backward",
                        "the value must have one element",
                        f"shape {self.shape}",
                        fix,
                    )
                )
            gradient = _ONE.get(self.array.dtype) if self.array.ndim == 0 else None
            if gradient is None:
                gradient = np.ones(self.array.shape, self.array.dtype)
        else:
            gradient = numbers("Value.backward", "gradient", gradient, self.dtype)
            if gradient.shape != self.shape:
                raise ValueError(
                    message(
                        "Value.backward",
                        f"the gradient must have the shape of the value, {self.shape}",
                        gradient.shape,
                        "Reshape it.",
                    )
                )
            replay = self.tape.workspace.replay
            gradient = gradient if replay is None else replay.start(gradient)
        given: Any = rule
        if given is not None and not isinstance(given, Rule):
            fix = "Derive from layers.Rule, and make one."
            raise TypeError(
                message("Value.backward", "rule must be a layers.Rule", repr(rule), fix)
            )
        self.tape.backward(self, gradient, rule)

    # What a tape and its calls do while backward is on its way.

    def receive(self, dx: Array, giver: "Call | None" = None, index: int = 0) -> None:
        """Add a contribution to the gradient: what backward of `giver` has returned for its input
        `index`, or, without a giver, what backward starts from.
        """
        held = self._gradient
        if held is None:
            self._gradient = dx
            self._giver = giver
            return
        assert giver is not None
        if self._giver is not None and self._giver.owns(held):
            # Nobody else holds the array.
            giver.run(np.add, held, dx, held)
            return
        total = giver.pooled(f"sum {index}", dx.shape, dx.dtype)
        giver.run(np.add, held, dx, total)
        self._gradient = total
        self._giver = giver

    def hand_on(self) -> Array | None:
        """Return the gradient for backward of the call that gave this value, None if nothing has
        reached it; it is forgotten here, unless somebody asked to keep it.
        """
        dy = self._gradient
        if not self._kept:
            self._gradient = None
        return dy

    @property
    def received(self) -> Array | None:
        """What it has received so far in a backward pass, if anything."""
        return self._gradient

    def take(self) -> Array | None:
        """Return what it has received so far, if anything, and forget that."""
        held = self._gradient
        self._gradient = None
        return held

    def begin_for(self, other: "Value") -> None:
        """Go on from what a value of the tape around, for which it stands, has received so far, if
        anything: contributions are added to that one by one.
        """
        if other._gradient is not None:
            self._gradient, self._giver = other.take(), other._giver

    def end_for(self, call: "Call", index: int) -> Array | None:
        """Return what it has received, if anything, and forget that: input `index` of a call on the
        tape around, for which it has stood, is given it, in memory that outlives this tape.
        """
        dx, giver = self.take(), self._giver
        if dx is None or giver is None:
            return dx
        if giver.tape is self.tape and not self.tape.workspace.is_pooled(dx):
            result = call.pooled(f"dx{index}", dx.shape, dx.dtype)
            np.copyto(result, dx)
            return result
        if giver.owns(dx):
            call.own(dx)
        return dx

    def clear(self) -> None:
        """Forget what it has received."""
        self._gradient = None

    def let_go(self) -> None:
        """Let go of the numbers; shape and dtype stay, and NaN everywhere."""
        self.array = np.ndarray(self.shape, self.dtype, _GONE, strides=(0,) * self.ndim)

    @property
    def remembered(self) -> tuple[Array, ...]:
        """The array; where it has been let go of, the numbers of its words; nothing if none are
        kept.
        """
        if self.array.base is not _GONE:
            return (self.array,)
        if self.words is None:
            return ()
        numbers = np.empty(self.shape, self.dtype)
        half.widen(numbers.reshape(-1), self.words)
        return (numbers,)

    def own_gradient(self) -> None:
        """Let nothing else refer to a gradient that is kept: the user may write to it."""
        gradient = self._gradient
        if gradient is not None and (
            not gradient.flags.writeable or self.tape.workspace.is_pooled(gradient)
        ):
            # A view of what backward started from, or memory that the next step wants again.
            self._gradient = gradient.copy()


class Outputs:
    """The values that one call gave; it stands for them where a tape walks over its calls."""

    __slots__ = ("values",)

    def __init__(self, values: tuple[Value, ...]) -> None:
        self.values = values

    def hand_on(self) -> tuple[Array | None, ...] | None:
        """Return what the values hand on, or None if nothing has reached any."""
        dys = tuple([value.hand_on() for value in self.values])
        return None if all(dy is None for dy in dys) else dys

    @property
    def received(self) -> tuple[Array | None, ...] | None:
        """What the values have received so far in a backward pass, None if none has."""
        dys = tuple([value.received for value in self.values])
        return None if all(dy is None for dy in dys) else dys

    def clear(self) -> None:
        """Forget what they have received."""
        for value in self.values:
            value.clear()

    @property
    def arrays(self) -> tuple[Array, ...]:
        return tuple(value.array for value in self.values)

    @property
    def remembered(self) -> tuple[Array, ...]:
        """Those of the values."""
        return tuple(array for value in self.values for array in value.remembered)
