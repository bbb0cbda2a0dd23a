"""IDX files."""

import gzip
import struct

import numpy as np
import pytest

from ddbp.data.idx import read_idx

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def content(array, kind):
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(TYPES[kind]).tobytes()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_files_of_all_types_are_read(tmp_path, kind, pack):
    array = np.arange(24).reshape(2, 3, 4)
    file = tmp_path / "x"
    file.write_bytes(pack(content(array, kind)))
    found = read_idx(file)
    assert np.array_equal(found, array)
    assert found.dtype == np.dtype(TYPES[kind]).newbyteorder("=")
    assert found.flags.writeable


GOOD = content(np.arange(24).reshape(2, 3, 4), 0x08)
# Names of tests are the same in all processes: without the time.
PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (b"", "which begins with nothing"),
        (b"\0\0", "which begins with 00 00"),
        (b"\1" + GOOD[1:], "must begin with 0, 0"),
        (GOOD[:2] + b"\7" + GOOD[3:], "must begin with 0, 0"),
        (GOOD[:3] + b"\0" + GOOD[4:], "must begin with 0, 0"),
        (GOOD[:9], "must have 12 bytes of sizes; got .*x, which has 5"),
        (GOOD[:-1], "must have 24 bytes of values; got .*x, which has 23"),
        (GOOD + b"\0", "must have 24 bytes of values; got .*x, which has more"),
        (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "which has 24"),
        (PACKED[:-9], "a compressed file must be whole"),
        (PACKED[:5], "a compressed file must be whole"),
        (PACKED[:-8] + b"\0" * 8, "a compressed file must be whole"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, wrong, said):
    file = tmp_path / "x"
    file.write_bytes(wrong)
    with pytest.raises(ValueError, match=said) as caught:
        read_idx(file)
    assert str(file) in str(caught.value)


def test_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must be a file that is there; got .*gone"):
        read_idx(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="which is none"):
        read_idx(tmp_path)
    for wrong in (None, 3, "", "a\0b"):
        with pytest.raises(TypeError, match="path must be the path of a file"):
            read_idx(wrong)
