"""How the weights of products are given to kernels, which tells these what to compute in."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from layers.kernels import gemm, gemm_bf16, gemm_bf16x3
from layers.types import Array

from .forward_call import ForwardCall
from .memory import empty
from .storage import BFLOAT16, FLOAT16, Storage

_NO_WORDS = {words: np.empty(0, words) for words in (np.uint32, np.int32, np.uint64)}


@dataclass(frozen=True)
class Precision:
    """What products are computed in.

    Attributes
    ----------
    name
        Its name.
    words
        The type of the words that hold two bfloat16 numbers each, or four, None where nothing is
        rounded.
    order
        How those are summed.
    packer, packer_of_both
        The kernels that write the panels of a weight, or of its transpose; and both.
    storage
        How what backward needs is kept, None where it is as it is.
    unit
        The unit roundoff of what it rounds to, 0 where nothing is rounded.
    parts
        How many times the inner length of products is that of what operands are split into.
    """

    name: str
    words: Any = None
    order: Any = None
    packer: Any = gemm.pack
    packer_of_both: Any = None
    storage: Storage | None = None
    unit: float = 0.0
    parts: int = 1

    @property
    def elsewhere(self) -> "Precision":
        """What convolutions, and attention's scores and values are computed in: in float32 where
        operands would be split, as that is what they are split for.
        """
        return self if self.parts == 1 else FLOAT32

    def keep(self, call: ForwardCall, x: Array, source: int | str | None = None) -> Array:
        """Return what is to be saved of an array: itself, or its words. See `Call.keep`."""
        return x if self.storage is None else call.keep(self.storage, x, source)

    def room(self, call: ForwardCall, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a buffer for what a kernel writes that is to be saved: of words, or of a dtype."""
        return call.buffer(name, shape, dtype if self.storage is None else self.storage.words)

    def keep_operand(self, call: ForwardCall, x: Array, source: int) -> tuple[Array, Array]:
        """Return what products take of input number `source`, and what is to be saved of it."""
        kept = self.keep(call, x, source)
        return x if self.words is None else kept, kept

    def saved_operand(self, call: Any, name: str, x: Array) -> Array:
        """Return what products take of an array that was kept: words that they would round to, or
        its numbers.
        """
        result: Array = x if self.words is not None else call.kept(name, x)
        return result

    def like(self, real: Array) -> Array:
        """Return an array by whose type kernels tell what to compute in: the given one where
        nothing is rounded, else one of no words.
        """
        return real if self.words is None else _NO_WORDS[self.words]

    def packed_size(self, inner: int, n: int, itemsize: int) -> int:
        """Return how many elements the panels of an (inner, n) matrix take."""
        if self.words is None:
            return gemm.packed_size(inner, n, itemsize)
        return gemm_bf16.packed_size(inner, n, self.order, self.parts)

    def pack(self, call: ForwardCall, room: Array, weight: Array, transposed: bool) -> Array:
        """Write the panels of a weight, or of its transpose, to room of that size and of its dtype;
        return them.
        """
        packed: Array = room if self.words is None else room.view(self.words)
        call.run(self.packer, packed, weight, transposed)
        return packed

    def operand(
        self, call: ForwardCall, name: str, weight: Array, transposed: bool, *, wanted: bool = True
    ) -> Array:
        """Return what the kernels of the dense layer take for a weight or its transpose: itself
        where nothing is rounded, else its panels in a buffer of this name, none unless `wanted`.
        """
        if self.words is None:
            return weight
        if not wanted:
            return empty(weight, 1).view(self.words)
        inner, n = weight.shape[::-1] if transposed else weight.shape
        size = self.packed_size(inner, n, weight.itemsize)
        return self.pack(call, call.buffer(name, (size,), weight.dtype), weight, transposed)

    def operands(self, call: ForwardCall, weight: Array, *, both: bool) -> tuple[Array, Array]:
        """Return what `operand` returns for the transpose of a weight, which forward multiplies
        with, and, if `both`, for itself: backward goes through the weight that forward has used.
        """
        if self.words is None:
            return weight, weight
        if not both:
            panels = self.operand(call, "weight", weight, True)
            return panels, self.operand(call, "weight back", weight, False, wanted=False)
        back, panels = (
            call.buffer(name, (self.packed_size(inner, n, 4),), weight.dtype).view(self.words)
            for name, (inner, n) in (("weight back", weight.shape), ("weight", weight.shape[::-1]))
        )
        call.run(self.packer_of_both, back, panels, weight)
        return panels, back


FLOAT32 = Precision("float32")
HALF = Precision("float16", storage=FLOAT16, unit=2.0**-11)
_CHAINS = np.uint32, gemm_bf16.CHAINS, gemm_bf16.pack, gemm_bf16.pack_both
_DOTS = np.int32, gemm_bf16.DOTS, gemm_bf16.pack_dots, gemm_bf16.pack_both_dots
BF16 = Precision("bf16", *_CHAINS, BFLOAT16, 2.0**-8)
BF16_DOT = Precision("bf16-dot", *_DOTS, BFLOAT16, 2.0**-8)
_SPLIT = np.uint64, gemm_bf16.CHAINS, gemm_bf16x3.pack, gemm_bf16x3.pack_both
BF16X3 = Precision("bf16x3", *_SPLIT, None, 2.0**-16, gemm_bf16x3.PARTS)
