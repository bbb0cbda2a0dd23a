"""A model with samples, as attributions see it: a function of points, and its gradient there.

Points are arrays of floating numbers: inputs of that kind, and for inputs of tokens the vectors
that an `Embedding` gives for them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddbp.data.array_dataset import ArrayDataset
from ddbp.data.samples import (
    Padded,
    Ragged,
    Samples,
    call,
    cast,
    leaves,
    of_leaves,
    require_equal_lengths,
    require_range,
    samples_of,
    spread,
)
from layers import Embedding, Layer, Recompute, Rule, Tape, Value, Workspace
from layers.checks import positive_int
from layers.engine.sums import sum_over
from layers.errors import message
from layers.fusion import Fused
from layers.types import Array

from .baseline import leaves_of
from .result import Attribution
from .target import Chosen

BATCH = 64
"""Samples that a model gets at once, unless told otherwise."""


class _Nobody:
    """An owner of no parameter: for it no gradient of any is computed."""

    def begin_pass(self) -> None:
        """Begin a backward pass in which there is nothing to do."""


_NOBODY: Any = _Nobody()


class PointsTape(Tape):
    """A tape on which layers that run as one call, or in a segment, are calls apart, no parameter
    gets a gradient, and what an `Embedding` gives for an input of tokens is an input, too.

    Parameters
    ----------
    workspace
        See `Tape`.
    vectors
        What embeddings give in turn, in place of what they would.
    watched
        A layer whose output keeps its gradient, or what is made of layers.

    Attributes
    ----------
    lookups
        Of each use of an embedding the number of the input and the value of the vectors.
    seen
        The last output of the watched layer, the first one of several.
    """

    def __init__(
        self,
        workspace: Workspace,
        vectors: Sequence[Array] | None = None,
        watched: Any = None,
    ) -> None:
        super().__init__(owner=_NOBODY, workspace=workspace)
        self.lookups: list[tuple[int, Value]] = []
        self.seen: Value | None = None
        self._vectors = vectors
        self._watched = watched
        self._tokens: dict[int, tuple[int, Value]] = {}

    def tokens(self, array: Array, number: int) -> Value:
        """Return a value for input `number`, which is one of tokens."""
        value = self.input(array, copy=False)
        self._tokens[id(value)] = number, value
        return value

    def record(self, layer: Layer, inputs: tuple[Any, ...]) -> Any:
        if isinstance(layer, Fused):
            return layer.apart(*inputs)
        if isinstance(layer, Recompute):
            *arrays, calls = inputs
            return calls(layer.segment, arrays)
        if isinstance(layer, Embedding) and id(inputs[0]) in self._tokens:
            number, ids = self._tokens[id(inputs[0])]
            given = self._vectors
            vectors = layer(ids.array) if given is None else given[len(self.lookups)]
            self.lookups.append((number, self.input(vectors, copy=False)))
            result: Any = self.lookups[-1][1]
        else:
            result = super().record(layer, inputs)
        if self._watches(layer):
            self.seen = result[0] if isinstance(result, tuple) else result
            self.seen.keep_grad()
        return result

    def _watches(self, layer: Layer) -> bool:
        """Return whether a layer is the watched one, or of those that it is made of, which some
        make when they are called.
        """
        watched = self._watched
        return watched is not None and any(layer is each for _, each in watched.named_layers())


class Pass(NamedTuple):
    """A forward pass.

    Attributes
    ----------
    tape
        What it is recorded on.
    output
        What the model returned.
    values
        Of each point.
    """

    tape: PointsTape
    output: Any
    values: list[Value]

    @property
    def points(self) -> list[Array]:
        """The points themselves."""
        return [value.array for value in self.values]


class Part:
    """Some rows of what is explained."""

    def __init__(self, of: "Explained", rows: slice) -> None:
        self.of = of
        self.rows = rows
        self.local: Samples = of_leaves(self._local, of.x)
        self.leaves = list(_padded_leaves(self.local))
        self.arrays: list[Array] = [
            leaf.values if type(leaf) is Padded else leaf for leaf in self.leaves
        ]
        self.size = len(self.arrays[0])

    def _local(self, leaf: Any) -> Any:
        rows = self.rows
        return leaf.padded(rows, rows, self.of.steps) if type(leaf) is Ragged else leaf[rows]

    def run(
        self,
        points: Sequence[Array] | None = None,
        *,
        tokens: Sequence[Array | None] | None = None,
        reference: bool = False,
        watched: Any = None,
    ) -> Pass:
        """Run the model.

        Parameters
        ----------
        points
            Where, unless at the samples themselves.
        tokens
            Those that stand in place of the samples', by input, where there are any.
        reference
            Whether the last pass that was none shall stay as it is.
        watched
            See `PointsTape`.
        """
        arrays = list(self.arrays)
        floating = [n for n, array in enumerate(arrays) if array.dtype.kind == "f"]
        vectors = None if points is None else points[len(floating) :]
        for number, point in zip(floating, points or (), strict=False):
            arrays[number] = point
        for number, other in enumerate(tokens or ()):
            arrays[number] = arrays[number] if other is None else other
        last = self.of.tapes[reference]
        if last is not None:
            # Its memory is used again.
            last.release()
        tape = PointsTape(self.of.workspaces[reference], vectors, watched)
        self.of.tapes[reference] = tape
        inputs: list[Value] = []
        numbered = iter(enumerate(arrays))

        def value(_: Array) -> Any:
            number, array = next(numbered)
            if array.dtype.kind == "b":
                return array
            if array.dtype.kind != "f":
                return tape.tokens(array, number)
            inputs.append(tape.input(array, copy=False))
            return inputs[-1]

        output = call(self.of.model, spread(value, self.local))
        self._require_lookups(tape)
        origins = [*floating, *(number for number, _ in tape.lookups)]
        if self.of.origins not in ([], origins):
            must = "the model must look tokens up in the same order at all points"
            fix = "Let no branch depend on numbers of the input."
            raise ValueError(message(self.of.owner, must, origins, fix))
        self.of.origins = origins
        return Pass(tape, output, inputs + [found for _, found in tape.lookups])

    def _require_lookups(self, tape: PointsTape) -> None:
        """Refuse inputs of tokens that no embedding has got, and inputs that are all masks."""
        found = {number for number, _ in tape.lookups}
        for number, array in enumerate(self.arrays):
            if array.dtype.kind in "iu" and number not in found:
                must = "inputs of integers must go to an Embedding as they are"
                fix = "Convert numbers with x.astype(np.float32)."
                raise TypeError(message(self.of.owner, must, f"{array.dtype} {array.shape}", fix))
        if all(array.dtype.kind == "b" for array in self.arrays):
            must, fix = "an input must be of numbers or tokens", "Masks get no attribution."
            raise TypeError(message(self.of.owner, must, "booleans", fix))

    def numbers(self, done: Pass) -> Array:
        """Return the chosen numbers of the output (n,) in float64."""
        _, _, numbers = self.of.chosen.of(done.output, self.rows)
        return numbers.astype(np.float64)

    def gradients(self, done: Pass, rule: Rule | None = None) -> tuple[list[Array], Array]:
        """Return the gradients of the chosen numbers at the points of a pass, which may be
        overwritten by the next one, and those numbers (n,).
        """
        value, gradient, numbers = self.of.chosen.of(done.output, self.rows)
        numbers = numbers.astype(np.float64)
        value.backward(gradient, rule=rule)
        found = [np.zeros_like(v.array) if v.grad is None else v.grad for v in done.values]
        return found, numbers

    def valid(self, place: int) -> Any:
        """Return which numbers of a point are no padding, broadcasting to it; True if all."""
        leaf = self.leaves[self.of.origins[place]]
        if type(leaf) is not Padded:
            return True
        within = np.arange(leaf.values.shape[1]) < leaf.lengths[:, np.newaxis]
        axes = leaf.values.ndim - (leaf.values.dtype.kind == "f")
        return within.reshape(*within.shape, *(1,) * (axes - 1))

    def baseline(self, points: Sequence[Array]) -> list[Array]:
        """Return the points that stand for nothing, given those of the samples."""
        of = self.of
        given = leaves_of(of.owner, of.x, of.baseline, self.rows)
        arrays = zip(given, self.arrays, strict=True)
        full = [None if each is None else np.broadcast_to(each, x.shape) for each, x in arrays]
        tokens = [
            None if x.dtype.kind == "f" else b for b, x in zip(full, self.arrays, strict=True)
        ]
        looked_up: list[Array] = []
        if any(each is not None for each in tokens):
            looked_up = [each.copy() for each in self.run(tokens=tokens).points]
        result = []
        for place, (origin, point) in enumerate(zip(of.origins, points, strict=True)):
            other = full[origin]
            if other is None:
                result.append(np.zeros_like(point))
            elif self.arrays[origin].dtype.kind == "f":
                result.append(np.ascontiguousarray(other))
            else:
                result.append(looked_up[place])
        return result


Found = tuple[Sequence[Array], Array, Array | None]
"""What a method finds for a part: an array for each point, of its shape (or, of vectors, that of
the tokens), the chosen numbers at the samples (n,), and those at the baseline.
"""


class Explained:
    """What the arguments that all methods have in common mean.

    Parameters
    ----------
    owner
        The method.
    model, x, target, batch_size
        See `saliency`.
    baseline
        See `integrated_gradients`.
    """

    def __init__(
        self, owner: str, model: Any, x: Any, target: Any, batch_size: Any, baseline: Any = None
    ) -> None:
        self.owner = owner
        if not callable(model) or isinstance(model, type):
            fix = "Pass the model itself, such as trainer.model."
            raise TypeError(message(owner, "model must be a model", repr(model), fix))
        self.model = model
        self.baseline = baseline
        self.batch_size = positive_int(owner, "batch_size", batch_size, "64 is usual.")
        self.x = _samples(owner, model, x)
        self.count = require_equal_lengths(owner, {"x": self.x})
        self.chosen = Chosen(owner, target, self.count)
        self.workspaces = Workspace(), Workspace()
        self.tapes: list[Tape | None] = [None, None]
        self.origins: list[int] = []
        ragged = [leaf.lengths.max() for _, leaf in leaves("x", self.x) if type(leaf) is Ragged]
        self.steps = int(max(ragged, default=0))

    def parts(self) -> Iterator[Part]:
        """Yield the samples in parts of the batch size."""
        for start in range(0, self.count, self.batch_size):
            yield Part(self, slice(start, min(start + self.batch_size, self.count)))

    def attributions(self, method: Callable[[Part], Found]) -> Attribution:
        """Return what a method finds for all parts."""
        inputs: list[list[Array]] = []
        scores: list[Array] = []
        others: list[Array] = []
        for part in self.parts():
            found, at_samples, at_baseline = method(part)
            inputs.append(self._by_input(part, found))
            scores.append(at_samples)
            others += [] if at_baseline is None else [at_baseline]
        whole = [np.concatenate(arrays) for arrays in zip(*inputs, strict=True)]
        numbers = iter(whole)
        values = of_leaves(lambda leaf: as_given(leaf, next(numbers)), self.x)
        reached = np.concatenate(scores)
        left = np.concatenate(others) if others else None
        error = None
        if left is not None:
            error = sum((_per_sample(each) for each in whole), np.zeros(self.count))
            error -= reached - left
        return Attribution(self.owner, values, self.x, reached, left, error, self.chosen.indices)

    def _by_input(self, part: Part, found: Sequence[Array]) -> list[Array]:
        """Return one array for each input: for those of tokens the sums over their vectors, for
        masks an empty one.
        """
        result = [np.zeros((part.size, 0)) for _ in part.arrays]
        for origin, each in zip(self.origins, found, strict=True):
            if part.arrays[origin].dtype.kind == "f":
                result[origin] = np.array(each)
                continue
            if each.ndim > part.arrays[origin].ndim:
                each = sum_over(each, (each.ndim - 1,))
            held = result[origin]
            result[origin] = each if held.shape != each.shape else held + each
        return result


def _samples(owner: str, model: Any, x: Any) -> Samples:
    """Return what is given as samples, in the type of the model."""
    if isinstance(x, ArrayDataset):
        must, fix = "x must be the inputs alone", "Pass dataset.x."
        raise TypeError(message(owner, must, "an ArrayDataset", fix))
    samples = samples_of(owner, "x", x)
    parameters = model.parameters() if hasattr(model, "parameters") else []
    if not parameters:
        return samples
    dtype = parameters[0].dtype
    require_range(owner, "x", samples, dtype)
    return of_leaves(lambda leaf: cast(leaf, dtype), samples)


def _padded_leaves(local: Samples) -> Iterator[Any]:
    """Yield the arrays and padded batches of a part in the order of its inputs."""
    if type(local) is tuple:
        for each in local:
            yield from _padded_leaves(each)
    elif type(local) is dict:
        for each in local.values():
            yield from _padded_leaves(each)
    else:
        yield local


def _per_sample(values: Array) -> Array:
    """Return the sum of each sample's numbers in float64 (n,)."""
    rows = values.astype(np.float64).reshape(len(values), -1)
    return sum_over(rows, (1,))


def as_given(leaf: Any, values: Array) -> Any:
    """Return attributions in the form of an input: sequences of their lengths, None for masks."""
    if leaf.dtype.kind == "b":
        return None
    if type(leaf) is not Ragged:
        return values
    within = np.arange(values.shape[1]) < leaf.lengths[:, np.newaxis]
    return leaf.with_values(values[within], 0)
