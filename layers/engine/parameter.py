"""Parameters: what training changes, with a gradient for each shard."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from layers.checks import array, require_model_type
from layers.errors import Renamed, message
from layers.types import Array

from .fixed_array import FixedArray
from .gradients import Gradients

if TYPE_CHECKING:
    from .module import Module


Allocator = Callable[[tuple[int, ...], Any], Array]
"""Returns a zeroed array of the given shape and dtype; the caller decides what memory it lies
in.
"""


class Parameter(FixedArray):
    """An array that training changes, with one gradient per shard.

    Parameters
    ----------
    value
        The initial value, of a floating type; it is copied.
    regularized
        Whether L1 and L2 terms and weight decay apply to it (weights yes, biases and normalisation
        gains no).
    trainable
        Whether it is trained: see the attribute.

    Attributes
    ----------
    value
        The array itself; assigning copies into it, so that flat memory stays connected.
    store
        Where its gradients are; `gradients` and `gradient` look into it.
    trainable
        Whether gradients are computed for it. A frozen parameter (False) has none; trainers keep
        its value, and spend neither gradients nor moments nor messages on it. It may be changed
        between two steps: see `Module.freeze`.

    Notes
    -----
    A copy (`copy.deepcopy`, `pickle`) has the value, and no gradients.
    """

    __slots__ = ("regularized", "store", "trainable")

    stale = Renamed("store.stale")
    moves: ClassVar[int] = 0
    """How often any parameter has taken other memory, so that it is cheap to see that none has."""
    freezes: ClassVar[int] = 0
    """How often any parameter has been frozen or unfrozen, likewise."""
    writes: ClassVar[int] = 0
    """How often a script, or what it called, has changed the values of parameters, likewise."""

    def __init__(self, value: Any, *, regularized: bool = True, trainable: bool = True) -> None:
        value = np.array(array("Parameter", "value", value), order="C")
        require_model_type("Parameter", value.dtype)
        self.replace(value)
        self.regularized = regularized
        self.trainable = trainable
        self.store = Gradients(value.shape, value.dtype)

    def __getstate__(self) -> Any:
        return None, {
            "value": self.value,
            "regularized": self.regularized,
            "trainable": self.trainable,
            "store": Gradients(self.shape, self.dtype),
        }

    def __setattr__(self, name: str, new: Any) -> None:
        if name == "trainable":
            if not isinstance(new, bool | np.bool_):
                fix = "Write parameter.trainable = False to freeze it."
                must = "trainable must be True or False"
                raise TypeError(message("Parameter", must, repr(new), fix))
            new = bool(new)
            Parameter.freezes += 1
        elif name == "value":
            Parameter.writes += 1
        super().__setattr__(name, new)

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", trainable=False"
        return f"Parameter(shape={self.shape}, dtype={self.dtype}{frozen})"

    def trains_for(self, owner: object) -> bool:
        """Return whether a backward pass for this owner of gradients, or for None, computes its
        gradient.
        """
        return self.trainable and (owner is None or self.store.owner is owner)

    @property
    def gradients(self) -> Array | None:
        """Gradients of the shards, shape (S, \\*shape), or None before the first backward pass and
        where only partial sums are kept. They accumulate.
        """
        return self.store.apart

    @property
    def gradient(self) -> Array:
        """The gradient of the whole local batch, summed over the shards by the fixed tree; zeros
        before any contribution.
        """
        return self.store.total()

    def zero_gradient(self) -> None:
        """Let the gradients count as zero; no memory is touched."""
        self.store.stale = True

    def bind(self, value: Array, store: Gradients) -> None:
        """Move the value into the given memory `value` (\\*shape), and the gradients to `store`."""
        value[...] = self.value
        self.rebind(value, store)

    def rebind(self, value: Array, store: Gradients | None = None) -> None:
        """Take these, with what they hold, as value and gradients; there are none unless given."""
        self.replace(value)
        self.store = Gradients(value.shape, value.dtype) if store is None else store
        Parameter.moves += 1

    def cast(self, dtype: Any) -> None:
        """Change the type in place; gradients are dropped."""
        if dtype is not np.complex128:
            # That is the complex step of the gradient check.
            dtype = require_model_type("Parameter", dtype)
        self.rebind(self.value.astype(dtype))

    def forget_gradients(self) -> None:
        """Drop the gradients and their memory: the next backward pass may have another number of
        shards.
        """
        self.store = Gradients(self.shape, self.dtype)


def unique_parameters(model: "Module") -> list[tuple[str, Parameter]]:
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
