"""Samples as they are given, an array or several, in tuples and dicts, of one length or not; and
the rows of them that reach a model.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from layers import Tape, Value
from layers.checks import require_unmasked
from layers.errors import message, wording
from layers.types import Array, Integers

_FIX = "Encode it as numbers; labels as integers from 0."


class Ragged:
    """Sequences of different lengths, such as sentences.

    A batch of them is one array (N, T, …), padded at the end to the longest sequence of the
    *global* batch, and their lengths (N,): a model is called with both.

    Parameters
    ----------
    sequences
        One array (T_n, …) per sample, with one time step or more and all else in common. Real
        numbers, all finite.
    padding
        What stands after the last step of a sequence.

    Attributes
    ----------
    values
        All time steps, one sequence after the other (ΣT_n, …).
    lengths
        T_n, (N,).
    padding
        As given.

    Raises
    ------
    ValueError
        There is no sequence, or one is empty, or they differ in more than their length, or hold NaN
        or infinite values.
    TypeError
        They are not numeric.
    """

    @wording("Ragged")
    def __init__(self, sequences: Sequence[Any], padding: float = 0) -> None:
        arrays = [array_of("Ragged", f"sequence {n}", each) for n, each in enumerate(sequences)]
        if not arrays:
            must = "there must be one sequence or more"
            raise ValueError(message("Ragged", must, "none", "Check the path or filter."))
        rest = arrays[0].shape[1:]
        for number, each in enumerate(arrays):
            if each.shape[1:] != rest:
                must = f"all sequences must have shape ({', '.join(map(str, ('T', *rest)))})"
                fix = "Only the first axis, time, may differ."
                raise ValueError(message("Ragged", must, f"{each.shape} of {number}", fix))
        self.values: Array = np.concatenate(arrays)
        self.lengths: Integers = np.array([len(each) for each in arrays])
        self.padding = padding
        self._starts = np.cumsum(self.lengths) - self.lengths

    @classmethod
    @wording("Ragged.joined")
    def joined(cls, values: Any, lengths: Any, padding: float = 0) -> "Ragged":
        """Return the sequences that lie in one array, one after the other.

        Parameters
        ----------
        values
            All time steps (ΣT_n, …). A `numpy.memmap` stays in its file; its values are checked by
            whoever reads them.
        lengths
            T_n, (N,), integers of at least 1.
        padding
            As of `Ragged`.
        """
        owner = "Ragged.joined"
        known = array_of(owner, "lengths", lengths)
        if known.ndim != 1 or known.dtype.kind not in "iu" or known.min() < 1:
            must, fix = "lengths must be integers (N,) of at least 1", "Leave empty sequences out."
            got = f"{known.min()}" if known.dtype.kind in "iu" else known.dtype
            raise ValueError(message(owner, must, got if known.ndim == 1 else known.shape, fix))
        steps = values if isinstance(values, np.memmap) else array_of(owner, "values", values)
        if steps.ndim < 1 or len(steps) != known.sum():
            must, fix = "lengths must add up to the length of values", "Give each sequence one."
            raise ValueError(message(owner, must, f"{known.sum()} and {len(steps)}", fix))
        return cls.unchecked(steps, known.astype(np.int64), padding)

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        padding = f", padding={self.padding}" if self.padding else ""
        return f"Ragged({described(self)}{padding})"

    def __getitem__(self, rows: Any) -> Any:
        """Return the sequence of a number, an array (T_n, …), or some of them, a `Ragged`."""
        if isinstance(rows, int | np.integer):
            start = self._starts[rows]
            return self.values[start : start + self.lengths[rows]]
        of = zip(self._starts[rows], self.lengths[rows], strict=True)
        parts = [self.values[start : start + length] for start, length in of]
        if not parts:
            return self.unchecked(self.values[:0], self.lengths[:0], self.padding)
        return self.unchecked(np.concatenate(parts), self.lengths[rows], self.padding)

    def of_ranges(self, read: Callable[[Any, Any], Array], numbers: Integers) -> "Ragged":
        """Return some of the sequences, whose values `read` returns, given where they begin and
        their lengths.
        """
        lengths = self.lengths[numbers]
        return self.unchecked(read(self._starts[numbers], lengths), lengths, self.padding)

    @property
    def dtype(self) -> Any:
        """The type of the values."""
        return self.values.dtype

    def astype(self, dtype: Any, copy: bool = True) -> "Ragged":
        """Return the sequences in another type."""
        return self.with_values(self.values.astype(dtype, copy=copy), self.padding)

    def with_values(self, values: Array, padding: float) -> "Ragged":
        """Return sequences of the same lengths."""
        return self if values is self.values else self.unchecked(values, self.lengths, padding)

    @staticmethod
    def unchecked(values: Array, lengths: Integers, padding: float) -> "Ragged":
        """Return sequences that are known to be right, or are checked by whoever reads them."""
        result = object.__new__(Ragged)
        result.values = values
        result.lengths = lengths
        result.padding = padding
        result._starts = np.cumsum(lengths) - lengths
        return result

    def padded(self, rows: Any, mine: Any, steps: int | None = None) -> "Padded":
        """Return the sequences `mine`, padded to the longest of `rows`, or to so many steps."""
        if steps is None:
            steps = int(self.lengths[rows].max(initial=1))
        lengths = self.lengths[mine]
        within = np.arange(steps) < lengths[:, np.newaxis]
        values = np.full((*within.shape, *self.values.shape[1:]), self.padding, self.dtype)
        at = self._starts[mine][:, np.newaxis] + np.arange(steps)
        values[within] = self.values[at[within]]
        return Padded(values, lengths)


class Padded(NamedTuple):
    """A batch of sequences of different lengths.

    Attributes
    ----------
    values
        (N, T, …), with padding at the end.
    lengths
        (N,), in 1..T.
    """

    values: Array
    lengths: Integers


Samples = Any
"""An array (N, …) or a `Ragged`, or a tuple or dict of such, or of tuples and dicts."""


def array_of(owner: str, name: str, given: Any, least: int = 1) -> Array:
    """Return what is given as an array (N, …) of finite real numbers."""
    if isinstance(given, Iterator):
        must, fix = f"{name} must be an array", f"Collect it: {name}=np.stack(list(…))."
        raise TypeError(message(owner, must, f"a {type(given).__name__}", fix))
    if isinstance(given, Value):
        must, fix = f"{name} must be an array", "Of a value pass .array."
        raise TypeError(message(owner, must, f"a Value {given.shape}", fix))
    require_unmasked(owner, name, given)
    try:
        array = np.asarray(given)
    except ValueError as error:
        must = f"{name} must be an array, or a list of arrays that differ in their first axis only"
        raise ValueError(message(owner, must, _shapes(given), "Pad the other axes.")) from error
    except Exception as error:
        must, fix = f"{name} must be an array", "Of a tensor pass .detach().cpu().numpy()."
        raise TypeError(message(owner, must, f"{type(given).__name__}: {error}", fix)) from error
    if array.dtype.kind not in "fiub":
        sets = hasattr(given, "__getitem__") and not isinstance(given, Sequence | np.ndarray)
        fix = f"Collect a data set: {name}=np.stack(…)." if array.ndim == 0 and sets else _FIX
        if array.ndim and isinstance(array.flat[0], list | np.ndarray):
            fix = f"Pass sequences of different lengths as a list: {name}=list({name})."
        raise TypeError(message(owner, f"{name} must be numeric", array.dtype, fix))
    if array.ndim < 1 or len(array) < least:
        must, fix = f"{name} must hold one sample or more", "Check the path or filter."
        if array.ndim < 1:
            fix = "Samples are the first axis; a list is one array, a tuple several."
        raise ValueError(message(owner, must, f"shape {array.shape}", fix))
    if array.dtype.kind == "f":
        require_finite(owner, name, array)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _shapes(given: Any) -> str:
    """Return in words how the parts of a list differ, of which NumPy makes no array."""
    try:
        shapes = dict.fromkeys(np.shape(each) for each in given)
    except ValueError:
        return "lists of lists that differ in length"
    return "parts of shapes " + " and ".join(map(str, [*shapes][:2]))


def require_finite(owner: str, name: str, array: Array) -> None:
    """Refuse NaN and infinite values by the place of the first."""
    place = first_not_finite(name, array)
    if place is not None:
        count = int(array.size - np.isfinite(array).sum())
        got = f"{place}, {count} such values in all"
        must, fix = f"{name} must be finite", "Drop or impute those samples."
        raise ValueError(message(owner, must, got, fix))


def first_not_finite(name: str, array: Array) -> str | None:
    """Return the first value that is NaN or infinite with its place, if there is one."""
    finite = np.isfinite(array)
    if finite.all():
        return None
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    return f"{array[first]} at {name}[{', '.join(map(str, first))}]"


def samples_of(owner: str, name: str, given: Any, least: int = 1) -> Samples:
    """Return what is given as samples, at least so many, which are checked; lists of arrays of
    different lengths become `Ragged`.
    """
    if isinstance(given, Ragged):
        if isinstance(given.values, np.memmap):
            return given.with_values(array_of(owner, name, given.values), given.padding)
        return given
    if isinstance(given, tuple | Mapping):
        if not given:
            must, fix = f"{name} must hold an array", "Pass the arrays."
            raise ValueError(message(owner, must, given, fix))
        if isinstance(given, tuple):
            parts = enumerate(given)
            return tuple(samples_of(owner, f"{name}[{n}]", part, least) for n, part in parts)
        named = {
            key: samples_of(owner, f"{name}[{key!r}]", part, least) for key, part in given.items()
        }
        for key, part in named.items():
            if isinstance(part, Ragged) and f"{key}_lengths" in named:
                must = f"{name} must leave the name {key}_lengths to the lengths of {key!r}"
                raise ValueError(message(owner, must, [*named], "Leave it out; they are added."))
        return named
    return Ragged(given) if _unequal(given) else array_of(owner, name, given, least)


def _unequal(given: Any) -> bool:
    """Return whether this is a list of arrays or lists that differ in length."""
    if not isinstance(given, list):
        return False
    lengths = set()
    for each in given:
        if isinstance(each, str | bytes) or not hasattr(each, "__len__"):
            return False
        if isinstance(each, np.ndarray) and each.ndim == 0:
            return False
        lengths.add(len(each))
    return len(lengths) > 1


def leaves(name: str, samples: Samples) -> Iterator[tuple[str, Any]]:
    """Yield arrays and `Ragged`s with their names."""
    if type(samples) is tuple:
        for number, part in enumerate(samples):
            yield from leaves(f"{name}[{number}]", part)
    elif type(samples) is dict:
        for key, part in samples.items():
            yield from leaves(f"{name}[{key!r}]", part)
    else:
        yield name, samples


def of_leaves(function: Callable[..., Any], first: Samples, *others: Samples) -> Any:
    """Return the structure of what a function returns for the leaves of one or more alike."""
    kind = type(first)
    if kind is tuple or kind is list:
        return kind(of_leaves(function, *parts) for parts in zip(first, *others, strict=True))
    if kind is dict:
        return {
            key: of_leaves(function, part, *(other[key] for other in others))
            for key, part in first.items()
        }
    return function(first, *others)


def require_equal_lengths(owner: str, named: Mapping[str, Samples]) -> int:
    """Return the number of samples, or refuse arrays that differ in it."""
    # Arrays of zarr have a shape, but no `len`.
    found = [
        (name, len(leaf) if isinstance(leaf, Ragged) else leaf.shape[0])
        for key, part in named.items()
        for name, leaf in leaves(key, part)
    ]
    names, lengths = zip(*found, strict=True)
    if len(set(lengths)) > 1:
        must = f"{', '.join(names[:-1])} and {names[-1]} must have the same length"
        fix = "Every sample needs one target."
        if len(lengths) > 2:
            fix = "Every sample needs one of each. A tuple is several inputs; a list is one array."
        raise ValueError(message(owner, must, lengths, fix))
    return int(lengths[0])


def cast(leaf: Any, dtype: Any) -> Any:
    """Return floating samples in a type, integers and booleans as they are."""
    return leaf.astype(dtype, copy=False) if leaf.dtype.kind == "f" else leaf


def require_range(owner: str, name: str, samples: Samples, dtype: Any) -> None:
    """Refuse floating samples that would be infinite in a type by the place of the first."""
    largest = np.finfo(dtype).max
    for where, leaf in leaves(name, samples):
        array = leaf.values if isinstance(leaf, Ragged) else leaf
        if array.dtype.kind != "f" or array.dtype.itemsize <= largest.itemsize:
            continue
        if max(array.max(initial=0), -array.min(initial=0)) > largest:
            first = tuple(np.argwhere(np.abs(array) > largest)[0].tolist())
            must = (
                f"{where} must be at most {largest:.2e} in size, as {largest.dtype} holds no more"
            )
            place = f" at {where}[{', '.join(map(str, first))}]" if first else ""
            got = f"{array[first]}{place}"
            fix = "Scale the data, or make a float64 model: model.astype(np.float64)."
            raise ValueError(message(owner, must, got, fix))


def described(samples: Samples) -> str:
    """Return shapes and types in words."""
    if type(samples) is tuple:
        return f"({', '.join(map(described, samples))})"
    if type(samples) is dict:
        return f"{{{', '.join(f'{key}: {described(part)}' for key, part in samples.items())}}}"
    if isinstance(samples, Ragged):
        steps = f"{samples.lengths.min()}..{samples.lengths.max()}"
        shape = ", ".join((str(len(samples)), steps, *map(str, samples.values.shape[1:])))
        return f"({shape}) {samples.dtype}"
    return f"{samples.shape} {samples.dtype}"


def recorded(tape: Tape, samples: Samples, copy: bool = False) -> Any:
    """Return what a model gets: arrays as values on a tape, which copies them if told so, but masks
    (booleans) and lengths.
    """
    if type(samples) is np.ndarray:
        return tape.input(samples, gradient=False, copy=copy)

    def value(array: Array) -> Value | Array:
        return array if array.dtype.kind == "b" else tape.input(array, gradient=False, copy=copy)

    return spread(value, samples)


def spread(function: Callable[[Array], Any], samples: Samples) -> Any:
    """Return what a model gets where there is no tape, a function of each array: padded sequences
    are followed by their lengths, in a dict under the name with "_lengths" behind it.
    """
    kind = type(samples)
    if kind is Padded:
        return function(samples.values), samples.lengths
    if kind is tuple:
        result: list[Any] = []
        for part in samples:
            one = spread(function, part)
            result += one if type(part) is Padded else [one]
        return tuple(result)
    if kind is dict:
        named: dict[str, Any] = {}
        for key, part in samples.items():
            one = spread(function, part)
            if type(part) is Padded:
                named[key], named[f"{key}_lengths"] = one
            else:
                named[key] = one
        return named
    return function(samples)


def call(model: Callable[..., Any], x: Any) -> Any:
    """Return what a model returns for one input, a tuple of them or a dict."""
    positional = x if x.__class__ is tuple else ()
    named = x if x.__class__ is dict else {}
    if not (positional or named):
        return model(x)
    try:
        return model(*positional, **named)
    except TypeError:
        _require_arguments(model, positional, named)
        raise


def _require_arguments(model: Callable[..., Any], positional: Any, named: Any) -> None:
    """Refuse a model that cannot be called with so many inputs."""
    try:
        inspect.signature(model).bind(*positional, **named)
    except TypeError as error:
        names = [f"input {number}" for number in range(len(positional))] + [*named]
        must = f"the model must take what the data hold: {', '.join(names)}"
        fix = "Give its __call__ these arguments; lengths follow ragged sequences."
        raise TypeError(message("Trainer", must, error, fix)) from error
    except ValueError:
        # It does not say what it takes.
        return
