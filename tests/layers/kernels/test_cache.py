"""The kernel cache: what it does with files that are not as written, with disks that take nothing,
and with folders that others can write to.
"""

import os
import shutil
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from layers.kernels import cache_folder

PROGRAM = """
import sys
import numpy as np
from numba.core import event
from layers.kernels.jit import kernel

class Compiled(event.Listener):
    number = 0
    def on_start(self, event):
        Compiled.number += 1
    def on_end(self, event):
        pass

event.register("numba:compile", Compiled())

@kernel
def double(y, x):
    for i in range(x.size):
        y[i] = 2 * x[i]

for dtype in (np.float32, np.float64):
    x = np.arange(9, dtype=dtype)
    y = np.empty_like(x)
    double(y, x)
    assert (y == 2 * x).all(), y
print(Compiled.number)
"""


@pytest.fixture(scope="module")
def doubles(tmp_path_factory):
    """Return the file of the program."""
    path = tmp_path_factory.mktemp("program") / "doubles.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def program(doubles, run_python, tmp_path):
    """Return a function that calls a kernel for two types in a new process, whose cache is in a
    folder, and returns how many it compiled and what it said.
    """

    def run(before="", **environment):
        code = f"{before}\nimport runpy\nrunpy.run_path({str(doubles)!r})"
        environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), **environment}
        done = run_python("-c", code, **environment)
        assert done.status == 0, done.err
        return int(done.out), done.err

    return run


@pytest.fixture(scope="module")
def kept(doubles, run_python, tmp_path_factory):
    """Return a cache with the code for both types."""
    folder = tmp_path_factory.mktemp("kept") / "cache"
    done = run_python(doubles, NUMBA_CACHE_DIR=str(folder))
    assert (done.status, done.out, done.err) == (0, "2\n", "")
    return folder


@pytest.fixture
def both(kept, tmp_path):
    """Return the files of the code for both types, in the cache of the program."""
    shutil.copytree(kept, tmp_path / "cache")
    first, second = files(tmp_path / "cache")
    return first, second


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def emptied(content):
    return b""


def cut_off(content):
    return content[: len(content) // 2]


def with_a_bit_flipped(content):
    at = 3 * len(content) // 4
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def with_its_digest_flipped(content):
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize(
    "damages", [(emptied, cut_off), (with_a_bit_flipped, with_its_digest_flipped)]
)
def test_damaged_file_is_found_and_compiled_again(damages, program, both):
    for path, damaged in zip(both, damages, strict=True):
        path.write_bytes(damaged(path.read_bytes()))
    compiled, said = program()
    assert compiled == 2
    for path in both:
        must = "a file of compiled kernels must be as written; got "
        assert f"{must}{path}, which is cut off or altered. The kernel is compiled again." in said
    assert program() == (0, "")


def test_file_under_the_name_of_another_is_compiled_again(program, both):
    # Its code is for other types: it would read and write beyond its arrays.
    first, second = both
    first.write_bytes(second.read_bytes())
    compiled, said = program()
    assert compiled == 1
    assert f"got {first}, which is cut off or altered" in said


def test_file_that_cannot_be_read_is_compiled_again(program, both):
    first, _ = both
    first.unlink()
    first.mkdir()
    compiled, said = program()
    assert compiled == 1
    assert f"got {first}, which cannot be read: " in said


def test_file_that_others_may_write_is_not_unpickled(program, both):
    first, _ = both
    first.chmod(0o666)
    compiled, said = program()
    assert compiled == 1
    assert f"got {first}, which others may write to (mode 666)" in said
    assert program() == (0, "")


def test_disk_that_takes_nothing_costs_compilation_only(program, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    compiled, said = program(limit)
    assert compiled == 2
    assert said.count("compiled kernels should be kept; got ") == 1
    assert files(tmp_path / "cache") == []
    assert program() == (2, "")


def test_code_is_kept_in_files_of_this_user_alone(program, tmp_path):
    program(before="import os; os.umask(0)")
    (folder,) = (tmp_path / "cache" / "kernels").iterdir()
    assert len(files(folder)) == 2
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(folder)} == {0o600}


def test_versions_used_last_are_kept(tmp_path):
    for number in range(cache_folder.KEPT + 3):
        folder = tmp_path / f"gemm-{number:016x}"
        folder.mkdir()
        os.utime(folder, (number, number))
    cache_folder._used.cache_clear()
    cache_folder._used(tmp_path / f"gemm-{1:016x}")
    (tmp_path / "gemm-like-0").mkdir()
    cache_folder.write(tmp_path / "gemm-new" / "a.code", b"code")
    assert cache_folder.read(tmp_path / "gemm-new" / "a.code") == b"code"
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == cache_folder.KEPT + 1
    assert {f"gemm-{1:016x}", "gemm-like-0", "gemm-new"} <= left
    assert not {f"gemm-{number:016x}" for number in (0, 2, 3, 4)} & left


# Where the folder is


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Return the folders that may hold the cache, none of which is there yet: what is chosen, the
    home and the temporary one.
    """
    folders = [tmp_path / name for name in ("chosen", "home", "temporary")]
    folders[2].mkdir()
    folders[2].chmod(0o1777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folders[0]))
    monkeypatch.setenv("HOME", str(folders[1]))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(folders[2]))
    return folders


def found():
    """Return the folder that is found, and what was said on the way."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return cache_folder.find(), " ".join(str(warning.message) for warning in said)


def test_folder_is_the_first_that_can_be_used(homes, monkeypatch):
    chosen, home, temporary = homes
    assert found() == (chosen / "kernels", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert found() == (home / ".cache" / "ddbp" / "kernels", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert found() == (home / "xdg" / "ddbp" / "kernels", "")
    (home / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "a file"))
    assert found() == (temporary / f"ddbp-{os.getuid()}" / "kernels", "")


def test_no_folder_at_all_is_said(homes, monkeypatch):
    for variable in ("NUMBA_CACHE_DIR", "HOME"):
        monkeypatch.setenv(variable, "/dev/null/x")
    monkeypatch.setattr("tempfile.tempdir", "/dev/null/x")
    folder, said = found()
    assert folder is None
    assert "NUMBA_CACHE_DIR must be a folder to write to; got /dev/null/x: " in said
    assert "Each run compiles them anew; set NUMBA_CACHE_DIR to a folder of your own." in said


def test_kernels_run_without_any_folder(program):
    nowhere = "import tempfile; tempfile.tempdir = '/dev/null/x'"
    compiled, said = program(nowhere, NUMBA_CACHE_DIR="/dev/null/x", HOME="/dev/null/x")
    assert compiled == 2
    assert "there should be a folder to keep compiled kernels in" in said


def test_user_without_a_home_gets_no_folder_called_tilde(homes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert found()[0] == homes[2] / f"ddbp-{os.getuid()}" / "kernels"
    monkeypatch.undo()
    assert not (tmp_path / "~").exists()


def test_tilde_and_relative_path_in_the_variable_are_resolved_at_once(homes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "~/mine")
    assert found() == (homes[1] / "mine" / "kernels", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    assert found() == (tmp_path / "mine" / "kernels", "")
    assert not (tmp_path / "~").exists()


@pytest.fixture
def shared_group(monkeypatch):
    """Have the group of the files of this user have other members."""
    monkeypatch.setattr(cache_folder, "_is_own_group", lambda gid: False)


def test_group_of_this_user_alone_may_write(homes, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    folder = homes[1] / ".cache" / "ddbp" / "kernels"
    folder.mkdir(parents=True)
    for path in (folder, folder.parent, folder.parent.parent):
        path.chmod(0o770)
    monkeypatch.setattr(cache_folder, "_is_own_group", lambda gid: gid == folder.stat().st_gid)
    assert found() == (folder, "")


@pytest.mark.parametrize(
    ("group", "members", "own"),
    [("me", [], True), ("me", ["me"], True), ("me", ["you"], False), ("staff", [], False)],
)
def test_group_is_own_that_has_the_name_of_the_user_and_no_other_member(
    group, members, own, monkeypatch
):
    me = SimpleNamespace(pw_name="me", pw_gid=7)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: me)
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_name=group, gr_mem=members))
    assert cache_folder._is_own_group(7) is own
    assert cache_folder._is_own_group(8) is False


REFUSED = "the folder of compiled kernels must be out of reach for others; got "


@pytest.mark.usefixtures("shared_group")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
@pytest.mark.parametrize("name", ["ddbp", "ddbp/kernels"])
def test_folder_that_others_may_write_to_is_refused(mode, name, homes, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("HOME", "/dev/null/x")
    folder = homes[2] / name.replace("ddbp", f"ddbp-{os.getuid()}")
    folder.mkdir(parents=True, mode=0o700)
    folder.chmod(mode)
    place, said = found()
    assert place is None
    assert f"{REFUSED}{folder}, which others may write to (mode {mode:o})." in said


@pytest.mark.parametrize("name", ["ddbp", "ddbp/kernels"])
def test_folder_of_another_user_is_refused(name, homes, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("HOME", "/dev/null/x")
    folder = homes[2] / name.replace("ddbp", f"ddbp-{os.getuid()}")
    folder.mkdir(parents=True, mode=0o700)
    try:
        os.chown(folder, 12345, -1)
    except PermissionError:
        pytest.skip("only root can give folders away")
    place, said = found()
    assert place is None
    assert f"{REFUSED}{folder}, which belongs to user 12345." in said


def test_link_in_the_temporary_folder_is_refused(homes, monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("HOME", "/dev/null/x")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    link = homes[2] / f"ddbp-{os.getuid()}"
    link.symlink_to(tmp_path / "elsewhere")
    place, said = found()
    assert place is None
    assert f"{REFUSED}{link}, which is a link." in said
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_temporary_folder_where_others_can_exchange_folders_is_refused(homes, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("HOME", "/dev/null/x")
    homes[2].chmod(0o777)
    place, said = found()
    assert place is None
    assert f"{REFUSED}{homes[2]}, which others may write to (mode 777)." in said


@pytest.mark.parametrize("name", ["", "kernels"])
def test_chosen_folder_that_others_may_write_to_is_refused_and_another_used(name, homes):
    folder = homes[0] / name
    folder.mkdir(parents=True, mode=0o700)
    folder.chmod(0o777)
    place, said = found()
    assert place == homes[1] / ".cache" / "ddbp" / "kernels"
    assert f"{REFUSED}{folder}, which others may write to (mode 777)." in said
    assert "chmod go-w" in said


def test_home_may_link_to_its_cache(homes, monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    (tmp_path / "scratch").mkdir(mode=0o700)
    homes[1].mkdir()
    Path(homes[1], ".cache").symlink_to(tmp_path / "scratch")
    assert found() == (tmp_path / "scratch" / "ddbp" / "kernels", "")


def test_processes_that_begin_together_share_one_cache(program, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        begun = [pool.submit(program) for _ in range(3)]
        assert all(said == "" for _, said in (each.result() for each in begun))
    assert program() == (0, "")
    assert len(files(tmp_path / "cache")) == 2
