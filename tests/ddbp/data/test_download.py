"""Downloads from a server of this process: whole, cut, damaged and missing files."""

from contextlib import contextmanager

import pytest

from ddbp.data import download
from ddbp.data.download import RemoteFile, fetched

from .file_server import CONTENT, DIGEST, serving

pytest.importorskip("pooch", reason="pooch is not installed: ddbp[data]")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    with serving() as server:
        yield server


def remote(server, *ways):
    return RemoteFile("x.bin", len(CONTENT), DIGEST, tuple(map(server.url, ways)))


def test_a_file_is_fetched_once(server, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        (path,) = fetched("load", [remote(server, "good")], folder)
        assert path.read_bytes() == CONTENT
    assert server.asked == [("good", "")]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"Downloading x.bin, 0.3 MB, to {folder}\n"
    assert [each.name for each in folder.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("way", ["missing", "damaged", "short", "long"])
def test_mirrors_are_tried_in_turn(server, tmp_path, way):
    (path,) = fetched("load", [remote(server, way, "good")], tmp_path)
    assert path.read_bytes() == CONTENT
    assert [asked for asked, _ in server.asked] == [way, "good"]


@pytest.mark.parametrize("way", ["missing", "damaged", "short", "long"])
def test_a_file_that_cannot_be_had_is_named_with_its_place(server, tmp_path, way):
    with pytest.raises(ConnectionError) as caught:
        fetched("load", [remote(server, way)], tmp_path)
    text = str(caught.value)
    assert text.startswith("load: the files of a data set must be there; got x.bin")
    assert f"Put x.bin from {server.url(way)} into {tmp_path}." in text
    assert not (tmp_path / "x.bin").exists()
    assert len(server.asked) == download._ROUNDS


def test_a_download_goes_on_where_the_server_died(server, tmp_path):
    server.dies_after["good"] = [1 << 17, 1 << 16]
    (path,) = fetched("load", [remote(server, "good")], tmp_path)
    assert path.read_bytes() == CONTENT
    assert [begun for _, begun in server.asked] == ["", "bytes=131072-", "bytes=196608-"]


def test_a_download_goes_on_in_another_process(server, tmp_path, monkeypatch):
    server.dies_after["good"] = [1 << 17]
    with monkeypatch.context() as patch:
        patch.setattr(download, "_ROUNDS", 1)
        with pytest.raises(ConnectionError, match=r"131,072 of 262,144 bytes|IncompleteRead"):
            fetched("load", [remote(server, "good")], tmp_path)
    (path,) = fetched("load", [remote(server, "good")], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == ("good", "bytes=131072-")


def test_a_server_that_cannot_go_on_sends_all_again(server, tmp_path):
    server.ranges = False
    server.dies_after["good"] = [1 << 17]
    (path,) = fetched("load", [remote(server, "good")], tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [("good", ""), ("good", "bytes=131072-")]


def test_what_was_damaged_on_the_way_is_not_gone_on_with(server, tmp_path):
    server.dies_after["damaged"] = [100_000]
    (path,) = fetched("load", [remote(server, "damaged", "good")], tmp_path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], b"\xff" + CONTENT[1:]])
def test_a_file_that_is_there_but_wrong_is_replaced(server, tmp_path, content):
    (tmp_path / "x.bin").write_bytes(content)
    (path,) = fetched("load", [remote(server, "good")], tmp_path)
    assert path.read_bytes() == CONTENT


def test_without_a_network_the_error_says_what_is_wrong_and_what_to_put_where(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    (tmp_path / "x.bin").write_bytes(CONTENT[:9])
    # Nothing listens on the port of discarding.
    file = RemoteFile("x.bin", len(CONTENT), DIGEST, ("http://127.0.0.1:9/x.bin",))
    with pytest.raises(ConnectionError) as caught:
        fetched("load", [file], tmp_path)
    assert "x.bin, which has 9 bytes in place of 262,144, and fetching it failed" in str(
        caught.value
    )
    assert f"Put x.bin from http://127.0.0.1:9/x.bin into {tmp_path}." in str(caught.value)


def test_files_that_are_there_need_no_network_and_no_pooch(tmp_path, monkeypatch):
    (tmp_path / "x.bin").write_bytes(CONTENT)
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    file = RemoteFile("x.bin", len(CONTENT), DIGEST, ())
    assert fetched("load", [file], tmp_path) == [tmp_path / "x.bin"]
    (tmp_path / "x.bin").unlink()
    with pytest.raises(
        ConnectionError, match=r"no pooch to fetch it. Run: pip install 'ddbp\[data\]'"
    ):
        fetched("load", [file], tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    file = RemoteFile("x.bin", len(CONTENT), DIGEST, ())
    with pytest.raises(OSError, match="there must be a folder to download to"):
        fetched("load", [file], tmp_path / "file" / "folder")


def test_progress_is_shown_on_a_terminal_only(server, tmp_path, monkeypatch):
    shown = []

    @contextmanager
    def recorded(file, begun):
        with real(file, begun) as advance:
            shown.append(advance)
            yield advance

    real = download._progress
    monkeypatch.setattr(download, "_progress", recorded)
    for live in (False, True):
        monkeypatch.setattr("ddbp.terminal.is_live", lambda live=live: live)
        fetched("load", [remote(server, "good")], tmp_path / str(live))
    assert shown[0].__closure__ is None
    assert shown[1].__closure__ is not None
