"""Files that sources read: rows in any order, little memory, and what is no whole file."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import ddbp
from ddbp.data import ArraySource, open_arrays

from ..training.small import LABELS, X
from .sources import mapped


def test_source_is_no_copy_of_what_it_reads(tmp_path):
    x, y = mapped(tmp_path, x=X, y=LABELS)
    source = ArraySource(x, y)
    assert repr(source) == "ArraySource(x=(83, 6) float64, y=(83,) int64)"
    assert source._arrays["x"] is x


def test_damaged_and_foreign_files_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "small.npz", x=X)
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", X)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    (tmp_path / "none.npz").write_bytes(b"no archive")
    (tmp_path / "text.csv").write_text("1,2")
    header = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 400]}}
    for name, entry in (
        ("offsets", header),
        ("bf16", {"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}),
        ("outside", {"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}),
        ("empty", {"a": {}}),
    ):
        text = json.dumps(entry).encode()
        content = len(text).to_bytes(8, "little") + text + b"12"
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    (tmp_path / "long.safetensors").write_bytes(b"\xff" * 9)
    for name, said in (
        ("small.npz", "arrays in .* must be stored as they are; got x.npy compressed"),
        ("objects.npy", "must hold numbers; got Python objects"),
        ("cut.npy", "must be a whole .npy file; got 4104 bytes where 4112 are needed"),
        ("none.npz", "must be a whole .npz file; got"),
        ("text.csv", "must be a file of arrays; got '.csv'"),
        ("offsets.safetensors", "must be a whole .safetensors file; got a of shape"),
        ("outside.safetensors", "must be a whole .safetensors file; got"),
        ("empty.safetensors", "must be a whole .safetensors file; got"),
        ("bf16.safetensors", "must have a type of NumPy; got BF16"),
        ("long.safetensors", "must be a whole .safetensors file; got a header of"),
    ):
        with pytest.raises(ValueError, match=f"^open_arrays: .*{said}"):
            open_arrays(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="must be a file; got no such file"):
        open_arrays(tmp_path / "missing.npy")
    with pytest.raises(FileNotFoundError, match="got a folder"):
        open_arrays(tmp_path.with_suffix(".npy").mkdir() or tmp_path.with_suffix(".npy"))


def test_file_that_was_cut_while_it_is_read_is_refused(tmp_path):
    x = np.zeros((600, 1 << 13), np.float32)
    np.save(tmp_path / "x.npy", x)
    source = ArraySource(tmp_path / "x.npy")
    os.truncate(tmp_path / "x.npy", 1 << 20)
    assert np.array_equal(source.take(np.arange(3)).x, x[:3])
    with pytest.raises(ValueError, match=r"x\.npy must stay as it was; got its end at byte"):
        source.take(np.array([599]))


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_rows_of_many_record_batches_come_in_the_order_that_is_asked_for(tmp_path, compression):
    # What is compressed is read in memory, what is not in its file.
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import ipc

    flags = LABELS % 2 == 0
    lists = [np.arange(n % 5 + 1) + n for n in range(len(X))]
    table = {"x": X[:, 0], "flag": flags, "lists": [each.tolist() for each in lists], "y": LABELS}
    parts = arrow.table(table).to_batches(max_chunksize=7)
    paths = [tmp_path / "one.arrow", tmp_path / "other.arrow"]
    for path, some in zip(paths, (parts[:3], parts[3:]), strict=True):
        options = ipc.IpcWriteOptions(compression=compression)
        with ipc.new_file(path, parts[0].schema, options=options) as writer:
            for each in some:
                writer.write_batch(each)
    source = ddbp.data.ArrowSource(paths, x={"x": "x", "flag": "flag", "lists": "lists"}, y="y")
    numbers = np.array([60, 20, 21, 22, 0, 60, 61, *range(len(X) - 1, 0, -3)])
    rows = source.take(numbers)
    np.testing.assert_array_equal(rows.x["x"], X[numbers, 0])
    np.testing.assert_array_equal(rows.x["flag"], flags[numbers])
    np.testing.assert_array_equal(
        rows.x["lists"].values, np.concatenate([lists[n] for n in numbers])
    )
    np.testing.assert_array_equal(rows.x["lists"].lengths, [len(lists[n]) for n in numbers])
    np.testing.assert_array_equal(rows.y, LABELS[numbers])
    np.testing.assert_array_equal(source.targets(numbers), LABELS[numbers])


def test_arrow_refuses_what_it_cannot_read(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    table = {"x": [1.0, 2.0], "text": ["a", "b"], "lists": [[1], []], "full": [[1], [2]]}
    parquet.write_table(arrow.table(table), tmp_path / "some.parquet")
    (tmp_path / "none.arrow").write_bytes(b"ARROW1 and nothing")
    (tmp_path / "none.parquet").write_bytes(b"PAR1 and nothing")
    (tmp_path / "empty").touch()
    for name, x, said in (
        ("some.parquet", "z", "must have the column 'z'; got columns x, text"),
        ("some.parquet", "text", "column 'text' must hold numbers, or lists of them; got string"),
        ("some.parquet", "lists", "lists of column 'lists' must not be empty; got sample 1"),
        ("some.parquet", ["x", "full"], "x must be of numbers; got the lists of 'full'"),
        ("some.parquet", 3, "columns must be named by texts; got 3"),
        ("none.arrow", "x", "must be a whole Arrow or Parquet file"),
        ("none.parquet", "x", "must be a whole Arrow or Parquet file"),
        ("empty", "x", "must be a whole Arrow or Parquet file"),
        ("missing", "x", "must be a file; got no such file"),
    ):
        with pytest.raises(
            (TypeError, ValueError, FileNotFoundError), match=f"^ArrowSource: .*{said}"
        ):
            ddbp.data.ArrowSource(tmp_path / name, x=x, cache=tmp_path / "cache")


def test_parquet_is_converted_once_and_anew_when_it_changes(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path, cache = tmp_path / "some.parquet", tmp_path / "cache"
    for rows, files in ((2, 1), (2, 1), (3, 2)):
        if not path.exists() or rows == 3:
            parquet.write_table(arrow.table({"x": np.arange(float(rows))}), path)
        source = ddbp.data.ArrowSource(path, x="x", cache=cache)
        assert len(source) == rows
        assert len([*Path(cache).glob("*.arrow")]) == files


def test_parquet_is_converted_anew_when_another_has_its_size_and_time(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path, times, changed = tmp_path / "some.parquet", [], 0
    for value in (1.0, 2.0):
        parquet.write_table(arrow.table({"x": np.full(3, value)}), path)
        times = times or [path.stat().st_atime_ns, path.stat().st_mtime_ns]
        os.utime(path, ns=tuple(times))
        while path.stat().st_ctime_ns == changed:
            # A system may have a clock of few ticks for files.
            os.utime(path, ns=tuple(times))
        changed = path.stat().st_ctime_ns
        source = ddbp.data.ArrowSource(path, x="x", cache=tmp_path / "cache")
        assert source.take(np.arange(3)).x.tolist() == [value] * 3


def resident():
    """Return the bytes of this process in memory, with what it has mapped of files (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_read_of_a_file_does_not_stay_in_memory(whole, tmp_path):
    rows, features = 400, 1 << 18
    with (tmp_path / "x.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, features)}
        np.lib.format.write_array_header_1_0(file, header)
        # A hole, which reads as zeros.
        file.truncate(file.tell() + 4 * rows * features)
    # In columns nothing lies together that could be read by itself: what is mapped is let go.
    source = ArraySource(
        open_arrays(tmp_path / "x.npy")[:, :: 1 if whole else 2], np.zeros(rows, int)
    ).astype(np.float32)
    before = resident()
    most = 0
    for start in range(0, rows, 10):
        source.take(source.order(0, 0)[start : start + 10])
        most = max(most, resident() - before)
    # Of 400 MiB that were read.
    assert most < 150 << 20


def test_lists_of_one_length_are_rows_of_an_array(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import feather

    table = arrow.table({"x": X.tolist(), "y": LABELS})
    feather.write_feather(table, tmp_path / "x", compression="uncompressed", chunksize=20)
    source = ddbp.data.ArrowSource(tmp_path / "x", x="x", y="y")
    assert not source.lengths
    assert np.array_equal(source.take(np.array([70, 2, 2])).x, X[[70, 2, 2]])
