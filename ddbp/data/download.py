"""Files of named data sets: fetched by one rank of each host, whole or not at all.

pooch compares digests and gives a file its name when it is right; this adds mirrors, that a
download goes on where it stopped, and what to do without a network.
"""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ddbp import terminal
from ddbp.comm.current import communicator
from layers.errors import message

from .skipped import listed, shown

_PART = 1 << 16
_ROUNDS = 3
"""So often all mirrors are tried."""
_PAUSE = 1.0
"""Seconds between two rounds."""
_TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and without a byte."""
_MEET = 10.0
"""Seconds after which the ranks of a host tell each other that one of them still downloads: less
than any of them waits for another.
"""


class RemoteFile(NamedTuple):
    """A file to be fetched.

    Attributes
    ----------
    name
        What it is called.
    size
        Its bytes.
    sha256
        Their digest.
    urls
        Where it is, the first being tried first.
    """

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]


def fetched(owner: str, files: Sequence[RemoteFile], folder: Path) -> list[Path]:
    """Return the paths of files in a folder, fetched if they are not there. Collective: one rank of
    each host does it, and the others wait.

    Raises
    ------
    ConnectionError
        One cannot be fetched, on any rank.
    """
    comm = communicator()
    paths = [folder / file.name for file in files]
    of_host = comm.of_host
    if of_host.size == 1:
        _fetch_all(owner, files, folder)
        return paths
    if of_host.rank == 0:
        work = _Work(lambda: _fetch_all(owner, files, folder))
        work.start()
        while True:
            work.join(_MEET)
            state = _GOING if work.is_alive() else _FAILED if work.error else _DONE
            of_host.all_gather(np.array([state]))
            if state != _GOING:
                break
        if work.error is not None:
            raise work.error
        return paths
    while (state := int(of_host.all_gather(np.array([_GOING]))[0, 0])) == _GOING:
        pass
    if state == _FAILED:
        must, fix = "the files must be there", "The first rank of this host says why."
        raise ConnectionError(message(owner, must, f"not all of them in {folder}", fix))
    return paths


_GOING, _DONE, _FAILED = range(3)


class _Work(threading.Thread):
    """Does something, and keeps its error."""

    def __init__(self, what: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._what = what
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._what()
        except Exception as error:
            self.error = error


def _fetch_all(owner: str, files: Sequence[RemoteFile], folder: Path) -> None:
    """Have all files in a folder, as they must be."""
    lacking = {file: why for file in files if (why := _lack(folder / file.name, file)) is not None}
    if not lacking:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        must, fix = "there must be a folder to download to", "Pass folder=, or set DDBP_DATA."
        raise OSError(message(owner, must, f"{folder}: {error.strerror}", fix)) from error
    size = sum(file.size for file in lacking) / 1e6
    terminal.say(
        f"Downloading {listed([file.name for file in lacking])}, {size:.1f} MB, to {folder}"
    )
    for file in lacking:
        try:
            _fetch(file, folder)
        except Exception as error:
            raise _offline(owner, lacking, folder, error) from error


def _lack(path: Path, file: RemoteFile) -> str | None:
    """Return what is wrong with a file, None if it is right."""
    try:
        size = path.stat().st_size
        if size != file.size:
            return f"has {size:,} bytes in place of {file.size:,}"
        digest = _digest(path)
    except OSError as error:
        return "is not there" if isinstance(error, FileNotFoundError) else str(error.strerror)
    return None if digest == file.sha256 else f"has the SHA-256 {digest}"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(file: RemoteFile, folder: Path) -> None:
    """Fetch a file from one of its mirrors.

    Raises
    ------
    Exception
        None of them has it: the last error of all.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")
    last: Exception = ConnectionError("there is no address to fetch it from")
    with _alone(folder / f".{file.name}.{socket.gethostname()}.part") as partial:
        for turn in range(_ROUNDS):
            if turn:
                time.sleep(_PAUSE)
            for url in file.urls:
                if _lack(folder / file.name, file) is None:
                    return
                try:
                    pooch.retrieve(
                        url,
                        f"sha256:{file.sha256}",
                        file.name,
                        folder,
                        downloader=_Continued(file, partial),
                    )
                    return
                except Exception as error:
                    last = error
        raise last


@contextmanager
def _alone(partial: Path) -> Iterator[Path]:
    """Return a context in which no other process of this host writes to a partial file."""
    lock: IO[bytes] = partial.with_suffix(".lock").open("ab")
    with lock:
        with suppress(ImportError, OSError):
            # Where a file system cannot lock, two downloads at once end in a wrong digest.
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield partial
        with suppress(OSError):
            partial.with_suffix(".lock").unlink()


class _Continued:
    """Downloads for pooch: goes on with what a partial file has."""

    def __init__(self, file: RemoteFile, partial: Path) -> None:
        self._file, self._partial = file, partial

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        """Write what is at an address to a file."""
        import requests

        size = self._file.size
        begun = self._partial.stat().st_size if self._partial.exists() else 0
        if not 0 < begun < size:
            begun = 0
        headers = {"Accept-Encoding": "identity"}
        if begun:
            headers["Range"] = f"bytes={begun}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
            if not (begun and answer.status_code == 206 and goes_on):
                begun = 0
            self._receive(answer, begun)
        received = self._partial.stat().st_size
        if received != size:
            raise ConnectionError(f"{url} sent {received:,} of {size:,} bytes")
        self._partial.replace(output_file)

    def _receive(self, answer: Any, begun: int) -> None:
        with (
            self._partial.open("ab" if begun else "wb") as stream,
            _progress(self._file, begun) as advance,
        ):
            left = self._file.size - begun
            for part in answer.iter_content(_PART):
                stream.write(part)
                advance(len(part))
                left -= len(part)
                if left < 0:
                    return


@contextmanager
def _progress(file: RemoteFile, begun: int) -> Iterator[Callable[[int], None]]:
    """Return a context with what shows how many bytes more have come, on a terminal only."""
    if not terminal.is_live():
        yield lambda count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal.console(errors=True), transient=True) as bar:
        task = bar.add_task(file.name, total=file.size, completed=begun)
        yield lambda count: bar.advance(task, count)


def _offline(
    owner: str, lacking: dict[RemoteFile, str], folder: Path, error: Exception
) -> Exception:
    """Return the error for files that cannot be fetched: which to put where by hand."""
    wanted = [f"{file.name} from {file.urls[0] if file.urls else 'its makers'}" for file in lacking]
    first, why = next(iter(lacking.items()))
    got = f"{first.name}, which {why}, and fetching it failed: {shown(error)}"
    if isinstance(error, ImportError):
        got = f"{first.name}, which {why}, and no pooch to fetch it"
    fix = f"Put {listed(wanted, len(wanted))} into {folder}."
    if isinstance(error, ImportError):
        fix = f"Run: pip install 'ddbp[data]'. Or: {fix}"
    return ConnectionError(message(owner, "the files of a data set must be there", got, fix))
