"""Folders of commands go with them, and where one was killed, with the next one."""

import os
import signal
import subprocess
import sys

import pytest

from ddbp.job import temporary

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs flock")
CODE = """
import sys
from ddbp.job import temporary
with temporary.folder("test") as path:
    (path / "file").touch()
    print(path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Return the folder in which temporary ones are made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


@pytest.fixture
def begin():
    """Return the function that starts a command, and returns it with the name of its folder."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, os.path.basename(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_folder_goes_with_its_command(begin, place):
    process, name = begin()
    assert os.listdir(place) == [name]
    process.communicate()
    assert os.listdir(place) == []


def test_folder_of_a_killed_command_goes_with_the_next_one(begin, place):
    killed, left = begin()
    _, of_living = begin()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with temporary.folder("test") as path:
        assert {*os.listdir(place)} == {of_living, path.name}
    assert os.listdir(place) == [of_living]
    assert left not in os.listdir(place)


def test_what_may_be_of_others_or_is_being_made_stays(place):
    made = {name: place / f"ddbp-test-{name}" for name in ("no lock", "open", "empty", "link")}
    for name in ("no lock", "open", "empty"):
        made[name].mkdir(mode=0o700)
    (made["open"] / "command").touch()
    made["open"].chmod(0o707)
    (made["no lock"] / "file").touch()
    target = place / "target"
    target.mkdir()
    (target / "command").touch()
    made["link"].symlink_to(target)
    (place / "ddbp-other-x").mkdir()
    (place / "ddbp-other-x" / "command").touch()
    before = {*os.listdir(place)}
    with temporary.folder("test"):
        pass
    assert {*os.listdir(place)} == before
    assert (target / "command").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_folder_of_another_user_stays(place):
    other = place / "ddbp-test-other"
    other.mkdir(mode=0o700)
    (other / "command").touch()
    os.chown(other, 12345, 12345)
    with temporary.folder("test"):
        pass
    assert other.exists()
