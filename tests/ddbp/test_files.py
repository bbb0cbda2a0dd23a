"""Files appear whole, or not at all, and never in place of a device."""

import os
import stat

import numpy as np
import pytest

from ddbp import files
from ddbp.checkpoint.folder import write_arrays


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "page.html"
    with files.whole(path, durable=True) as place:
        place.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(tmp_path) == [path.name]


def test_what_fails_leaves_the_file_as_it_was_and_nothing_of_itself(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")

    def interrupted():
        with files.whole(path) as place:
            place.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_is_for_whom_new_files_are_whatever_writes_it(tmp_path, mask):
    path = tmp_path / "model.safetensors"
    before = os.umask(mask)
    try:
        write_arrays(path, {"w": np.zeros(3)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with files.whole(path) as place:
            place.write_text("whole")
        assert os.read(reader, 100) == b"whole"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == [path.name]
