"""This rank's partition of the flat arrays, as optimizers see it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from ddbp.comm.agreement import gather_uneven
from ddbp.snapshot import Pieces, StoredArray
from layers.engine.fixed_tree import tree_sum
from layers.engine.memory import zeros
from layers.kernels import optimizer as kernels
from layers.kernels import reduce
from layers.kernels.packed import elements, line_of, packed_shape
from layers.types import Array, Integers

from .reducer import Reducer

CHUNK = 64 * reduce.BLOCK
"""Elements that are reduced and updated at a time: their sum is still in the second-level cache
when the optimizer reads it.
"""


class Chunk(NamedTuple):
    """A part of the partition.

    Attributes
    ----------
    start, stop
        Where in the partition.
    values, gradient
        Views of the parameters and of their gradient, (stop - start,).
    regularized
        Runs [start, stop) of the chunk to which L1, L2 and weight decay apply.
    group
        The number of the group that its parameters are in.
    """

    start: int
    stop: int
    values: Array
    gradient: Array
    regularized: list[tuple[int, int]]
    group: int


class Span(NamedTuple):
    """What lies of a parameter in a range of the partition.

    Attributes
    ----------
    parameter
        Its number.
    start, stop
        Where in the partition.
    values
        A view of it, (stop - start,).
    regularized
        Whether L1, L2 and weight decay apply to it.
    offset
        Where in the parameter, flattened, it begins.
    group
        The number of the group that it is in.
    """

    parameter: int
    start: int
    stop: int
    values: Array
    regularized: bool
    offset: int
    group: int


class ChunkWatcher(Protocol):
    """What is told of the gradients of a partition's chunks, as they come, before anything but
    their mean is taken.
    """

    def on_fetch_begin(self) -> None:
        """Run before a chunk gets its gradient."""

    def on_fetch_end(self, chunk: Chunk) -> None:
        """Run when it has it."""


class Partition:
    """What a rank updates: its ranges of the flat arrays, one after the other.

    Parameters
    ----------
    reducer
        Where gradients come from.
    whole
        Whether the gradient of the whole partition is wanted at once, for norms; else it exists
        chunk by chunk.
    adjust
        Called with each chunk when its gradient is there, and scaled.
    groups
        The number of the group of each parameter, by name; 0 for all unless given. A chunk is of
        one group.

    Attributes
    ----------
    comm
        The ranks that have a part of it each: see `Reducer.owners`.
        The ranks.
    ranges
        Where it is in the flat arrays, (start, stop) of each range.
    names, shapes, regularized, groups
        Of all parameters: their names, their shapes, whether L1, L2 and weight decay apply, and the
        numbers of their groups.
    spans
        What of which parameters is in it.
    whole
        Whether the gradient exists at once.
    gradient
        After `collect`: the gradient (m,), if `whole`.
    chunks
        The parts of the partition; `fetch` gives a chunk its gradient.
    collected
        Whether all chunks have their gradients.
    scale
        What the sum of the gradients is multiplied by; where they are compressed, before that.
    watcher
        What is told of the gradients of chunks, if anything.
    """

    watcher: ChunkWatcher | None = None

    def __init__(
        self,
        reducer: Reducer,
        *,
        whole: bool = False,
        adjust: Callable[[Chunk], None] | None = None,
        groups: Mapping[str, int] | None = None,
    ) -> None:
        self._reducer = reducer
        self.comm = reducer.owners
        self._adjust = adjust
        self.collected = False
        self.scale = 1.0
        self._flat = flat = reducer.flat
        self.whole = whole or reducer.alone is not None
        self.names = flat.names
        self.shapes = [parameter.shape for parameter in flat.parameters]
        self.regularized = [parameter.regularized for parameter in flat.parameters]
        self.parameters = len(flat.parameters)
        self.groups = [groups[name] if groups else 0 for name in flat.names]
        self._arrange(self._cut(reducer.ranges))
        if len(self.chunks) == 1 and reducer.alone is None:
            reducer.expect(self.chunks[0].gradient, self.ranges[0][0])

    def _cut(self, ranges: Sequence[tuple[int, int]]) -> Integers:
        """Cut ranges of the flat arrays into spans and chunks; return what `_cut_into_blocks` does
        of them.
        """
        self._ranges = [self._flat.values[start:stop] for start, stop in ranges]
        self.ranges = [*ranges]
        self.chunks: list[Chunk] = []
        self.spans: list[Span] = []
        self.gradient: Array = self._gradient_memory()
        blocks: list[tuple[int, int, int, int]] = []
        offset = 0
        for (start, stop), values in zip(ranges, self._ranges, strict=True):
            blocks += self._cut_into_blocks(start, stop, offset)
            for a, b, group in self._cut_into_chunks(offset, values.size):
                place = slice(offset + a, offset + b)
                regularized = [
                    (
                        max(run.start, place.start) - place.start,
                        min(run.stop, place.stop) - place.start,
                    )
                    for run in self.spans
                    if run.regularized and run.start < place.stop and run.stop > place.start
                ]
                gradient = self.gradient[place] if self.whole else self.gradient[: b - a]
                self.chunks.append(
                    Chunk(place.start, place.stop, values[a:b], gradient, regularized, group)
                )
            offset += values.size
        return np.array(blocks, np.int64).reshape(-1, 4)

    def _gradient_memory(self) -> Array:
        if self._reducer.alone is not None:
            return self._reducer.alone
        if self.whole and self._reducer.comm.survives:
            return self.shared("gradient")
        size = self.size if self.whole else min(self.size, CHUNK)
        return np.empty(size, self._flat.dtype)

    def of_rank(self, rank: int) -> "Partition":
        """Return what a rank of this host updates, for another one to do that; `gradient` is there
        if it is `whole` and ranks survive.
        """
        other = copy(self)
        other.watcher = None
        other._cut(self._reducer.ranges_of(rank))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "Partition":
        """Return itself: it is a view of memory that the ranks share."""
        return self

    @property
    def size(self) -> int:
        """The number of its elements, m."""
        return sum(part.size for part in self._ranges)

    @property
    def values(self) -> Array:
        """Parameters of the partition (m,), a view if it is one range and a copy if it is
        several.
        """
        return self._ranges[0] if len(self._ranges) == 1 else np.concatenate(self._ranges)

    def zeros(self, codes: str | None = None) -> Array:
        """Return zeros like the partition (m,), which begin at a cache line as the parameters do:
        else kernels of both take up to twice as long. With the type of `codes` they are packed.
        """
        return zeros(self._shape_of(self.size, codes), codes or self._flat.dtype)

    def _shape_of(self, size: int, codes: str | None) -> tuple[int, ...]:
        return packed_shape(size, self._flat.dtype) if codes else (size,)

    def shared(self, name: str, codes: str | None = None) -> Array:
        """Return the part (m,) of a flat array that ranks share where they survive, by its name:
        zeros at first. Where they do not, that is `zeros`. With the type of `codes` it is packed.
        """
        if not self._reducer.comm.survives:
            return self.zeros(codes)
        shape = self._shape_of(self._flat.values.size, codes)
        flat = self._reducer.shared.get(name, shape, codes or self._flat.dtype)
        ((start, stop),) = self.ranges
        return elements(flat, start, stop)

    def _cut_into_blocks(
        self, start: int, stop: int, offset: int
    ) -> list[tuple[int, int, int, int]]:
        """Cut a range, which begins at `offset` of the partition, into blocks whose norms are the
        same for any number of ranks.

        Return of each where it begins and ends in the partition, its parameter, and where it begins
        in the flat array.
        """
        blocks = []
        for number, (_, parameter, first, last) in enumerate(self._flat.segments()):
            begin, end = max(first, start), min(last, stop)
            if begin >= end:
                continue
            # At block bounds, as ranges are cut.
            cuts = [
                begin,
                *range((begin // reduce.BLOCK + 1) * reduce.BLOCK, end, reduce.BLOCK),
                end,
            ]
            blocks += [
                (a - start + offset, b - start + offset, number, a) for a, b in pairwise(cuts)
            ]
            place = slice(begin - start + offset, end - start + offset)
            self.spans.append(
                Span(
                    number,
                    place.start,
                    place.stop,
                    self._flat.values[begin:end],
                    parameter.regularized,
                    begin - first,
                    self.groups[number],
                )
            )
        return blocks

    def _cut_into_chunks(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Cut the range of so many elements that begins at `offset` of the partition into chunks;
        yield of each where it begins and ends in the range, and its group.
        """
        # The gap after a parameter goes with it.
        inside = [span for span in self.spans if offset <= span.start < offset + size]
        firsts = inside[:1] + [b for a, b in pairwise(inside) if a.group != b.group]
        begins = [0, *(span.start - offset for span in firsts[1:]), size]
        for (start, stop), first in zip(pairwise(begins), firsts, strict=False):
            for a in range(start, stop, CHUNK):
                yield a, min(a + CHUNK, stop), first.group

    def _arrange(self, blocks: Integers) -> None:
        """Learn how the blocks of all ranks follow each other in the flat array."""
        self._blocks = np.ascontiguousarray(blocks[:, :2])
        counts = self.comm.all_gather(np.array([len(blocks)], np.int64))[:, 0]
        padded = np.full((int(counts.max()), 2), -1, np.int64)
        padded[: len(blocks)] = blocks[:, 2:]
        gathered = self.comm.all_gather(padded)
        self._present = gathered[:, :, 0] >= 0
        owners, starts = gathered[self._present].T
        self._order = np.argsort(starts)
        self._owner_of_block = owners[self._order]
        # Those of a parameter follow each other.
        cuts = np.searchsorted(self._owner_of_block, np.arange(self.parameters + 1)).tolist()
        self._blocks_of = [slice(*pair) for pair in pairwise(cuts)]

    def chunk(self, span: Span) -> Chunk:
        """Return what lies of a parameter in the partition as a chunk, whose gradient is there
        after `collect`.
        """
        gradient = self.gradient[span.start : span.stop]
        regularized = [(0, span.values.size)] if span.regularized else []
        return Chunk(span.start, span.stop, span.values, gradient, regularized, span.group)

    def fetch(self, chunk: Chunk) -> None:
        """Give a chunk its gradient; the one before may lose its own."""
        if self.collected:
            return
        watcher = self.watcher
        if watcher is not None:
            watcher.on_fetch_begin()
        if self._reducer.alone is None:
            self._reducer.sum(chunk.gradient, chunk.start, self.ranges[0][0])
        if self.scale != 1 and self._reducer.compressed is None:
            kernels.scale(chunk.gradient, self.scale)
        if watcher is not None:
            watcher.on_fetch_end(chunk)
        if self._adjust is not None:
            self._adjust(chunk)

    def collect(self) -> None:
        """Give all chunks their gradients."""
        for chunk in self.chunks:
            self.fetch(chunk)
        self.collected = True

    def forget(self) -> None:
        """Let the next `fetch` or `collect` begin anew, with the gradients of another step."""
        self.collected = False

    # Whole arrays

    def to_named(self, array: Array) -> dict[str, Array]:
        """Return an array of which each rank holds the part (m,) of its partition, whole, cut into
        arrays of the shapes of the parameters (of a packed one: into their lines), by their names;
        collective.
        """
        ranges = self.comm.all_gather(np.array(self._reducer.ranges, np.int64))
        line = line_of(array)
        flat = np.zeros((self._flat.values.size // line, *array.shape[1:]), array.dtype)
        for bounds, part in zip(ranges.tolist(), gather_uneven(self.comm, array), strict=True):
            offset = 0
            for start, stop in bounds:
                elements(flat, start, stop)[...] = elements(part, offset, offset + stop - start)
                offset += stop - start
        return {
            name: elements(flat, start, stop).reshape(self._shape_in(array, number)).copy()
            for number, (name, _, start, stop) in enumerate(self._flat.segments())
        }

    def _shape_in(self, array: Array, number: int) -> tuple[int, ...]:
        """Return the shape that what an array has of a parameter has as a whole."""
        if array.ndim == 1:
            return self.shapes[number]
        return packed_shape(self._flat.parameters[number].size, self._flat.dtype)

    def pieces(self, array: Array) -> dict[str, Pieces]:
        """Return views of an array (m,) of the partition as what this rank, and no other, tells of
        whole arrays as `to_named` returns them, by their names.
        """
        parts: list[list[tuple[int, Array]]] = [[] for _ in self.names]
        line, width = line_of(array), math.prod(array.shape[1:])
        first, last = (bound // line * line for bound in self._reducer.share)
        for span in self.spans:
            begin = self._flat.starts[span.parameter] + span.offset
            a, b = max(first - begin, 0), min(last - begin, span.stop - span.start)
            if a < b:
                held = elements(array, span.start + a, span.start + b).reshape(-1)
                parts[span.parameter].append(((span.offset + a) // line * width, held))
        return {
            name: Pieces(self._shape_in(array, number), array.dtype, parts[number])
            for number, name in enumerate(self.names)
        }

    def from_named(self, array: Array, named: Mapping[str, Array | StoredArray]) -> None:
        """Write this rank's part of whole arrays as `to_named` returns them, by the names of the
        parameters, to an array (m,) of the partition.
        """
        line, width = line_of(array), math.prod(array.shape[1:])
        for span in self.spans:
            place = elements(array, span.start, span.stop)
            start = span.offset // line * width
            whole = named[self.names[span.parameter]].reshape(-1)
            place[...] = whole[start : start + place.size].reshape(place.shape)

    # Norms

    def _block_sums(self, kernel: Any, *terms: tuple[Array, ...]) -> Array:
        """Return the sums that a kernel makes of one or more arrays, of all blocks of all ranks, in
        the order of the flat array, for each of some terms: (blocks, terms).
        """
        sums = np.zeros((len(terms), self._present.shape[1]))
        for row, arrays in zip(sums, terms, strict=True):
            kernel(row[: len(self._blocks)], *arrays, self._blocks)
        if self.comm.size == 1:
            return sums.T
        gathered = self.comm.all_gather(np.ascontiguousarray(sums.T))
        result: Array = gathered[self._present][self._order]
        return result

    def square_norm(self, array: Array) -> float:
        """Return the squared Euclidean norm of an array over all slices; collective."""
        return float(tree_sum(self._block_sums(reduce.square_sums, (array,))[:, 0]))

    def parameter_norms(self, array: Array) -> Array:
        """Return the Euclidean norm of each parameter's part of an array over all slices;
        collective.
        """
        return np.sqrt(self.sums_of_parameters(reduce.square_sums, (array,))[:, 0])

    def sums_of_parameters(self, kernel: Any, *terms: tuple[Array, ...]) -> Array:
        """Return the sums that a kernel like `reduce.square_sums` makes of each parameter's part of
        one or more arrays over all slices, for each of some terms: (parameters, terms); collective.
        """
        sums = self._block_sums(kernel, *terms)
        return np.array([tree_sum(sums[blocks]) for blocks in self._blocks_of])

    def penalty(self, l1: float, l2: float) -> float:
        """Return l1 |w|_1 + l2 |w|^2 / 2 of the regularized parameters; collective."""
        chosen = np.array(self.regularized)[self._owner_of_block]
        values = (self.values,)
        absolute = (
            tree_sum(self._block_sums(reduce.absolute_sums, values)[chosen, 0]) if l1 else 0.0
        )
        squares = tree_sum(self._block_sums(reduce.square_sums, values)[chosen, 0]) if l2 else 0.0
        return float(l1 * absolute + l2 * squares / 2)
