"""Samples in arrays that are larger than memory."""

from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from layers.checks import require_unmasked
from layers.errors import message, wording
from layers.types import Integers

from .mapped import FileRows, Pages, file_of, open_arrays
from .samples import Ragged, described, leaves, of_leaves, require_equal_lengths
from .source import Rows, Source

_FIX = "Pass an array, the path of a .npy file, or arrays of ddbp.data.open_arrays."


class ArraySource(Source):
    """Samples in arrays that are read row by row: of files (`numpy.memmap`, HDF5, zarr) or in
    memory, where no copy of the type of the model shall be made.

    Parameters
    ----------
    x, y, weights
        As of `ArrayDataset`, but that an array may be the path of a `.npy` file, one of
        `open_arrays`, or any object with `shape`, `dtype` and indexing by a list of rows in rising
        order. Sequences of different lengths are a `Ragged`, such as `Ragged.joined`. Without y
        they are for prediction only.

    Raises
    ------
    TypeError
        An array cannot be read by its rows, or is not numeric.
    ValueError
        Arrays are empty, or differ in length; a file is not what it must be.

    Examples
    --------
    >>> arrays = ddbp.data.open_arrays("train.npz")
    >>> source = ddbp.data.ArraySource(arrays["x"], arrays["y"])
    """

    @wording("ArraySource")
    def __init__(self, x: Any, y: Any = None, *, weights: Any = None) -> None:
        given = {"x": x, "y": y, "weights": weights}
        self._arrays = {
            name: _opened(name, part) for name, part in given.items() if part is not None
        }
        self._samples = require_equal_lengths("ArraySource", self._arrays)
        if not self._samples:
            must, fix = "there must be one sample or more", "Check the path or filter."
            raise ValueError(message("ArraySource", must, "none", fix))
        parts = [each for name, part in self._arrays.items() for each in leaves(name, part)]
        self.lengths = {name: leaf.lengths for name, leaf in parts if isinstance(leaf, Ragged)}
        values = [leaf.values if isinstance(leaf, Ragged) else leaf for _, leaf in parts]
        # Those in files are read; what is left that is mapped, such as columns, is let go.
        read = {id(array): FileRows.of(array) for array in values}
        self._read = {key: rows for key, rows in read.items() if rows is not None}
        self._pages = Pages.of(array for array in values if id(array) not in self._read)
        self._files = {
            name: file
            for (name, _), array in zip(parts, values, strict=True)
            if (file := file_of(array)) is not None
        }

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={described(part)}" for name, part in self._arrays.items())
        return f"ArraySource({parts})"

    def __reduce__(self) -> Any:
        # As ranks get it: maps of files are made anew there, and given back.
        parts = {"x": None, "y": None, "weights": None} | self._arrays
        return partial(ArraySource, weights=parts["weights"]), (parts["x"], parts["y"])

    def __len__(self) -> int:
        return self._samples

    def take(self, numbers: Integers) -> Rows:
        return Rows(**{name: self._rows(part, numbers) for name, part in self._arrays.items()})

    def targets(self, numbers: Integers) -> Any:
        return self._rows(self._arrays["y"], numbers) if "y" in self._arrays else None

    def where(self, name: str, number: int) -> str:
        file = self._files.get(name)
        return f"sample {number}" if file is None else f"sample {number} of {file}"

    def _rows(self, part: Any, numbers: Integers) -> Any:
        return of_leaves(lambda leaf: self._rows_of(leaf, numbers), part)

    def _rows_of(self, leaf: Any, numbers: Integers) -> Any:
        found: Any
        rows = self._read.get(id(leaf.values if isinstance(leaf, Ragged) else leaf))
        if rows is not None:
            if not isinstance(leaf, Ragged):
                return rows.take(numbers)
            return leaf.of_ranges(rows.ranges, numbers)
        if isinstance(leaf, np.ndarray):
            found = np.take(leaf, numbers, axis=0)
        elif isinstance(leaf, Ragged):
            found = leaf[numbers]
        else:
            rising, places = np.unique(numbers, return_inverse=True)
            found = np.asarray(leaf[rising.tolist()])[places]
        values = found.values if isinstance(found, Ragged) else found
        self._pages.read(len(numbers), values.nbytes)
        return found


def _opened(name: str, given: Any) -> Any:
    """Return what is given with its files opened, and nothing of it read."""
    if isinstance(given, str | PathLike):
        given = open_arrays(given)
    if isinstance(given, tuple):
        return tuple(_opened(f"{name}[{n}]", part) for n, part in enumerate(given))
    if isinstance(given, dict):
        return {key: _opened(f"{name}[{key!r}]", part) for key, part in given.items()}
    if isinstance(given, Ragged):
        return given
    require_unmasked("ArraySource", name, given)
    if isinstance(given, list):
        given = np.asarray(given)
    if not all(hasattr(given, each) for each in ("shape", "dtype", "__getitem__")):
        must = f"{name} must be an array that is read by its rows"
        raise TypeError(message("ArraySource", must, f"a {type(given).__name__}", _FIX))
    if getattr(given.dtype, "kind", "") not in tuple("fiub"):
        must, fix = f"{name} must be numeric", "Encode it as numbers; labels as integers from 0."
        raise TypeError(message("ArraySource", must, given.dtype, fix))
    if not given.shape:
        must, fix = f"{name} must have an axis of samples", "Samples are the first axis."
        raise ValueError(message("ArraySource", must, f"shape {given.shape}", fix))
    return given
