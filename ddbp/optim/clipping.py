"""What is done to gradients before the update: penalties, and limits of norm and value."""

import math
from collections.abc import Callable

from ddbp.reduction.partition import Chunk, Partition
from layers.errors import message
from layers.kernels import optimizer as kernels


class NotFiniteError(FloatingPointError):
    """A loss, a gradient or a parameter is not finite, which all ranks find alike.

    Attributes
    ----------
    of_parameters
        Whether parameters are not finite: to leave out an update does not help then.
    """

    of_parameters = False


def add_penalty(chunk: Chunk, l1: float, l2: float) -> None:
    """Add the gradient of l1 |w|_1 + l2 |w|^2 / 2 to the regularized parameters of a chunk."""
    for start, stop in chunk.regularized:
        kernels.add_penalty(chunk.gradient[start:stop], chunk.values[start:stop], l1, l2)


def adjustment(l1: float, l2: float, limit: float | None) -> Callable[[Chunk], None] | None:
    """Return what penalties and a limit of each element do to the gradient of a chunk, if there are
    any.
    """
    if not (l1 or l2 or limit is not None):
        return None

    def adjust(chunk: Chunk) -> None:
        if l1 or l2:
            add_penalty(chunk, float(l1), float(l2))
        if limit is not None:
            kernels.clip(chunk.gradient, float(limit))

    return adjust


def limit_norm(part: Partition, norm: float, step: int) -> None:
    """Limit the Euclidean norm of the gradient over all slices; collective.

    Raises
    ------
    NotFiniteError
        It is not finite, on all ranks; nothing has been updated.
    """
    part.collect()
    found = math.sqrt(part.square_norm(part.gradient))
    if not math.isfinite(found):
        norms = part.parameter_norms(part.gradient)
        name = next(
            name
            for name, of_parameter in zip(part.names, norms, strict=True)
            if not math.isfinite(of_parameter)
        )
        fix = (
            "Look for a division by zero, or a logarithm or a root of zero, in the layers from"
            " there on and in the loss."
        )
        raise NotFiniteError(
            message(
                "Trainer", "the gradient must be finite", f"{found} in step {step} for {name}", fix
            )
        )
    if found > norm:
        kernels.scale(part.gradient, norm / found)
