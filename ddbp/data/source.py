"""Samples that need not be in memory, read by their numbers."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from layers.checks import require_unmasked
from layers.errors import message, wording
from layers.types import Array, Integers

from . import weights as weighing
from .array_dataset import ArrayDataset, array_digest
from .order import batches, permutation, scattered, spread_evenly
from .samples import (
    Ragged,
    Samples,
    cast,
    leaves,
    of_leaves,
    require_range,
)

_COMPARED = 16
"""So many samples of a source stand for it where ranks compare what they train on."""
_COUNTED = 4096
"""So many samples are read at a time where labels are counted."""

_ONE_READS = threading.RLock()
"""Held while a trainer reads, so that sources need not be made for several threads: one that makes
batches ahead waits for an evaluation or a callback that reads, and these for it. There is one for
all sources, since two may be parts of one.
"""


class Rows(NamedTuple):
    """Some samples in memory.

    Attributes
    ----------
    x
        An array (R, …) or a `Ragged`, or several in a tuple or dict, as `ArrayDataset` takes them.
    y
        Their targets likewise; None where there are none, which is enough for a prediction.
    weights
        How much each sample or position counts, if not alike.
    """

    x: Any
    y: Any = None
    weights: Any = None


class Source(ABC):
    """Samples that need not be in memory: a trainer reads those of a batch, and each rank its own.

    A class of your own defines `__len__` and `take`. It is made on every rank, so that it should
    read no more than it must until it is asked; and what it returns must depend on nothing but the
    numbers of the samples: then the bits of a run are those of an `ArrayDataset` of the same
    samples, for any number of ranks. Samples are checked when they are read, and floating ones
    converted to the type of the model.

    Attributes
    ----------
    lengths
        The lengths (N,) of all sequences of each part that is `Ragged`, by its name: "x", "y",
        "x[0]", "x['words']". Batches are padded to the longest sequence of all ranks.
    ordered
        Whether samples can be read in the order of their numbers only: then they come so in each
        epoch.
    classes
        The names of labels 0, 1, …, where they are known: a report of a run has them.
    """

    lengths: Mapping[str, Integers] = {}
    ordered: bool = False
    classes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples N."""

    @abstractmethod
    def take(self, numbers: Integers) -> Rows:
        """Return the samples with these numbers (R,) in 0..N-1, one or more, in their order."""

    def targets(self, numbers: Integers) -> Any:
        """Return the targets of samples; to be overridden where x need not be read for it."""
        return self.take(numbers).y

    def where(self, name: str, number: int) -> str:
        """Return what errors call a sample, of which `name` is a part: where a user finds it."""
        return f"sample {number}"

    def order(self, seed: int, epoch: int) -> Integers:
        """Return the numbers of the samples in the order of an epoch, the same on every rank."""
        return np.arange(len(self)) if self.ordered else permutation(len(self), seed, epoch)

    def some(self, most: int) -> Integers:
        """Return the numbers of so many samples at most, which stand for all: spread evenly, or the
        first where others cannot be had without all before them.
        """
        if self.ordered:
            return np.arange(min(most, len(self)))
        return spread_evenly(len(self), most)

    def map(self, function: Callable[[Any, Any], tuple[Any, Any]]) -> "Source":
        """Return the source of what a function makes of (x, y) of the samples that were read, (R,
        …) each. It must treat each sample by itself; lengths of sequences stay as they are.

        >>> source.map(lambda x, y: (x.astype(np.float32) / 255, y))
        """
        return _Mapped(self, function)

    def subset(self, numbers: Any) -> "Source":
        """Return the source of some samples by their numbers, in this order; in rising order where
        that cannot be chosen.
        """
        numbers = wording("Source.subset")(_numbers_of)(numbers, len(self))
        return _Subset(self, np.sort(numbers) if self.ordered else numbers)

    # What trainers and instruments use of data sets of either kind.

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} samples)"

    @property
    def has_weights(self) -> bool:
        """Whether a loss gets weights."""
        first = self.take(self.some(1))
        return first.weights is not None or isinstance(first.y, Ragged)

    def astype(self, dtype: Any) -> "Reading":
        """Return the source with its samples checked, and floating ones in a type; the same object
        as before for the same type.
        """
        known: Reading | None = vars(self).get("_reading")
        if known is None or known.dtype != dtype:
            known = self._reading = Reading(self, dtype)
        return known

    def in_memory(self, numbers: Integers) -> ArrayDataset:
        """Return some samples as a data set."""
        return ArrayDataset.unchecked(*self.take(numbers))

    def excerpt(self, most: int) -> ArrayDataset:
        """Return so many samples at most as a data set, spread over all of it, and fewer of large
        ones.
        """
        one = sum(leaf.nbytes for _, leaf in _parts(self.take(self.some(1))))
        most = max(1, min(most, (1 << 24) // max(1, one)))
        return self.in_memory(self.some(most) if self.ordered else scattered(len(self), most))

    def digest(self) -> str:
        """Return a text that is the same for the same data, but for what stands in few samples."""
        return " ".join(self.digests().values())

    def digests(self, most: int = 0) -> dict[str, str]:
        """Return such texts of all parts by their names."""
        texts = {}
        for name, leaf in _parts(self.take(self.some(_COMPARED))):
            values = leaf.values if isinstance(leaf, Ragged) else leaf
            shape = (len(self), *values.shape[1:])
            texts[name] = f"{shape} {array_digest(values).rpartition(') ')[2]}"
        for name, lengths in self.lengths.items():
            texts[f"{name} lengths"] = array_digest(np.asarray(lengths))
        return texts

    def weighted(self, class_weight: Any, ignore: int | None = None) -> "Source":
        """Return the source with each label's weight, times the weights that there are, as of
        `ArrayDataset.weighted`; all targets are read for it.
        """
        owner = "Trainer.fit"
        found: dict[Any, int] = {}
        dtype: Any = np.int64
        for numbers in batches(len(self), _COUNTED, np.arange(len(self))):
            labels = weighing.labels_of(owner, _structure("y", self.targets(numbers)))
            dtype = labels.dtype
            for kind, count in zip(*np.unique(labels, return_counts=True), strict=True):
                found[kind] = found.get(kind, 0) + int(count)
        kinds = np.array(sorted(found), dtype)
        counts = np.array([found[kind] for kind in kinds])
        return _Weighted(self, weighing.LabelWeights(owner, class_weight, kinds, counts, ignore))


Dataset = ArrayDataset | Source
"""What a trainer takes."""


def _parts(rows: Rows) -> Iterator[tuple[str, Any]]:
    """Yield arrays and `Ragged`s of samples by their names."""
    for key, part in zip(("x", "y", "weights"), rows, strict=True):
        if part is not None:
            yield from leaves(key, _structure(key, part))


def _structure(name: str, given: Any) -> Samples:
    """Return samples that a source has returned as tuples and dicts of arrays."""
    if isinstance(given, tuple):
        return tuple(_structure(f"{name}[{n}]", part) for n, part in enumerate(given))
    if isinstance(given, Mapping):
        return {key: _structure(f"{name}[{key!r}]", part) for key, part in given.items()}
    if isinstance(given, Ragged):
        return given
    require_unmasked("Source.take", name, given)
    try:
        array = np.asarray(given)
    except Exception as error:
        must, fix = f"{name} must be an array", "Sequences of different lengths are a ddbp.Ragged."
        got = f"a {type(given).__name__}, of which NumPy makes none: {error}"
        raise TypeError(message("Source.take", must, got.rstrip("."), fix)) from error
    if not array.ndim:
        must, fix = f"{name} must have an axis of samples", "Return arrays (R, …)."
        raise ValueError(message("Source.take", must, f"a {type(given).__name__}", fix))
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _numbers_of(given: Any, samples: int) -> Integers:
    numbers = np.asarray(given)
    fix = f"Pass integers (R,), one or more, from 0 to {samples - 1}."
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not numbers.size:
        must, got = "numbers of samples must be integers", f"{numbers.shape} {numbers.dtype}"
        raise ValueError(message("Source.subset", must, got, fix))
    if numbers.min() < 0 or numbers.max() >= samples:
        must, got = "numbers of samples must be those of the source", f"{numbers.max()}"
        got = got if numbers.min() >= 0 else f"{numbers.min()}"
        raise ValueError(message("Source.subset", must, got, fix))
    return numbers.astype(np.int64, copy=False)


class _Wrapper(Source):
    """A source made of another one."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    @property
    def ordered(self) -> bool:  # type: ignore[override]
        return self._source.ordered

    @property
    def lengths(self) -> Mapping[str, Integers]:  # type: ignore[override]
        return self._source.lengths

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._source.classes

    def targets(self, numbers: Integers) -> Any:
        return self._source.targets(numbers)

    def where(self, name: str, number: int) -> str:
        return self._source.where(name, number)


class _Subset(_Wrapper):
    """Some samples of a source."""

    def __init__(self, source: Source, numbers: Integers) -> None:
        super().__init__(source)
        self._numbers = numbers
        self._lengths = {name: each[numbers] for name, each in source.lengths.items()}

    def __repr__(self) -> str:
        return f"{len(self)} samples of {self._source!r}"

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def lengths(self) -> Mapping[str, Integers]:  # type: ignore[override]
        return self._lengths

    def take(self, numbers: Integers) -> Rows:
        return self._source.take(self._numbers[numbers])

    def targets(self, numbers: Integers) -> Any:
        return self._source.targets(self._numbers[numbers])

    def where(self, name: str, number: int) -> str:
        return self._source.where(name, int(self._numbers[number]))


class _Mapped(_Wrapper):
    """What a function makes of samples."""

    def __init__(self, source: Source, function: Callable[[Any, Any], tuple[Any, Any]]) -> None:
        super().__init__(source)
        given: Any = function
        if not callable(given) or isinstance(given, type):
            fix = "Pass a function of (x, y) that returns (x, y)."
            must = "map takes a function"
            raise TypeError(message("Source.map", must, f"a {type(given).__name__}", fix))
        self._function = function

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return f"{self._source!r}.map({name})"

    def take(self, numbers: Integers) -> Rows:
        rows = self._source.take(numbers)
        found: Any = self._function(rows.x, rows.y)
        if not isinstance(found, tuple) or len(found) != 2:
            must, fix = "the function must return (x, y)", "Return y as it came if it is not used."
            raise TypeError(message("Source.map", must, f"a {type(found).__name__}", fix))
        return Rows(*found, rows.weights)

    def targets(self, numbers: Integers) -> Any:
        return self.take(numbers).y


class _Weighted(_Wrapper):
    """A source with weights of its labels."""

    def __init__(self, source: Source, labels: weighing.LabelWeights) -> None:
        super().__init__(source)
        self._labels = labels

    def __repr__(self) -> str:
        return repr(self._source)

    def take(self, numbers: Integers) -> Rows:
        x, y, weights = self._source.take(numbers)
        y = _structure("y", y)
        weights = None if weights is None else _structure("weights", weights)
        weights = weighing.of_positions("Source", y, weights)
        return Rows(x, y, self._labels.times("Source", y, weights))


class Reading(_Wrapper):
    """A source as a trainer reads it: by one thread at a time; every sample is checked, and
    floating ones are in its type.

    Parameters
    ----------
    source
        The source.
    dtype
        The type of floating samples.
    """

    def __init__(self, source: Source, dtype: Any) -> None:
        super().__init__(source)
        if not len(source):
            must, fix = "there must be one sample or more", "Check the path or filter."
            raise ValueError(message(self._name, must, "none", fix))
        self.dtype = dtype
        self._digests: dict[str, str] | None = None
        self._form: list[tuple[str, str]] | None = None
        # What all samples have in common is what the first one is.
        first = self.take(source.some(1))
        self.has_targets = first.y is not None
        self._weighed = first.weights is not None

    @property
    def _name(self) -> str:
        source: Any = self._source
        while isinstance(source, _Wrapper):
            source = source._source
        return type(source).__name__

    def __repr__(self) -> str:
        return repr(self._source)

    @property
    def has_weights(self) -> bool:
        return self._weighed

    def astype(self, dtype: Any) -> "Reading":
        return self if dtype == self.dtype else Reading(self._source, dtype)

    def digests(self, most: int = 0) -> dict[str, str]:
        if self._digests is None:
            with _ONE_READS:
                self._digests = self._source.digests(most)
        return self._digests

    def targets(self, numbers: Integers) -> Any:
        with _ONE_READS:
            return self._source.targets(numbers)

    def take(self, numbers: Integers) -> Rows:
        with _ONE_READS:
            rows: Any = self._source.take(numbers)
        if not isinstance(rows, Rows):
            fix = "Return ddbp.data.Rows(x, y)."
            raise TypeError(message(self._name, "take must return Rows", type(rows).__name__, fix))
        x = self._checked("x", rows.x, numbers)
        y = None if rows.y is None else self._checked("y", rows.y, numbers)
        weights = None
        if rows.weights is not None:
            weights = self._checked("weights", rows.weights, numbers)
            weights = weighing.floating(self._name, weights)
        self._require_form(Rows(x, y, weights), numbers)
        weights = weighing.of_positions(self._name, y, weights)
        return Rows(*map(self._cast, (x, y, weights)))

    def _cast(self, part: Any) -> Any:
        return None if part is None else of_leaves(lambda leaf: cast(leaf, self.dtype), part)

    def _checked(self, key: str, part: Any, numbers: Integers) -> Samples:
        """Return a part of samples that were read, or refuse it."""
        part = _structure(key, part)
        for name, leaf in leaves(key, part):
            if len(leaf) != len(numbers):
                must = f"take must return as many of {name} as it is asked for, {len(numbers)}"
                fix = "Return a row for each number, in their order."
                raise ValueError(message(self._name, must, len(leaf), fix))
            self._require_lengths(name, leaf, numbers)
            if leaf.dtype.kind not in "fiub":
                fix = "Encode it as numbers; labels as integers from 0."
                raise TypeError(message(self._name, f"{name} must be numeric", leaf.dtype, fix))
            values = leaf.values if isinstance(leaf, Ragged) else leaf
            of = name, leaf, numbers
            if leaf.dtype.kind == "f":
                self._require(*of, np.isfinite(values), "finite", "Drop or impute that sample.")
                require_range(self._name, name, leaf, self.dtype)
            if key == "weights":
                self._require(*of, values >= 0, "at least 0", "0 leaves a sample out.")
        return part

    def _require_lengths(self, name: str, leaf: Any, numbers: Integers) -> None:
        if not isinstance(leaf, Ragged):
            return
        known = self.lengths.get("y" if name == "weights" else name)
        if known is None:
            must, fix = f"lengths must hold those of {name}", "Give the length of every sequence."
            raise ValueError(message(self._name, must, f"{[*self.lengths] or 'none'}", fix))
        if len(known) != len(self):
            must, fix = f"lengths of {name} must be of all samples", "Give each sequence one."
            raise ValueError(message(self._name, must, f"{len(known)} of {len(self)}", fix))
        if (wrong := known[numbers] != leaf.lengths).any():
            row = int(wrong.argmax())
            number = int(numbers[row])
            must = f"{name} of {self.where(name, number)} must have the length that lengths says"
            got = f"{leaf.lengths[row]} steps where it says {known[number]}"
            raise ValueError(message(self._name, must, got, "Give the lengths of these sequences."))

    def _require(
        self, name: str, leaf: Any, numbers: Integers, right: Array, must: str, fix: str
    ) -> None:
        """Refuse the first value that is not `right`, by its sample."""
        if right.all():
            return
        values = leaf.values if isinstance(leaf, Ragged) else leaf
        place, *rest = np.argwhere(~right)[0].tolist()
        value, row = values[(place, *rest)], place
        if isinstance(leaf, Ragged):
            row = int(np.searchsorted(np.cumsum(leaf.lengths), place, side="right"))
            rest = [place - int(leaf.lengths[:row].sum()), *rest]
        at = f"{name}[{', '.join(map(str, rest))}]" if rest else name
        got = f"{value} in {at} of {self.where(name, int(numbers[row]))}"
        raise ValueError(message(self._name, f"{name} must be {must}", got, fix))

    def _require_form(self, rows: Rows, numbers: Integers) -> None:
        """Refuse samples of another kind than those before them."""
        form = [
            (name, f"{'ragged ' * isinstance(leaf, Ragged)}{_of_one(leaf)} {leaf.dtype}")
            for name, leaf in _parts(rows)
        ]
        if self._form is None:
            self._form = form
        if form != self._form:
            have, had = (
                "no other part" if more is None else f"{more[0]} {more[1]}"
                for more in _first_difference(form, self._form)
            )
            must = "all samples must be of one kind"
            first, last = self.where("x", int(numbers[0])), self.where("x", int(numbers[-1]))
            got = f"{have} in {first} to {last}, {had} in those before"
            fix = "Return the same parts, shapes and types for every sample."
            raise ValueError(message(self._name, must, got, fix))


def _of_one(leaf: Any) -> tuple[int, ...]:
    values = leaf.values if isinstance(leaf, Ragged) else leaf
    return tuple(values.shape[1:])


def _first_difference(here: list[Any], there: list[Any]) -> tuple[Any, Any]:
    longest = max(len(here), len(there))
    pairs = zip(*(each + [None] * (longest - len(each)) for each in (here, there)), strict=True)
    return next((one, other) for one, other in pairs if one != other)
