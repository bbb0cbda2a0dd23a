"""The flat memory that a model's parameters and gradients live in."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layers.errors import message
from layers.kernels.machine import CACHE_LINE
from layers.types import Array

from .gradients import Gradients
from .memory import zeros
from .parameter import Allocator, Parameter, unique_parameters
from .partial_sums import PartialSums, ShardMemory

if TYPE_CHECKING:
    from .module import Module


class FlatParameters:
    """All parameters of a model as views into one flat array, their gradients as views into
    another.

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
        The flat arrays, shapes (n,) and (S, n) or (P, n). Each parameter begins at a multiple of 64
        bytes; the gaps hold zeros.
    names, parameters, starts
        Of each parameter its dotted name, itself, and its first index in the flat arrays.

    Raises
    ------
    ValueError
        The model has no parameters, or they are of several dtypes.
    """

    def __init__(
        self,
        model: "Module",
        shards: int | Sequence[int] = 1,
        allocate: Allocator = zeros,
        allocate_gradients: Allocator | None = None,
    ) -> None:
        sizes = [1] * shards if isinstance(shards, int) else list(shards)
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
        self.names: list[str] = [name for name, _ in named]
        self.parameters: list[Parameter] = [parameter for _, parameter in named]
        self.dtype = self.parameters[0].dtype
        step = CACHE_LINE // self.dtype.itemsize
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
            shape, rows = parameter.shape, self.gradients[:, start:stop]
            if apart:
                store = Gradients(shape, self.dtype, rows.reshape(len(sizes), *shape))
            else:
                store = PartialSums(shape, self.dtype, rows, sizes, memory)
            parameter.bind(self.values[start:stop].reshape(shape), store)
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
        for parameter in self.parameters:
            parameter.store.stale = True

    def complete(self) -> list[str]:
        """Make all gradients final, zeros for parameters that got no contribution; return the names
        of these.
        """
        return [
            name
            for name, parameter in zip(self.names, self.parameters, strict=True)
            if not parameter.store.complete()
        ]

    def segments(self) -> Sequence[tuple[str, Parameter, int, int]]:
        """Return name, parameter, start and stop (without the gap after it) of each parameter in
        flat memory.
        """
        stops = [
            start + parameter.size
            for start, parameter in zip(self.starts, self.parameters, strict=True)
        ]
        return list(zip(self.names, self.parameters, self.starts, stops, strict=True))
