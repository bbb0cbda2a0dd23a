"""The files of a checkpoint that hold arrays: what safetensors reads of them, and disks that do not
take writes past the cache of the system.
"""

import errno
import fcntl
import os

import numpy as np
import pytest
import safetensors.numpy

from ddbp.checkpoint import part

RNG = np.random.default_rng(0)


def pieces(*lengths):
    """Return pieces of arrays of several types."""
    types = (np.float32, np.int8, np.float64)
    return [
        (f"array{number}", 7 * number, RNG.integers(-9, 9, length).astype(types[number % 3]))
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("lengths", [(), (1,), (3, 5, 2), (1000, 4099, 1 << 21)])
def test_safetensors_reads_what_was_written(tmp_path, lengths):
    given = pieces(*lengths)
    path = tmp_path / "part-0000-of-0001.safetensors"
    places = part.Image(given).write(path)
    found = safetensors.numpy.load_file(path)
    assert found.keys() == {f"{name}:{start}" for name, start, _ in given}
    for (name, start, elements), (placed, piece) in zip(given, places, strict=True):
        assert found[f"{name}:{start}"].tobytes() == elements.tobytes()
        assert (placed, piece.start, piece.stop) == (name, start, start + len(elements))
        assert part.sha256(path, piece.offset, elements.nbytes) == piece.sha256
        read = part.read(path, piece.offset, len(elements), elements.dtype)
        assert read.tobytes() == elements.tobytes()


def test_image_takes_pieces_of_the_same_lengths_and_types_only(tmp_path):
    image = part.Image(pieces(5, 6, 7))
    assert not image.take(pieces(5, 6))
    assert not image.take(pieces(5, 6, 8))
    again = pieces(5, 6, 7)
    assert image.take(again)
    image.write(tmp_path / "file")
    found = safetensors.numpy.load_file(tmp_path / "file")
    assert [each.tobytes() for each in found.values()] == [each.tobytes() for _, _, each in again]


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="needs writes past the cache")
@pytest.mark.parametrize("taken", [0, 1])
def test_disk_that_refuses_to_be_written_past_the_cache_is_written_through_it(
    tmp_path, monkeypatch, taken
):
    write, calls = os.write, []

    def refusing(descriptor, raw):
        direct = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
        calls.append(bool(direct))
        if direct and len(calls) > taken:
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(descriptor, raw[:8192])

    given = pieces(10_000)
    with monkeypatch.context() as patch:
        patch.setattr(part.os, "write", refusing)
        part.Image(given).write(tmp_path / "file")
    assert calls[taken + 1 :]
    assert not any(calls[taken + 1 :])
    found = safetensors.numpy.load_file(tmp_path / "file")
    assert found["array0:0"].tobytes() == given[0][2].tobytes()


def test_other_errors_name_the_file(tmp_path, monkeypatch):
    def full(descriptor, raw):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part.os, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*file'"):
        part.Image(pieces(3)).write(tmp_path / "file")


def test_types_that_the_format_does_not_know_are_refused():
    with pytest.raises(TypeError, match=r"types that safetensors knows, such as x; got complex128"):
        part.Image([("x", 0, np.zeros(2, complex))])
