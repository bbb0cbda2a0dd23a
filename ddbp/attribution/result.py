"""What a method of attribution gives."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ddbp.data.samples import Ragged, Samples, described, leaves
from layers.errors import message, wording
from layers.types import Array, Integers

from . import pictures


@dataclass(frozen=True, repr=False)
class Attribution:
    """What each input of some samples contributed to an output.

    Attributes
    ----------
    method
        The function that has made it.
    values
        Attributions in the structure of the samples: an array of the shape of each input, but of
        tokens one number each; `Ragged` for sequences of different lengths; None for masks.
    x
        The samples, as the model got them.
    scores
        The explained numbers of the output (N,), in float64.
    baseline_scores
        Those at the baseline, where the method has one.
    error
        What the attributions of each sample add up to, less the difference of these scores (N,):
        how far they are from complete. None where the method promises no such sum.
    indices
        Of each sample the indices of the explained number into the further axes of the output
        (N, k), unless a function chose.
    """

    method: str
    values: Any
    x: Samples = field(repr=False)
    scores: Array
    baseline_scores: Array | None = None
    error: Array | None = None
    indices: Integers | None = None

    def __repr__(self) -> str:
        parts = [self.method, f"values {_shapes(self.values)}"]
        if self.error is not None and len(self.error):
            parts.append(f"error at most {np.abs(self.error).max():.2g}")
        return f"Attribution({', '.join(parts)})"

    def __len__(self) -> int:
        return len(self.scores)

    def sha256(self) -> str:
        """Return a digest of the bits of all attributions and scores."""
        digest = hashlib.sha256()
        for _, leaf in leaves("values", self.values):
            array = leaf.values if isinstance(leaf, Ragged) else leaf
            if array is not None:
                digest.update(array.tobytes())
        digest.update(self.scores.tobytes())
        return digest.hexdigest()

    @wording("Attribution.figure")
    def figure(self, *others: "Attribution", sample: int | None = None) -> Any:
        """Return a matplotlib figure of one sample, or of the first eight.

        Images are shown with their attributions beside them, red for what speaks for the output and
        blue for what speaks against it; of everything else a bar for each number.

        Parameters
        ----------
        *others
            Further attributions of the same samples, to compare with.
        sample
            Which one.

        Raises
        ------
        ImportError
            Matplotlib is not installed.
        ValueError
            There is no such sample, or the others are of another number of samples.
        """
        for other in others:
            if not isinstance(other, Attribution) or len(other) != len(self):
                must = f"the others must be attributions of the same {len(self)} samples"
                fix = "Pass what other methods give for the same x."
                raise ValueError(message("Attribution.figure", must, repr(other), fix))
        return pictures.figure((self, *others), sample)

    def _repr_html_(self) -> str:
        return pictures.html(self)


def _shapes(values: Any) -> str:
    if values is None:
        return "None"
    if type(values) is tuple:
        return f"({', '.join(map(_shapes, values))})"
    if type(values) is dict:
        return f"{{{', '.join(f'{key}: {_shapes(part)}' for key, part in values.items())}}}"
    return described(values)
