"""Top-k: the elements of the gradient whose absolute values are largest."""

from dataclasses import dataclass

import numpy as np

from layers import FlatParameters
from layers.checks import positive, positive_int
from layers.errors import message
from layers.kernels import compression as kernels
from layers.types import Array

from .compressor import Compressor, Fields


@dataclass(frozen=True)
class TopK(Compressor):
    """Send the k elements of a shard's gradient that are largest, and add the others to the next
    one.

    Of elements of the same size the first are taken. Source: Stich, Cordonnier and Jaggi,
    "Sparsified SGD with memory", 2018, algorithm 1. A message has 8 bytes for each element.

    Parameters
    ----------
    ratio
        k as a part of all parameters that are trained, in (0, 1].
    count
        k itself, instead of that.

    Raises
    ------
    ValueError
        Both are given, or none, or one out of range; k is more than there are parameters.
    """

    ratio: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        fix = "TopK(ratio=0.01) is usual."
        if (self.ratio is None) == (self.count is None):
            must, got = "ratio or count must be given", f"ratio {self.ratio}, count {self.count}"
            raise ValueError(message("TopK", must, got, fix))
        if self.ratio is not None:
            ratio = positive("TopK", "ratio", self.ratio, fix)
            if ratio > 1:
                raise ValueError(message("TopK", "ratio must be at most 1", ratio, fix))
            object.__setattr__(self, "ratio", ratio)
        else:
            object.__setattr__(self, "count", positive_int("TopK", "count", self.count, fix))

    def __str__(self) -> str:
        return f"top-k:{self.count if self.ratio is None else self.ratio}"

    def codec(self, flat: FlatParameters) -> "_Codec":
        size = sum(parameter.size for parameter in flat.parameters)
        count = self.count
        if count is None:
            assert self.ratio is not None
            count = max(1, round(self.ratio * size))
        if count > size:
            must = "count must be at most the number of parameters that are trained"
            raise ValueError(message("TopK", must, f"{count} of {size}", f"Use up to {size}."))
        return _Codec(count)


class _Codec:
    """See `Codec`; a message is k values and their places, in ascending order."""

    remembers = False

    def __init__(self, count: int) -> None:
        self._fields = Fields([((count,), np.float32), ((count,), np.int32)])
        self.nbytes = self._fields.nbytes
        self._counts = np.empty(kernels.COUNTS, np.int64)

    def begin(self, sent: Array) -> None:
        pass

    def encode(self, sent: Array, x: Array, before: Array) -> None:
        values, places = self._fields.of(sent)
        kernels.largest(places, values, x, x.view(np.uint32), self._counts)

    def decode(self, y: Array, sent: Array, start: int) -> None:
        values, places = self._fields.of(sent)
        kernels.scatter(y, places, values, start)
