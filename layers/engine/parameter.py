"""Parameters: what training changes, with a gradient for each shard."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from layers.errors import message
from layers.types import Array

from .fixed_tree import tree_total
from .partial_sums import PartialSums

if TYPE_CHECKING:
    from .layer import Layer


Allocator = Callable[[tuple[int, ...], Any], Array]
"""Returns a zeroed array of the given shape and dtype; the caller decides what memory it lies
in.
"""


class Parameter:
    """An array that training changes, with one gradient per shard.

    Parameters
    ----------
    value
        The initial value, of a floating type; it is copied.
    regularized
        Whether L1 and L2 terms and weight decay apply to it (weights yes, biases and normalisation
        gains no).

    Attributes
    ----------
    gradients
        Gradients of the shards, shape (S, \\*shape), or None before the first backward pass.
        Gradients accumulate.
    partial
        The partial sums that replace them once they are complete, or None if they are kept.
    stale
        True while the contents of `gradients` count as zero: set by zeroing, cleared by the first
        contribution. So zeroing costs nothing, and the first contribution may overwrite.

    Notes
    -----
    A copy (`copy.deepcopy`, `pickle`) has the value, and no gradients.
    """

    __slots__ = ("_value", "gradients", "partial", "regularized", "stale")

    moves: ClassVar[int] = 0
    """How often any parameter has taken other memory, so that it is cheap to see that none has."""

    def __init__(self, value: Any, *, regularized: bool = True) -> None:
        value = np.array(value)
        if not np.issubdtype(value.dtype, np.inexact):
            fix = "Convert it with .astype(np.float32)."
            raise TypeError(
                message("Parameter", "the value must be of a floating type", value.dtype, fix)
            )
        self._value: Array = value
        self.gradients: Array | None = None
        self.partial: PartialSums | None = None
        self.regularized = regularized
        self.stale = True

    def __getstate__(self) -> Any:
        return None, {
            "_value": self._value,
            "gradients": None,
            "partial": None,
            "regularized": self.regularized,
            "stale": True,
        }

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"

    @property
    def value(self) -> Array:
        """The array itself; assigning copies into it, so that flat memory stays connected."""
        return self._value

    @value.setter
    def value(self, new: Any) -> None:
        new = np.asarray(new)
        if new.shape != self.shape:
            must = f"a new value must have shape {self.shape}"
            raise ValueError(message("Parameter", must, new.shape, "Reshape or transpose it."))
        self._value[...] = new

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self._value.shape

    @property
    def dtype(self) -> Any:
        """The type of the value."""
        return self._value.dtype

    @property
    def size(self) -> int:
        """The number of its elements."""
        return self._value.size

    @property
    def gradient(self) -> Array:
        """The gradient of the whole local batch, summed over the shards by the fixed tree; zeros
        before any contribution.
        """
        if self.stale:
            return np.zeros_like(self.value)
        if self.gradients is None:
            assert self.partial is not None
            return self.partial.total().reshape(self.shape)
        if len(self.gradients) == 1:
            result: Array = self.gradients[0]
            return result
        return tree_total(self.gradients, np.ones(len(self.gradients), np.int64))

    def zero_gradient(self) -> None:
        """Forget the gradient: the next contribution is the first."""
        self.stale = True

    def shard_gradients(self, shards: int) -> Array:
        """Return the gradients of `shards` shards, allocating them on first use."""
        partial = self.partial
        held = shards if self.gradients is None else len(self.gradients)
        if partial is not None:
            held = partial.shards
        if held != shards:
            fix = f"Lay the parameters out with FlatParameters(model, shards={shards})."
            raise ValueError(
                message("Tape", f"the parameters must hold {shards} shard gradients", held, fix)
            )
        if self.gradients is None and partial is not None:
            if not self.stale:
                must = "a gradient whose shards have been added up must not be added to"
                raise ValueError(
                    message("Tape", must, "another backward pass", "Zero the gradients first.")
                )
            self.gradients = partial.room(self.shape)
        elif self.gradients is None:
            self.gradients = np.zeros((shards, *self.shape), self.dtype)
        return self.gradients

    def complete(self) -> bool:
        """Make the gradient final, partial sums where these are kept, zeros without contributions;
        return if there were any.
        """
        contributed = not self.stale
        self.stale = False
        if self.partial is not None:
            if not contributed:
                self.partial.sums[...] = 0
            elif self.gradients is not None:
                self.partial.add_up(self.gradients)
            self.gradients = None
        elif not contributed:
            assert self.gradients is not None
            self.gradients[...] = 0
        return contributed

    def bind(
        self, value: Array, gradients: Array | None, partial: PartialSums | None = None
    ) -> None:
        """Move the value into the given memory `value` (\\*shape), and keep gradients in
        `gradients` (S, \\*shape), or as sums.
        """
        value[...] = self.value
        self.rebind(value, gradients, partial=partial)

    def rebind(
        self,
        value: Array,
        gradients: Array | None,
        stale: bool = True,
        partial: PartialSums | None = None,
    ) -> None:
        """Take these, with what they hold, as value and gradients."""
        self._value = value
        self.gradients = gradients
        self.partial = partial
        self.stale = stale
        Parameter.moves += 1

    def cast(self, dtype: Any) -> None:
        """Change the type in place; gradients are dropped."""
        self.rebind(self._value.astype(dtype), None)


def unique_parameters(model: "Layer") -> list[tuple[str, Parameter]]:
    """Return (dotted name, parameter) of every parameter once, shared ones under their first
    name.
    """
    seen: set[int] = set()
    result = []
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            result.append((name, parameter))
    return result
