"""What an error says of the files that take the memory of a host."""

import os
import subprocess
import sys

import pytest

from ddbp.comm import shared_memory
from ddbp.comm.base import CommunicationError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Return the folder that stands for /dev/shm."""
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    return tmp_path


def leave(memory, name, mebibytes, age=0):
    path = memory / name
    path.write_bytes(os.urandom(int(mebibytes * 2**20)))
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return path


def test_nothing_is_said_of_an_empty_folder(memory):
    (memory / "of no size").touch()
    assert shared_memory.leftovers() == ""


def test_files_are_told_by_size_owner_and_age_with_how_to_remove_them(memory):
    leave(memory, "mpich_shm_1_0", 1, age=130)
    leave(memory, "mpich_shm_2_0", 2, age=3 * 3600)
    said = shared_memory.leftovers()
    assert "; 3.0 MiB are taken by mpich_shm_2_0 (2.0 MiB, of " in said
    assert ", 3 h old), mpich_shm_1_0 (1.0 MiB, of " in said
    assert ", 2 min old); no process uses 2 of these, of 3.0 MiB: rm " in said
    assert said.endswith(f": rm {memory}/mpich_shm_2_0 {memory}/mpich_shm_1_0")


def test_only_the_largest_of_many_are_named(memory):
    for number in range(1, 9):
        leave(memory, f"file{number}", number / 16)
    said = shared_memory.leftovers()
    assert "file8" in said
    assert "file3" not in said
    assert "), 3 more; no process uses 8 of these" in said
    assert said.endswith(" …")


def test_file_that_a_process_uses_is_not_to_be_removed(memory):
    used = leave(memory, "used", 1)
    code = (
        "import mmap, sys; file = open(sys.argv[1], 'r+b'); memory = mmap.mmap(file.fileno(), 0);"
        " print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, used], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        assert "used (" in shared_memory.leftovers()
        assert "rm" not in shared_memory.leftovers()
        process.stdin.close()
    assert f"rm {used}" in shared_memory.leftovers()


def test_too_little_room_for_mpi_is_refused_with_what_lies_there(memory, monkeypatch):
    leave(memory, "mpich_shm_1_0", 1)
    shared_memory.require_room_for_mpi(2)
    monkeypatch.setattr(shared_memory, "_OF_MPI", 2**60)
    with pytest.raises(CommunicationError, match="must have room for") as refused:
        shared_memory.require_room_for_mpi(2)
    assert "MiB that MPI takes there; got " in str(refused.value)
    assert f"rm {memory}/mpich_shm_1_0. Make room there" in str(refused.value)


def test_files_of_a_process_that_was_killed_are_removed(memory):
    own = shared_memory.create(100)
    assert own.name.startswith(f"ddbp-{os.getpid()}-")
    other = leave(memory, f"ddbp-{os.getpid()}0-x", 0.1)
    shared_memory.remove_files_of(os.getpid())
    assert (own.exists(), other.exists()) == (False, True)
