"""Fetch a file on all ranks; each says what it has got.

Usage: download.py URL SIZE SHA256 FOLDER SECONDS
"""

import sys
import time
from pathlib import Path

import ddbp
from ddbp.data import download

url, size, digest, folder, seconds = sys.argv[1:]
comm = ddbp.communicator()
fetch, meet, pause = download._fetch_all, download._MEET, download._PAUSE


def slow(*arguments):
    time.sleep(float(seconds))
    fetch(*arguments)


download._fetch_all, download._MEET, download._PAUSE = slow, 0.05, 0.0
place = Path(folder) if comm.hosts.size == 2 else Path(folder, str(comm.rank))
try:
    (path,) = download.fetched(
        "load", [download.RemoteFile("x.bin", int(size), digest, (url,))], place
    )
    said = f"{len(path.read_bytes())} bytes"
except ConnectionError as error:
    said = str(error)
finally:
    download._fetch_all, download._MEET, download._PAUSE = fetch, meet, pause
print(f"rank {comm.rank}: {said}", flush=True)
