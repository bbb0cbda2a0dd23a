"""State: arrays of a layer that training changes without a gradient, such as running statistics."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.errors import message
from layers.types import Array

if TYPE_CHECKING:
    from .layer import Layer


class State:
    """An array that a layer owns and that training changes, but no optimizer.

    It is broadcast, saved and loaded with the parameters. Change it in the function that you pass
    to `call.on_gathered`, which is called once per step with what all shards of the global batch
    have to say: then it is the same on all ranks.

    Parameters
    ----------
    value
        The initial value; it is copied.
    """

    __slots__ = ("value",)
    value: Array
    """The array itself; assigning copies into it."""

    def __init__(self, value: Any) -> None:
        object.__setattr__(self, "value", np.array(value))

    def __repr__(self) -> str:
        return f"State(shape={self.shape}, dtype={self.dtype})"

    def __setattr__(self, name: str, new: Any) -> None:
        new = np.asarray(new)
        if new.shape != self.shape:
            raise ValueError(
                message(
                    "State", f"a new value must have shape {self.shape}", new.shape, "Reshape it."
                )
            )
        self.value[...] = new

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        object.__setattr__(self, "value", state[1]["value"])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """The type of the value."""
        return self.value.dtype

    def cast(self, dtype: Any) -> None:
        """Change the type in place, if it is a floating one."""
        if self.dtype.kind in "fc":
            object.__setattr__(self, "value", self.value.astype(dtype))


def unique_states(model: "Layer") -> list[tuple[str, State]]:
    """Return (dotted name, state) of every state once, shared ones under their first name."""
    first: dict[int, tuple[str, State]] = {}
    for name, state in model.named_states():
        first.setdefault(id(state), (name, state))
    return list(first.values())
