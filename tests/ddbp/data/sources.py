"""Sources of all kinds with the samples of one data set."""

import numpy as np
import pytest
import safetensors.numpy

import ddbp
from ddbp.data import ArraySource, ItemSource, Rows, Source, open_arrays

from ..training.sentences import WORDS
from ..training.small import LABELS, X


class Own(Source):
    """A source as a user writes it, which keeps what it was asked for."""

    def __init__(self, x=X, y=LABELS, weights=None):
        self.arrays = x, y, weights
        self.asked = []

    def __len__(self):
        return len(self.arrays[0])

    def take(self, numbers):
        self.asked.append(numbers.tolist())
        return Rows(*(each if each is None else each[numbers] for each in self.arrays))


def mapped(folder, **arrays):
    """Return maps of arrays in `.npy` files."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [open_arrays(folder / f"{name}.npy") for name in arrays]


def of_npz(folder):
    np.savez(folder / "all.npz", x=X, labels=LABELS)
    arrays = open_arrays(folder / "all.npz")
    return ArraySource(arrays["x"], arrays["labels"])


def of_safetensors(folder):
    safetensors.numpy.save_file({"x": X, "y": LABELS}, folder / "all.safetensors")
    arrays = open_arrays(folder / "all.safetensors")
    return ArraySource(arrays["x"], arrays["y"])


def of_arrow(folder, kind="arrow"):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import ipc, parquet

    rows = arrow.FixedSizeListArray.from_arrays(arrow.array(X.ravel()), X.shape[1])
    table = arrow.table({"x": rows, "y": LABELS, "name": ["a"] * len(X)})
    path = folder / f"all.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path, row_group_size=30)
    elif kind == "stream":
        with ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    else:
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    return ddbp.data.ArrowSource(path, x="x", y="y", cache=folder)


def of_columns(folder):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    names = [f"c{n}" for n in range(X.shape[1])]
    for part, rows in enumerate((slice(0, 50), slice(50, None))):
        columns = dict(zip(names, X[rows].T, strict=True)) | {"y": LABELS[rows]}
        parquet.write_table(arrow.table(columns), folder / f"part{part}.parquet")
    paths = [folder / f"part{part}.parquet" for part in range(2)]
    return ddbp.data.ArrowSource(paths, x=names, y="y", cache=folder / "cache")


def of_hdf5(folder):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(folder / "data.h5", "w") as file:
        file["x"], file["y"] = X, LABELS
    file = h5py.File(folder / "data.h5", "r")
    return ArraySource(file["x"], file["y"])


def of_zarr(folder):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    zarr.save_group(str(folder / "data.zarr"), x=X, y=LABELS)
    group = zarr.open_group(str(folder / "data.zarr"), mode="r")
    return ArraySource(group["x"], group["y"])


class Several:
    """Gives several samples at once, as newer data sets of PyTorch do."""

    def __len__(self):
        return len(X)

    def __getitem__(self, number):
        raise AssertionError("several are asked for at once")

    def __getitems__(self, numbers):
        return [(X[number], LABELS[number]) for number in numbers]


class Grid:
    """An array that is read by lists of rising rows only, as those of HDF5."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        assert rows == sorted(set(rows))
        return self.array[rows]


KINDS = {
    "own": lambda folder: Own(),
    "arrays": lambda folder: ArraySource(X, LABELS),
    "npy": lambda folder: ArraySource(*mapped(folder, x=X, y=LABELS)),
    "paths": lambda folder: (
        mapped(folder, x=X, y=LABELS) and ArraySource(folder / "x.npy", str(folder / "y.npy"))
    ),
    "other byte order, by columns": lambda folder: ArraySource(
        *mapped(folder, x=np.asfortranarray(X, ">f8"), y=LABELS)
    ),
    "npz": of_npz,
    "safetensors": of_safetensors,
    "rows of another library": lambda folder: ArraySource(Grid(X), Grid(LABELS)),
    "hdf5": of_hdf5,
    "zarr": of_zarr,
    "arrow": of_arrow,
    "arrow stream": lambda folder: of_arrow(folder, "stream"),
    "parquet": lambda folder: of_arrow(folder, "parquet"),
    "columns of parquet": of_columns,
    "items": lambda folder: ItemSource(list(zip(X, LABELS, strict=True))),
    "items at once": lambda folder: ItemSource(Several()),
    "named items": lambda folder: ItemSource(
        [{"a": x, "b": y} for x, y in zip(X, LABELS, strict=True)], x="a", y="b"
    ),
    "a map": lambda folder: Own(2 * X).map(lambda x, y: (x / 2, y)),
    "a subset": lambda folder: Own(X[::-1], LABELS[::-1]).subset(np.arange(len(X))[::-1]),
}


LENGTHS = [len(word) for word in WORDS]
LABELLED = [word % 3 for word in WORDS]
SEQUENCES = {
    "items": lambda folder: ItemSource(
        [*zip(WORDS, LABELLED, strict=True)], lengths={"x": LENGTHS, "y": LENGTHS}
    ),
    "files": lambda folder: ArraySource(
        *(
            ddbp.Ragged.joined(values, LENGTHS)
            for values in mapped(folder, x=np.concatenate(WORDS), y=np.concatenate(LABELLED))
        )
    ),
    "arrow": lambda folder: lists(folder, "arrow"),
    "parquet": lambda folder: lists(folder, "parquet"),
    "a part": lambda folder: SEQUENCES["items"](folder).subset(range(len(WORDS))),
}


def lists(folder, kind):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import feather, parquet

    table = arrow.table({"words": [w.tolist() for w in WORDS], "labels": LABELLED})
    if kind == "parquet":
        parquet.write_table(table, folder / "lists", row_group_size=10)
    else:
        feather.write_feather(table, folder / "lists", compression="uncompressed", chunksize=7)
    return ddbp.data.ArrowSource(folder / "lists", x="words", y="labels", cache=folder)


def pairs():
    yield from zip(X, LABELS, strict=True)
