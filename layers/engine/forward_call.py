"""What the forward of a layer may ask of its call, whether that is recorded or not."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from layers.errors import Renamed
from layers.types import Array, Integers

from .storage import Storage


class ForwardCall(Protocol):
    """The call that `Layer.forward` is given: a `Call` on a tape, or one of which nothing stays."""

    __slots__ = ()
    observe: Renamed = Renamed("on_gathered")
    take: Renamed = Renamed("take_gradient")
    gradient_into: Renamed = Renamed("gradient_buffer")
    transient: Renamed = Renamed("pooled")

    @property
    def recorded(self) -> bool:
        """Whether backward may follow; else what only backward needs is in vain."""

    @property
    def training(self) -> bool:
        """Whether layers such as Dropout behave as in training; never outside a tape."""

    def wants(self, index: int) -> bool:
        """Return whether anybody needs the gradient of input number `index`."""

    def save(self, *arrays: Any) -> None:
        """Keep what backward will find in `Call.saved`."""

    def buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an uninitialised array that belongs to this call until the tape's workspace is
        used for the next step.
        """

    def matrix_buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
        """Return an array (…, D) for what the layer gives, forward or backward, and the same memory
        as rows (R, D): a buffer, or memory as of `output_buffer`.
        """

    def output_buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an uninitialised array for the output: a buffer; or, where calls keep what they
        need in 16 bits, memory that is used again once nobody refers to the array.
        """

    def keep(self, storage: Storage, x: Array, source: int | str | None = None) -> Array:
        """Return the words that keep x until backward, in its shape; outside of a tape, x.

        x has the numbers of input number `source`, in their order, or of the (first) output if that
        is None: all calls that keep a value share its words. Anything else has a name.
        """

    def scratch(self, dtype: Any, *shapes: int | tuple[int, ...]) -> list[Array]:
        """Return uninitialised arrays of so many elements, or shapes, whose contents are lost when
        the layer returns.
        """

    def run(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function that writes to some of its arguments, all in their places; what it
        returns is not told. The next step may call it again by itself: see
        `Module.replayable`.
        """

    def returns(self, expected: Any, function: Callable[..., Any], *arguments: Any) -> bool:
        """Call a function as `run` does; return whether it has returned what is expected of it, as
        it does unless something is wrong with numbers that it was given.
        """

    def make(self, function: Callable[..., Array], *arguments: Any) -> Array:
        """Return what a function makes of arrays that `run` has written: the output, a number, in a
        new array in every step.
        """

    def report(self, sums: Array, divisor: float | None = None) -> None:
        """Keep the sums over each shard's samples (S, …) of what the output is the mean of, and
        what their sum over all shards was divided by, if not the samples.
        """

    def samples_axis(self) -> int:
        """Return the axis of the first input along which lie the samples of this rank's part of a
        batch, or of several shards of one, -1 if there is none: see `layers.engine.sample_axes`.
        """

    def require_samples_apart(self, axis: int = 0, index: int = 0) -> None:
        """Refuse to mix what lies along an axis of input number `index` if that are samples, of
        which other ranks or shards hold a part.
        """

    def moves_samples(self, ndim: int = 0) -> None:
        """Say that samples may lie on another axis of the output than 0; or, given `ndim`, that
        they do if an input that is a value is broadcast to so many axes.
        """

    def gather(self, numbers: Array) -> Array:
        """Return the numbers (S, k) of all shards of the global batch, given those of the local
        ones, in float64.

        On several ranks this waits for all of them: each must come here with the same layer.
        """

    def on_gathered(
        self, numbers: Array, apply: Callable[[Array], None], *, gathered: bool = False
    ) -> None:
        """Have `apply` called once with what `gather` returns for these numbers (S, k): at once, or
        at the end of a trainer's step. With `gathered`, they are what it has returned already.

        This is how a layer changes its `State`; all ranks then change it by the same bits. Of the
        batch `apply` knows its argument only: where batches accumulate, it may be that of another.
        """

    def random_key(self) -> tuple[int, int, int, np.uint64]:
        """Return the key of the next random numbers of this call: its first sample, step, draw and
        seed.

        It is another one each time. Draws are counted along the tape, calls are not: layers that
        run as one call draw what they draw apart.
        """

    def bounds(self, rows: int) -> Integers:
        """Return the bounds (S + 1,) of the shards in an array of so many rows (a multiple of the
        samples, if not equal).
        """

    def samples(self, rows: int) -> int:
        """Return the number of samples of the global batch, that a loss of `rows` local rows is
        divided by.
        """

    def rows_per_sample(self, rows: int) -> int:
        """Return how many of so many local rows belong to each sample."""
