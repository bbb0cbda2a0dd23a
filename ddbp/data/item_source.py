"""Samples one by one: of objects that have them by number, and of generators."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from layers.checks import positive_int
from layers.errors import message, wording
from layers.types import Integers

from .samples import Ragged
from .source import Rows, Source

_KEYS = "Name the parts: x='image', y='label'."


class _Collating(Source):
    """Samples that come one by one, and are put together to rows."""

    def __init__(
        self, owner: str, x: Any, y: Any, weights: Any, lengths: Any, samples: int
    ) -> None:
        self._owner = owner
        self._names = {"x": x, "y": y, "weights": weights}
        lengths = {} if lengths is None else lengths
        if not isinstance(lengths, Mapping):
            lengths = {"x": lengths}
        self.lengths = {name: _lengths(owner, name, each) for name, each in lengths.items()}
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    @abstractmethod
    def _items(self, numbers: Integers) -> Sequence[Any]:
        """Return the samples with these numbers as they are."""

    def take(self, numbers: Integers) -> Rows:
        items = self._items(numbers)
        parts = [self._parts(item) for item in items]
        found = {}
        for name in ("x", "y", "weights"):
            each = [part[name] for part in parts]
            missing = [part is None for part in each]
            if all(missing):
                continue
            if any(missing):
                first = int(numbers[missing.index(True)])
                must, fix = f"all samples must have {name}, or none", "Give it to all of them."
                raise ValueError(message(self._owner, must, f"none in sample {first}", fix))
            found[name] = self._together(name, each, numbers)
        return Rows(**found)

    def targets(self, numbers: Integers) -> Any:
        return self.take(numbers).y

    def _parts(self, item: Any) -> dict[str, Any]:
        """Return x, y and weight of a sample."""
        named = any(name is not None for name in self._names.values())
        if isinstance(item, Mapping) or named:
            if self._names["x"] is None:
                got = f"a sample with {', '.join(map(repr, item))}"
                raise ValueError(message(self._owner, "x must name a part of samples", got, _KEYS))
            return {name: self._part(item, key) for name, key in self._names.items()}
        if not isinstance(item, tuple | list):
            return {"x": item, "y": None, "weights": None}
        if len(item) not in (2, 3):
            must = "a sample must be (x, y) or (x, y, weight)"
            fix = "Several inputs are a tuple of their own: ((a, b), y)."
            raise ValueError(message(self._owner, must, f"{len(item)} parts", fix))
        x, y, *rest = item
        return {"x": x, "y": y, "weights": rest[0] if rest else None}

    def _part(self, item: Any, key: Any) -> Any:
        """Return a part of a sample by its key, or several by a tuple or dict of keys."""
        if key is None:
            return None
        if isinstance(key, tuple):
            return tuple(self._part(item, each) for each in key)
        if isinstance(key, Mapping):
            return {name: self._part(item, each) for name, each in key.items()}
        try:
            return item[key]
        except (LookupError, TypeError) as error:
            has = [*item] if isinstance(item, Mapping) else f"a {type(item).__name__}"
            must = f"samples must have the part {key!r}"
            raise ValueError(message(self._owner, must, has, _KEYS)) from error

    def _together(self, name: str, parts: list[Any], numbers: Integers) -> Any:
        """Return the same part of several samples as one array, or a `Ragged`."""
        first = parts[0]
        if isinstance(first, tuple):
            places = range(len(first))
            return tuple(
                self._together(f"{name}[{n}]", [part[n] for part in parts], numbers) for n in places
            )
        if isinstance(first, Mapping):
            return {
                key: self._together(f"{name}[{key!r}]", [part[key] for part in parts], numbers)
                for key in first
            }
        arrays = []
        for part, number in zip(parts, numbers, strict=True):
            try:
                arrays.append(np.asarray(part))
            except Exception as error:
                must = f"{name} of sample {number} must be an array"
                fix = "Return numbers; of a tensor .detach().cpu()."
                got = f"a {type(part).__name__}: {error}"
                raise TypeError(message(self._owner, must, got.rstrip("."), fix)) from error
        ragged = name in self.lengths and all(array.ndim for array in arrays)
        kinds = [(array.shape[ragged:], array.dtype) for array in arrays]
        if len(set(kinds)) > 1:
            row = next(row for row, kind in enumerate(kinds) if kind != kinds[0])
            one, other = (f"{shape} {dtype}" for shape, dtype in (kinds[row], kinds[0]))
            must = f"{name} must have one shape and type in all samples"
            got = f"{one} in sample {numbers[row]}, {other} in sample {numbers[0]}"
            fix = "Convert them, or pass lengths= for sequences of different lengths."
            raise ValueError(message(self._owner, must, got, fix))
        if ragged:
            lengths = np.array([len(array) for array in arrays])
            return Ragged.unchecked(np.concatenate(arrays), lengths, 0)
        return np.stack(arrays)


class ItemSource(_Collating):
    """Samples of an object that has them by number: a data set of PyTorch, one of Hugging Face, or
    a list.

    Parameters
    ----------
    items
        Has `__len__` and `__getitem__`, or `__getitems__` for several at once. A sample is (x, y),
        (x, y, weight), x alone for a prediction, or a mapping. It must be the same whenever it is
        read: what changes samples at random belongs elsewhere.
    x, y, weights
        Which parts of a sample these are, by their keys, if it is a mapping or a longer tuple; a
        tuple or dict of keys takes several.
    lengths
        The lengths (N,) of the sequences that are x, if these differ; or a dictionary of such by
        the name of the part, as in "y" or "x[0]".

    Raises
    ------
    TypeError
        The object has no length, or no samples by number.
    ValueError
        It is empty.

    Examples
    --------
    >>> source = ddbp.data.ItemSource(torchvision_dataset)
    >>> source = ddbp.data.ItemSource(hugging_face_dataset, x="image", y="label")
    """

    @wording("ItemSource")
    def __init__(
        self, items: Any, x: Any = None, y: Any = None, *, weights: Any = None, lengths: Any = None
    ) -> None:
        by_number = hasattr(items, "__getitem__") and not isinstance(items, Mapping)
        if not (by_number and hasattr(items, "__len__")):
            must, fix = (
                "items must have __getitem__ by number and __len__",
                "A generator, or a data set that is only iterated over, is a GeneratorSource.",
            )
            raise TypeError(message("ItemSource", must, f"a {type(items).__name__}", fix))
        if not len(items):
            must, fix = "there must be one sample or more", "Check the path or filter."
            raise ValueError(message("ItemSource", must, "none", fix))
        super().__init__("ItemSource", x, y, weights, lengths, len(items))
        self._given = items

    def __repr__(self) -> str:
        return f"ItemSource({type(self._given).__name__} of {len(self)})"

    def _items(self, numbers: Integers) -> Sequence[Any]:
        asked = numbers.tolist()
        together = getattr(self._given, "__getitems__", None)
        if together is not None:
            found: Sequence[Any] = together(asked)
            return found
        return [self._given[number] for number in asked]


class GeneratorSource(_Collating):
    """Samples of a generator, in its order.

    Each rank runs through all of it, and keeps its own rows of every batch; an epoch, and whatever
    else goes back to earlier samples, begins anew. So what reads a sample of high number first
    reads all before it: where samples can be had by number, an `ItemSource` is faster, and its
    order another one in each epoch.

    Parameters
    ----------
    make
        Returns a new iterator over samples, as of `ItemSource`: the same ones each time, and on
        every rank.
    samples
        How many there are: as many as the iterator yields, of which `itertools.islice` takes some.
    x, y, weights, lengths
        As of `ItemSource`.

    Raises
    ------
    TypeError
        `make` is no function, such as an iterator, which would be over after one epoch.
    ValueError
        When they are read: there are fewer samples, or more.

    Examples
    --------
    >>> source = ddbp.data.GeneratorSource(lambda: read_lines("train.jsonl"), samples=60_000)
    """

    ordered = True

    @wording("GeneratorSource")
    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        samples: int,
        x: Any = None,
        y: Any = None,
        *,
        weights: Any = None,
        lengths: Any = None,
    ) -> None:
        given: Any = make
        if not callable(given):
            must = "make must be a function that returns a new iterator"
            fix = "Pass the function itself, or lambda: iter(…): each epoch calls it once more."
            got = f"a {type(given).__name__}"
            raise TypeError(message("GeneratorSource", must, got, fix))
        samples = positive_int("GeneratorSource", "samples", samples, "Count them once.")
        super().__init__("GeneratorSource", x, y, weights, lengths, samples)
        self._make = make
        self._begin()

    def _begin(self) -> None:
        self._iterator: Iterator[Any] = iter(())
        self._lock = Lock()
        # The number of the sample that comes next.
        self._next = len(self)

    def __getstate__(self) -> dict[str, Any]:
        # An iterator is of this process alone.
        own = ("_iterator", "_lock", "_next")
        return {name: each for name, each in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __repr__(self) -> str:
        return f"GeneratorSource({len(self)} samples)"

    def _items(self, numbers: Integers) -> Sequence[Any]:
        rising = np.argsort(numbers, kind="stable")
        found: list[Any] = [None] * len(numbers)
        item, last = None, -1
        # A thread may read ahead meanwhile.
        with self._lock:
            for place in rising.tolist():
                number = int(numbers[place])
                if number != last:
                    item, last = self._item(number), number
                found[place] = item
        return found

    def _item(self, number: int) -> Any:
        """Return the sample of a number, having read those before it."""
        if number < self._next:
            made: Any = self._make()
            if not isinstance(made, Iterable):
                must, fix = "make must return an iterator over samples", "Have it yield them."
                raise TypeError(message("GeneratorSource", must, f"a {type(made).__name__}", fix))
            self._iterator, self._next = iter(made), 0
        while True:
            try:
                item = next(self._iterator)
            except StopIteration:
                must = f"the generator must yield {len(self)} samples"
                fix = "Pass samples= as many as it yields."
                got = f"{self._next}"
                raise ValueError(message("GeneratorSource", must, got, fix)) from None
            self._next += 1
            if self._next == len(self):
                self._require_end()
            if self._next > number:
                return item

    def _require_end(self) -> None:
        """Refuse samples that would never be read."""
        for _ in self._iterator:
            must = f"the generator must yield {len(self)} samples"
            fix = (
                f"Pass samples= as many as it yields, or take itertools.islice(items, {len(self)})."
            )
            raise ValueError(message("GeneratorSource", must, "more", fix))


def _lengths(owner: str, name: str, given: Any) -> Integers:
    lengths = np.asarray(given)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
        must, fix = f"lengths of {name} must be integers (N,) of at least 1", "Pass one for each."
        got = f"{lengths.shape} {lengths.dtype}"
        raise ValueError(message(owner, must, got, fix))
    return lengths.astype(np.int64, copy=False)
