"""What a script does to the gradient of the global batch before the optimizer sees it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ddbp.reduction.partition import Partition
from layers.checks import positive
from layers.errors import message
from layers.kernels import optimizer as kernels
from layers.types import Array


class GradientPart:
    """What a rank holds of the gradient of a parameter.

    Attributes
    ----------
    name
        The parameter's name.
    offset
        Where in the parameter, flattened, the part begins.
    values
        A view (n,) of the parameter itself, which must not be changed.
    """

    def __init__(self, name: str, offset: int, gradient: Array, values: Array) -> None:
        self.name = name
        self.offset = offset
        self.values = values
        self._gradient = gradient

    @property
    def gradient(self) -> Array:
        """The gradient (n,): a view, to be changed in place; what is assigned is written to it."""
        return self._gradient

    @gradient.setter
    def gradient(self, value: Array) -> None:
        self._gradient[...] = value


class GlobalGradient:
    """The gradient of the global batch, of which each rank holds parts: what a transform is given.

    Methods that are collective must be called by all ranks alike; what they return is the same on
    all, and for any number of them.

    Parameters
    ----------
    part
        This rank's partition, whose gradient is collected.
    """

    def __init__(self, part: Partition) -> None:
        self._part = part

    def parts(self) -> Iterator[GradientPart]:
        """Yield this rank's parts, in the order of the parameters."""
        part = self._part
        for span in part.spans:
            gradient = part.gradient[span.start : span.stop]
            yield GradientPart(part.names[span.parameter], span.offset, gradient, span.values)

    def norms(self) -> dict[str, float]:
        """Return the Euclidean norm of each parameter's gradient, by name; collective."""
        norms = self._part.parameter_norms(self._part.gradient)
        return dict(zip(self._part.names, norms.tolist(), strict=True))

    def parameter_norms(self) -> dict[str, float]:
        """Return the Euclidean norm of each parameter, by name; collective."""
        norms = self._part.parameter_norms(self._part.values)
        return dict(zip(self._part.names, norms.tolist(), strict=True))

    def whole(self) -> dict[str, Array]:
        """Return copies of the gradients in the shapes of their parameters, by name; collective,
        and slow for large models.
        """
        return self._part.to_named(self._part.gradient)

    def replace(self, gradients: Mapping[str, Array]) -> None:
        """Take whole gradients, the same on all ranks, in place of what there is."""
        shapes = dict(zip(self._part.names, self._part.shapes, strict=True))
        found = {name: np.shape(gradient) for name, gradient in gradients.items()}
        if found != shapes:
            fix = "Change what whole() returned, and pass all of it."
            must = f"gradients must have the names and shapes {shapes}"
            raise ValueError(message("GlobalGradient.replace", must, found, fix))
        self._part.from_named(self._part.gradient, gradients)


class GradientTransform(Protocol):
    """A function that changes the gradient of the global batch, the same on all ranks."""

    def __call__(self, gradient: GlobalGradient, step: int) -> None:
        """Change the gradient of a step; steps count from 0."""


def require_transforms(given: Any) -> tuple[GradientTransform, ...]:
    """Return transforms as a tuple: functions, not classes.

    Raises
    ------
    TypeError
        It is no list or tuple of functions.
    """
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    wrong = (
        [each for each in given if not callable(each) or isinstance(each, type)]
        if listed
        else [given]
    )
    if wrong:
        fix = "Pass a list, such as [ClipParameterNorms(1.0)]."
        must = "transforms must be a list of functions (gradient, step)"
        raise TypeError(message("Trainer", must, repr(wrong[0]), fix))
    return tuple(given)


class ClipParameterNorms:
    """A transform that limits the Euclidean norm of each parameter's gradient by itself, where
    `clip_norm` limits that of all together.

    Parameters
    ----------
    limit
        Above 0.
    """

    def __init__(self, limit: float) -> None:
        self.limit = positive("ClipParameterNorms", "limit", limit, "1.0 is usual.", finite=True)

    def __repr__(self) -> str:
        return f"ClipParameterNorms({self.limit!r})"

    def __call__(self, gradient: GlobalGradient, step: int) -> None:
        norms = gradient.norms()
        for part in gradient.parts():
            if norms[part.name] > self.limit:
                kernels.scale(part.gradient, self.limit / norms[part.name])
