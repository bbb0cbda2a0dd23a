"""State: arrays of a layer that training changes without a gradient, such as running statistics."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import array, require_model_type
from layers.errors import message

from .fixed_array import FixedArray

if TYPE_CHECKING:
    from .module import Module


class State(FixedArray):
    """An array that a layer owns and that training changes, but no optimizer.

    It is broadcast, saved and loaded with the parameters. Change it in the function that you pass
    to `call.on_gathered`, which is called once per step with what all shards of the global batch
    have to say: then it is the same on all ranks.

    Parameters
    ----------
    value
        The initial value; it is copied.
    """

    __slots__ = ()

    def __init__(self, value: Any) -> None:
        value = np.array(array("State", "value", value), order="C")
        if value.dtype.kind not in "fiub":
            must, fix = (
                "a state must be an array of numbers",
                "Convert it with .astype(np.float32).",
            )
            raise TypeError(message("State", must, f"an array of {value.dtype}", fix))
        self.replace(value)

    def cast(self, dtype: Any) -> None:
        """Change the type in place, if it is a floating one."""
        if self.dtype.kind in "fc":
            self.replace(self.value.astype(require_model_type("State", dtype)))


def unique_states(model: "Module") -> list[tuple[str, State]]:
    """Return (dotted name, state) of every state once, shared ones under their first name."""
    first: dict[int, tuple[str, State]] = {}
    for name, state in model.named_states():
        first.setdefault(id(state), (name, state))
    return list(first.values())
