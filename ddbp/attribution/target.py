"""Which number of a model's output is explained, one for each sample."""

from collections.abc import Callable
from typing import Any

import numpy as np

from layers import Value
from layers.checks import array
from layers.errors import message
from layers.types import Array, Integers

Target = int | Array | tuple[int, ...] | Callable[[Any], Any] | None
"""The class of all samples, or of each (N,); indices into the further axes of an output, for all
samples (k,) as a tuple, or of each (N, k); a function from the output to one number per sample
(N,); or None for the largest output of each sample.
"""


class Chosen:
    """What is explained of the samples of one call of a method.

    Parameters
    ----------
    owner
        Who is asked.
    target
        See `Target`.
    samples
        How many there are.

    Attributes
    ----------
    indices
        Those into the further axes of the output (N, k), once the output was seen; None where a
        function chooses.
    """

    def __init__(self, owner: str, target: Any, samples: int) -> None:
        self.owner = owner
        self.function = target if callable(target) else None
        self.samples = samples
        self._given = target is not None
        self.indices: Integers | None = None
        if self.function is None and target is not None:
            self.indices = self._integers(target)

    def _integers(self, target: Any) -> Integers:
        found = array(self.owner, "target", target)
        must = f"target must be an integer, or integers (N,) or (N, k) of {self.samples} samples"
        fix = "Pass the classes, such as target=labels, or a function of the output."
        if found.dtype.kind not in "iu":
            raise TypeError(message(self.owner, must, f"{found.dtype} {found.shape}", fix))
        if isinstance(target, tuple):
            found = np.broadcast_to(found, (self.samples, *found.shape))
        elif found.ndim == 0:
            found = np.full((self.samples, 1), found)
        elif found.ndim == 1:
            found = found[:, np.newaxis]
        if found.ndim != 2 or len(found) != self.samples:
            raise ValueError(message(self.owner, must, f"shape {np.shape(target)}", fix))
        result: Integers = found.astype(np.int64)
        return result

    def of(self, output: Any, rows: slice) -> tuple[Value, Array, Array]:
        """Return of a model's output for some of the samples the value to propagate from, its
        gradient, and the chosen numbers (n,).
        """
        if self.function is not None:
            output = self.function(output)
        numbers = self._require_numbers(output)
        if not isinstance(output, Value):
            must = "the output must be a value of the tape"
            fix = "Compute it from the inputs by layers and functions of `layers`."
            raise TypeError(message(self.owner, must, f"a {type(output).__name__}", fix))
        if self.function is not None:
            return output, np.ones(output.shape, output.dtype), numbers
        at = self._at(numbers, rows)
        gradient = np.zeros(output.shape, output.dtype)
        gradient[at] = 1
        return output, gradient, numbers[at]

    def _require_numbers(self, output: Any) -> Array:
        """Return the array of an output, or of what a function has made of it."""
        if isinstance(output, tuple | list | dict):
            fix = "Pass a function: target=lambda output: output[0][:, 3]."
            must = "the model must have one output, or target must be a function of it"
            raise TypeError(message(self.owner, must, f"a {type(output).__name__}", fix))
        numbers: Array = output.array if isinstance(output, Value) else np.asarray(output)
        if numbers.dtype.kind != "f" or not numbers.ndim:
            must, fix = "outputs must be floating numbers (N, …)", "The first axis is the samples."
            raise TypeError(message(self.owner, must, f"{numbers.dtype} {numbers.shape}", fix))
        if self.function is not None and numbers.ndim != 1:
            must = "target must return one number for each sample (N,)"
            fix = "Index or sum the other axes: target=lambda output: output[:, 3]."
            raise ValueError(message(self.owner, must, f"shape {numbers.shape}", fix))
        return numbers

    def _at(self, output: Array, rows: slice) -> tuple[Integers, ...]:
        """Return the indices of the chosen numbers in an output (n, …), which of the first one are
        those of the largest if none were given.
        """
        samples = np.arange(len(output))
        if output.ndim == 1 and not self._given:
            return (samples,)
        if self.indices is None:
            self.indices = np.full((self.samples, 1), -1)
        if not self._given and self.indices[rows][0, 0] < 0:
            self.indices[rows] = self._largest(output)
        chosen = self.indices[rows]
        if chosen.shape[1] != output.ndim - 1:
            must = f"target must have one index for each of the axes of the output {output.shape}"
            fix = "Pass (i, j, …) for all samples, or integers (N, k)."
            got = f"{chosen.shape[1]} and {output.ndim - 1} axes"
            raise ValueError(message(self.owner, f"{must} but the first", got, fix))
        sizes = np.array(output.shape[1:])
        outside = np.argwhere((chosen < 0) | (chosen >= sizes))
        if len(outside):
            sample, axis = outside[0]
            must = f"target must be in 0..{sizes[axis] - 1}"
            got = f"{chosen[sample, axis]} of sample {rows.start + sample}"
            fix = f"The output has shape {output.shape}; classes count from 0."
            raise ValueError(message(self.owner, must, got, fix))
        return (samples, *chosen.T)

    def _largest(self, output: Array) -> Integers:
        if output.ndim != 2:
            must = "target must be given where an output has more axes than (N, C)"
            fix = "Pass indices, such as target=(step, token), or a function of the output."
            raise ValueError(message(self.owner, must, f"shape {output.shape}", fix))
        result: Integers = output.argmax(axis=1)[:, np.newaxis]
        return result
