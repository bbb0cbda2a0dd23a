"""The flat memory that a model's parameters and gradients live in."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from layers.checks import positive_int, require_room, without_room
from layers.errors import message
from layers.kernels.machine import CACHE_LINE
from layers.types import Array, Integers

from .gradients import Gradients
from .memory import zeros
from .parameter import Allocator, Parameter, unique_parameters
from .partial_sums import PartialSums, ShardMemory

if TYPE_CHECKING:
    from .module import Module


class FlatParameters:
    """All parameters of a model as views into one flat array, their gradients as views into
    another. Frozen ones follow the others, and have no gradients.

    Parameters
    ----------
    model
        Its parameters are moved: `Parameter.value` afterwards is a view.
    shards
        How many shard gradients to hold, S; or the sizes of P groups of neighbouring shards, powers
        of two, of whose gradients only the sums are held once `complete` is called: nodes of the
        fixed tree over the shards.
    allocate, allocate_gradients
        Where the memory of values and of gradients comes from; that of this process unless said.

    Attributes
    ----------
    values, gradients
        The flat arrays, shapes (n,) and (S, n) or (P, n), of the parameters that are trained. Each
        begins at a multiple of 64 bytes; the gaps hold zeros.
    groups
        Where groups begin and end in the shards (P + 1,).
    names, parameters, starts
        Of each of them its dotted name, itself, and its first index in the flat arrays.
    frozen
        The others, by name.
    freezes
        How often parameters had been frozen or unfrozen when `is_current` last held.

    Raises
    ------
    ValueError
        The model has no parameters that are trained, or parameters of several dtypes.
    """

    def __init__(
        self,
        model: "Module",
        shards: int | Sequence[int] = 1,
        allocate: Allocator = zeros,
        allocate_gradients: Allocator | None = None,
    ) -> None:
        if not hasattr(model, "named_parameters"):
            must, fix = "model must be a layer or made of layers", "Derive from layers.Composite."
            raise TypeError(message("FlatParameters", must, repr(model), fix))
        sizes = _sizes(shards)
        named = unique_parameters(model)
        if not named:
            raise ValueError(
                message(
                    "FlatParameters",
                    "the model must have parameters",
                    model,
                    "Add a layer such as Linear.",
                )
            )
        dtypes = {str(parameter.dtype) for _, parameter in named}
        if len(dtypes) > 1:
            fix = "Convert it with model.astype(np.float32)."
            raise ValueError(
                message("FlatParameters", "all parameters must have one dtype", sorted(dtypes), fix)
            )
        trained = [(name, parameter) for name, parameter in named if parameter.trainable]
        if not trained:
            must, fix = "a parameter of the model must be trainable", "Call model.unfreeze()."
            raise ValueError(message("FlatParameters", must, "frozen ones only", fix))
        self.names: list[str] = [name for name, _ in trained]
        self.parameters: list[Parameter] = [parameter for _, parameter in trained]
        self.frozen = {name: each for name, each in named if not each.trainable}
        self.dtype = self.parameters[0].dtype
        self.starts = _starts(self.parameters)
        size, held = self.starts.pop(), _starts(list(self.frozen.values()))
        memory: Array = allocate((size + held[-1],), self.dtype)
        self.values: Array = memory[:size]
        self.gradients: Array = (allocate_gradients or allocate)((len(sizes), size), self.dtype)
        self.groups: Integers = np.array([*accumulate(sizes, initial=0)], np.int64)
        self._pending = False
        self._foreign = False
        shard_memory, apart = ShardMemory(self.dtype), max(sizes) == 1
        for parameter, start in zip(self.parameters, self.starts, strict=True):
            stop = start + parameter.size
            shape, rows = parameter.shape, self.gradients[:, start:stop]
            if apart:
                store = Gradients(shape, self.dtype, rows.reshape(len(sizes), *shape))
            else:
                store = PartialSums(shape, self.dtype, rows, sizes, shard_memory)
            store.owner = self
            parameter.bind(self.values[start:stop].reshape(shape), store)
        for parameter, start in zip(self.frozen.values(), held, strict=False):
            place = memory[size + start : size + start + parameter.size]
            parameter.bind(place.reshape(parameter.shape), Gradients(parameter.shape, self.dtype))
        self._values = {name: (parameter, parameter.value) for name, parameter in named}
        self._moves = Parameter.moves
        self.freezes = Parameter.freezes

    def is_current(self) -> bool:
        """Return whether the parameters that are trained are still those that were then."""
        if self.freezes != Parameter.freezes:
            if any(self.frozen[name].trainable for name in self.frozen) or not all(
                parameter.trainable for parameter in self.parameters
            ):
                return False
            self.freezes = Parameter.freezes
        return True

    def require_bound(self, owner: str) -> None:
        """Refuse parameters that lie elsewhere by now, in the name of `owner`.

        Raises
        ------
        RuntimeError
            They were moved by another `FlatParameters`, or by a change of type.
        """
        if self._moves == Parameter.moves:
            return
        for name, (parameter, value) in self._values.items():
            if parameter.value is not value:
                fix = (
                    "Make the trainer after model.astype, and go on with the last one that was made"
                    " for the model."
                )
                got = f"{name} moved, by another trainer of it or a change of type"
                raise RuntimeError(
                    message(
                        owner,
                        "the parameters must stay in the memory that it has put them in",
                        got,
                        fix,
                    )
                )
        self._moves = Parameter.moves

    def zero_gradients(self) -> None:
        """Mark every gradient as zero; no memory is touched."""
        self._pending = False
        self._foreign = False
        for parameter in self.parameters:
            parameter.store.stale = True

    def begin_pass(self) -> None:
        """Drop what others than tapes of this owner have contributed, before the first of these
        does.
        """
        if self._foreign:
            self.zero_gradients()
        self._pending = True

    def take_foreign(self, parameter: Parameter) -> None:
        """Learn of a contribution to the gradient of a parameter that is from a tape of nobody; it
        is refused while those of tapes of this owner wait.
        """
        if not self._pending:
            self._foreign = True
            return
        name = self.names[[id(each) for each in self.parameters].index(id(parameter))]
        must = "no other tape may contribute to gradients that wait for an update of a trainer"
        fix = "Propagate on the other tape after the update, or freeze the model there."
        raise ValueError(message("Value.backward", must, f"a contribution to {name}", fix))

    def complete(self) -> list[str]:
        """Make all gradients final, zeros for parameters that got no contribution; return the names
        of these.
        """
        without = []
        for index, parameter in enumerate(self.parameters):
            if not parameter.store.complete():
                without.append(self.names[index])
        return without

    def segments(self) -> Sequence[tuple[str, Parameter, int, int]]:
        """Return name, parameter, start and stop (without the gap after it) of each parameter in
        flat memory.
        """
        stops = [
            start + parameter.size
            for start, parameter in zip(self.starts, self.parameters, strict=True)
        ]
        return list(zip(self.names, self.parameters, self.starts, stops, strict=True))


def sizes(model: "Module") -> tuple[int, int]:
    """Return how many elements the flat arrays of a model have, gaps and all: of all parameters,
    and of those that are trained.
    """
    parameters = [parameter for _, parameter in unique_parameters(model)]
    trained = _starts([parameter for parameter in parameters if parameter.trainable])[-1]
    return trained + _starts([each for each in parameters if not each.trainable])[-1], trained


def _sizes(shards: int | Sequence[int]) -> list[int]:
    """Return how many parts each shard is added up from."""
    owner, fix = "FlatParameters", "Pass the number of shards."
    if isinstance(shards, list | tuple) and shards:
        sizes = [positive_int(owner, "the parts of a shard", size, fix) for size in shards]
        require_room(owner, (sum(sizes),), 64)
        return sizes
    count = positive_int(owner, "shards", shards, fix)
    # A pointer each, and more, before there are any gradients.
    require_room(owner, (count,), 64)
    try:
        return [1] * count
    except MemoryError as error:
        raise without_room(owner, (count,)) from error


def _starts(parameters: Sequence[Parameter]) -> list[int]:
    """Return where parameters begin that follow each other in a flat array, and its end."""
    starts, end = [], 0
    for parameter in parameters:
        starts.append(end)
        step = CACHE_LINE // parameter.dtype.itemsize
        end += -(-parameter.size // step) * step
    return [*starts, end]
