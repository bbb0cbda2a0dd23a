"""What parameters and states have in common: an array that stays where it is."""

from typing import Any

import numpy as np

from layers.checks import array
from layers.errors import message
from layers.types import Array


class FixedArray:
    """An array of a layer whose shape and memory stay, whatever is assigned to it.

    Attributes
    ----------
    value
        The array itself; assigning copies into it, so that whoever else has it sees the change.
    """

    # `value` is a slot, not a property: it is read in every call of a layer.
    __slots__ = ("value",)
    value: Array

    def __setattr__(self, name: str, new: Any) -> None:
        if name != "value":
            object.__setattr__(self, name, new)
            return
        if new.__class__ is not np.ndarray:
            new = array(type(self).__name__, "value", new)
        if new.dtype.kind not in "fiub":
            must, fix = "a new value must be of numbers", f"Convert it to {self.dtype}."
            raise TypeError(message(type(self).__name__, must, f"an array of {new.dtype}", fix))
        if new.shape != self.shape:
            must, fix = f"a new value must have shape {self.shape}", "Reshape or transpose it."
            raise ValueError(message(type(self).__name__, must, new.shape, fix))
        self.value[...] = new

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, attribute in state[1].items():
            object.__setattr__(self, name, attribute)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """The type of its elements."""
        return self.value.dtype

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.value.size

    def replace(self, value: Array) -> None:
        """Take another array as value, with what it holds."""
        object.__setattr__(self, "value", value)
