"""Parameters, and the flat memory that a model's parameters and gradients live in."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .errors import message
from .memory import LINE, zeros
from .partial_sums import PartialSums, ShardMemory, tree_total
from .types import Array

if TYPE_CHECKING:
    from .layer import Layer

Allocator = Callable[[tuple[int, ...], Any], Array]
"""Returns a zeroed array of the given shape and dtype; the caller decides what memory it lies in."""


class Parameter:
    """An array that training changes, with one gradient per shard.

    Parameters
    ----------
    value
        The initial value, of a floating type; it is copied.
    regularized
        Whether L1 and L2 terms and weight decay apply to it (weights yes, biases and normalisation gains no).

    Attributes
    ----------
    gradients
        Gradients of the shards, shape (S, \\*shape), or None before the first backward pass. Gradients accumulate.
    partial
        The partial sums that replace them once they are complete, or None if they are kept.
    stale
        True while the contents of `gradients` count as zero: set by zeroing, cleared by the first contribution. So zeroing
        costs nothing, and the first contribution may overwrite.

    A copy (`copy.deepcopy`, `pickle`) has the value, and no gradients.
    """

    __slots__ = ("_value", "gradients", "partial", "regularized", "stale")

    moves: ClassVar[int] = 0
    """How often any parameter has taken other memory, so that it is cheap to see that none has."""

    def __init__(self, value: Any, *, regularized: bool = True) -> None:
        value = np.array(value)
        if not np.issubdtype(value.dtype, np.inexact):
            fix = "Convert it with .astype(np.float32)."
            raise TypeError(message("Parameter", "the value must be of a floating type", value.dtype, fix))
        self._value: Array = value
        self.gradients: Array | None = None
        self.partial: PartialSums | None = None
        self.regularized = regularized
        self.stale = True

    def __getstate__(self) -> Any:
        return None, {"_value": self._value, "gradients": None, "partial": None, "regularized": self.regularized, "stale": True}

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
        return self._value.shape

    @property
    def dtype(self) -> Any:
        return self._value.dtype

    @property
    def size(self) -> int:
        return self._value.size

    @property
    def gradient(self) -> Array:
        """The gradient of the whole local batch, summed over the shards by the fixed tree; zeros before any contribution."""
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
        self.stale = True

    def shard_gradients(self, shards: int) -> Array:
        """Return the gradients of `shards` shards, allocating them on first use."""
        partial = self.partial
        held = shards if self.gradients is None else len(self.gradients)
        if partial is not None:
            held = partial.shards
        if held != shards:
            fix = f"Lay the parameters out with FlatParameters(model, shards={shards})."
            raise ValueError(message("Tape", f"the parameters must hold {shards} shard gradients", held, fix))
        if self.gradients is None and partial is not None:
            if not self.stale:
                must = "a gradient whose shards have been added up must not be added to"
                raise ValueError(message("Tape", must, "another backward pass", "Zero the gradients first."))
            self.gradients = partial.room(self.shape)
        elif self.gradients is None:
            self.gradients = np.zeros((shards, *self.shape), self.dtype)
        return self.gradients

    def complete(self) -> bool:
        """Make the gradient final, partial sums where these are kept, zeros without contributions; return if there were any."""
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

    def bind(self, value: Array, gradients: Array | None, partial: PartialSums | None = None) -> None:
        """Move the value into the given memory `value` (\\*shape), and keep gradients in `gradients` (S, \\*shape), or as sums."""
        value[...] = self.value
        self.rebind(value, gradients, partial=partial)

    def rebind(self, value: Array, gradients: Array | None, stale: bool = True, partial: PartialSums | None = None) -> None:
        """Take these, with what they hold, as value and gradients."""
        self._value = value
        self.gradients = gradients
        self.partial = partial
        self.stale = stale
        Parameter.moves += 1

    def cast(self, dtype: Any) -> None:
        """Change the type in place; gradients are dropped."""
        self.rebind(self._value.astype(dtype), None)


class FlatParameters:
    """All parameters of a model as views into one flat array, their gradients as views into another.

    Parameters
    ----------
    model
        Its parameters are moved: `Parameter.value` afterwards is a view.
    shards
        How many shard gradients to hold, S; or the sizes of P groups of neighbouring shards, powers of two, of whose gradients only
        the sums are held once `complete` is called: nodes of the fixed tree over the shards.
    allocate, allocate_gradients
        Where the memory of values and of gradients comes from; that of this process unless said.

    Attributes
    ----------
    values, gradients
        The flat arrays, shapes (n,) and (S, n) or (P, n). Each parameter begins at a multiple of 64 bytes; the gaps hold zeros.
    names, parameters, starts
        Of each parameter its dotted name, itself, and its first index in the flat arrays.

    Raises
    ------
    ValueError
        The model has no parameters, or they are of several dtypes.
    """

    def __init__(
        self,
        model: "Layer",
        shards: int | Sequence[int] = 1,
        allocate: Allocator = zeros,
        allocate_gradients: Allocator | None = None,
    ) -> None:
        sizes = [1] * shards if isinstance(shards, int) else list(shards)
        named = unique_parameters(model)
        if not named:
            raise ValueError(message("FlatParameters", "the model must have parameters", model, "Add a layer such as Linear."))
        dtypes = {str(parameter.dtype) for _, parameter in named}
        if len(dtypes) > 1:
            fix = "Convert it with model.astype(np.float32)."
            raise ValueError(message("FlatParameters", "all parameters must have one dtype", sorted(dtypes), fix))
        self.names: list[str] = [name for name, _ in named]
        self.parameters: list[Parameter] = [parameter for _, parameter in named]
        self.dtype = self.parameters[0].dtype
        step = LINE // self.dtype.itemsize
        self.starts: list[int] = []
        end = 0
        for parameter in self.parameters:
            self.starts.append(end)
            end += -(-parameter.size // step) * step
        self.values: Array = allocate((end,), self.dtype)
        self.gradients: Array = (allocate_gradients or allocate)((len(sizes), end), self.dtype)
        memory, apart = ShardMemory(self.dtype), max(sizes) == 1
        for parameter, start in zip(self.parameters, self.starts, strict=True):
            stop = start + parameter.size
            value, rows = self.values[start:stop].reshape(parameter.shape), self.gradients[:, start:stop]
            if apart:
                parameter.bind(value, rows.reshape(len(sizes), *parameter.shape))
            else:
                parameter.bind(value, None, PartialSums(rows, sizes, memory))
        self._values = [parameter.value for parameter in self.parameters]
        self._moves = Parameter.moves

    def require_bound(self, owner: str) -> None:
        """Refuse parameters that lie elsewhere by now, in the name of `owner`.

        Raises
        ------
        RuntimeError
            They were moved by another `FlatParameters`, or by a change of type.
        """
        if self._moves == Parameter.moves:
            return
        for name, parameter, value in zip(self.names, self.parameters, self._values, strict=True):
            if parameter.value is not value:
                fix = "Make the trainer after model.astype, and go on with the last one that was made for the model."
                got = f"{name} moved, by another trainer of it or a change of type"
                raise RuntimeError(message(owner, "the parameters must stay in the memory that it has put them in", got, fix))
        self._moves = Parameter.moves

    def zero_gradients(self) -> None:
        """Mark every gradient as zero; no memory is touched."""
        for parameter in self.parameters:
            parameter.stale = True

    def complete(self) -> list[str]:
        """Make all gradients final, zeros for parameters that got no contribution; return the names of these."""
        return [name for name, parameter in zip(self.names, self.parameters, strict=True) if not parameter.complete()]

    def segments(self) -> Sequence[tuple[str, Parameter, int, int]]:
        """Return name, parameter, start and stop (without the gap after it) of each parameter in flat memory."""
        stops = [start + parameter.size for start, parameter in zip(self.starts, self.parameters, strict=True)]
        return list(zip(self.names, self.parameters, self.starts, stops, strict=True))


def unique_parameters(model: "Layer") -> list[tuple[str, Parameter]]:
    """Return (dotted name, parameter) of every parameter once, shared ones under their first name."""
    seen: set[int] = set()
    result = []
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            result.append((name, parameter))
    return result
