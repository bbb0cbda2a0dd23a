"""What is predicted, as a file: CSV, Parquet or .npz, by the ending of its name."""

import csv
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from ddbp import files
from layers.errors import message

Columns = Mapping[str, Any]
"""Lists or arrays of one length by name."""


def check(path: Path) -> Path:
    """Return where predictions go, or refuse a file that cannot be written or is of no known kind,
    before anything is computed.
    """
    if path.suffix.lower() not in _WRITERS:
        must = f"the name of --output must end in {', '.join(_WRITERS)}"
        raise ValueError(message("ddbp predict", must, path, "Try predictions.csv."))
    if not os.path.isdir(path.absolute().parent) or os.path.isdir(path):
        must = "--output must be a file in an existing folder"
        raise ValueError(message("ddbp predict", must, path, "Make the folder."))
    if not os.access(path.absolute().parent, os.W_OK):
        raise files.unwritable("ddbp predict", path, PermissionError("its folder is read only"))
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        fix = "Install it: pip install pyarrow; or write a CSV file."
        must = "Parquet files need the package pyarrow"
        raise ImportError(message("ddbp predict", must, "none", fix))
    return path


def write(path: Path, columns: Columns) -> None:
    """Write columns to a file, whole or not at all; what is no UTF-8, as names of files may be, is
    escaped.
    """
    columns = {
        _told(name): [*map(_told, each)] if isinstance(each, list) else each
        for name, each in columns.items()
    }
    try:
        with files.whole(path) as place:
            _WRITERS[path.suffix.lower()](place, columns)
    except OSError as error:
        raise files.unwritable("ddbp predict", path, error) from error


def _told(cell: Any) -> Any:
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell


def rows(columns: Columns) -> list[list[Any]]:
    """Return the rows of columns, with numbers as Python has them."""
    lists = [
        column.tolist() if isinstance(column, np.ndarray) else list(column)
        for column in columns.values()
    ]
    return [list(row) for row in zip(*lists, strict=True)]


def _csv(path: Path, columns: Columns) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows(columns))


def _parquet(path: Path, columns: Columns) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({name: _plain(each) for name, each in columns.items()}), path)


def _npz(path: Path, columns: Columns) -> None:
    # A column may be called as an argument of `numpy.savez`.
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, column in columns.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(column), allow_pickle=False)


def _plain(column: Any) -> Any:
    return list(column) if not isinstance(column, np.ndarray) else column


_WRITERS: dict[str, Callable[[Path, Columns], None]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".npz": _npz,
}
