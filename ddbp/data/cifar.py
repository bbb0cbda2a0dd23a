"""The binary files of CIFAR-10 and CIFAR-100: in a folder, in their archive, or one by one."""

import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from layers.checks import one_of
from layers.errors import message
from layers.types import Array, Integers

from .idx import limited, opened
from .paths import existing_file, given_path

_OWNER = "read_cifar"
_PIXELS = 3 * 32 * 32
_MOST = 1 << 28
"""Bytes of a file that are read; one of 50,000 records of CIFAR-100 has 154 million."""
_FIX = "Use the binary version, cifar-10-binary.tar.gz or cifar-100-binary.tar.gz."


class _Format(NamedTuple):
    """How records begin: with so many labels, each below its limit, and which files make a set."""

    limits: tuple[int, ...]
    files: dict[str, tuple[str, ...]]
    names: str


_FORMATS = {
    "cifar10": _Format(
        (10,),
        {
            "training": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        "batches.meta.txt",
    ),
    "cifar100": _Format(
        (20, 100), {"training": ("train.bin",), "test": ("test.bin",)}, "fine_label_names.txt"
    ),
}
"""A record has one label of CIFAR-10, the coarse and the fine one of CIFAR-100, and 3,072 bytes of
pixels, red, green and blue one after the other: https://www.cs.toronto.edu/~kriz/cifar.html."""


class CIFAR(NamedTuple):
    """Images of CIFAR.

    Attributes
    ----------
    images
        (N, 32, 32, 3), bytes.
    labels
        (N,), from 0; of CIFAR-100 the fine ones.
    coarse
        (N,), the coarse ones of CIFAR-100.
    classes
        The names of the labels, where the file of them is there.
    """

    images: Array
    labels: Integers
    coarse: Integers | None
    classes: tuple[str, ...]


def read_cifar(
    path: str | os.PathLike[str], part: str = "training", *, kind: str | None = None
) -> CIFAR:
    """Return the images of CIFAR-10 or CIFAR-100 in their binary files.

    Parameters
    ----------
    path
        The archive, the folder that it has been unpacked to, or one file of records, .bin.
    part
        Which of an archive or a folder: "training" or "test".
    kind
        "cifar10" or "cifar100"; needed for a file whose size would be right for both.

    Raises
    ------
    ValueError
        Files are missing, cut off or of another format, or a label is none of its set's; the file
        and the record are named.
    FileNotFoundError
        There is nothing at the path.
    """
    part = one_of(_OWNER, "part", part, ("training", "test"))
    if kind is not None:
        kind = one_of(_OWNER, "kind", kind, _FORMATS)
    place = given_path(_OWNER, "path", path, "folder")
    if place.is_dir():
        files = {file.name: file for file in sorted(place.rglob("*")) if file.is_file()}
        contents = {
            name: _content(file) for name, file in files.items() if name in _wanted(part, kind)
        }
        return _of_set(contents, str(place), part, kind)
    file = existing_file(_OWNER, "path", path)
    try:
        # Zeros would pass for an empty archive.
        if ".bin" in file.suffixes:
            return _of_file(_content(file), str(file), kind)
        with tarfile.open(file) as archive:
            wanted = _wanted(part, kind)
            contents = {
                name: _extracted(archive, member)
                for member in archive
                if member.isfile() and (name := Path(member.name).name) in wanted
            }
            # What follows the last file tells whether all of it was right.
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        # Of a file that is none, tarfile tells each way that it has tried in a line of its own.
        reason = str(error).partition("\n")[0].rstrip(":")
        must, fix = "path must be CIFAR's archive, and whole", f"Fetch it again. {_FIX}"
        raise ValueError(message(_OWNER, must, f"{file}: {reason}", fix)) from error
    return _of_set(contents, str(file), part, kind)


def _wanted(part: str, kind: str | None) -> set[str]:
    formats = _FORMATS.values() if kind is None else (_FORMATS[kind],)
    return {name for each in formats for name in (*each.files[part], each.names)}


def _content(file: Path) -> bytes:
    with opened(file) as stream:
        return limited(stream, _MOST)


def _extracted(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream: IO[bytes] | None = archive.extractfile(member)
    assert stream is not None, "it is a regular file"
    with stream:
        return limited(stream, _MOST)


def _of_set(contents: dict[str, bytes], where: str, part: str, kind: str | None) -> CIFAR:
    """Return what the files of a set hold."""
    found = [
        name
        for name, each in _FORMATS.items()
        if (kind or name) == name and any(file in contents for file in each.files[part])
    ]
    if len(found) != 1:
        kinds = _FORMATS.values() if kind is None else (_FORMATS[kind],)
        expected = " or ".join(each.files[part][0] for each in kinds)
        got = f"{where}, which has " + ("both" if found else "neither")
        raise _refused(f"there must be {expected}", got)
    each = _FORMATS[found[0]]
    missing = [file for file in each.files[part] if file not in contents]
    if missing:
        must = f"all files of {found[0]} must be there"
        raise _refused(must, f"{where} without {', '.join(missing)}")
    parts = [_records(contents[file], f"{where}: {file}", each) for file in each.files[part]]
    names = contents.get(each.names, b"").decode("utf-8", "replace").split()
    classes = tuple(names) if len(names) == each.limits[-1] else ()
    return _joined(parts, classes)


def _of_file(content: bytes, where: str, kind: str | None) -> CIFAR:
    """Return what one file of records holds."""
    fitting = [
        name
        for name, each in _FORMATS.items()
        if (kind or name) == name and content and not len(content) % _size(each)
    ]
    if len(fitting) == 2:
        must, fix = "kind must be given for this size", 'Write kind="cifar10".'
        raise ValueError(message(_OWNER, must, f"{where} of {len(content):,} bytes", fix))
    return _joined([_records(content, where, _FORMATS[(fitting or [kind or "cifar10"])[0]])], ())


def _size(form: _Format) -> int:
    return len(form.limits) + _PIXELS


def _records(content: bytes, where: str, form: _Format) -> tuple[Array, Array]:
    """Return the labels (N, 1 or 2) and the pixels (N, 32, 32, 3) of a file."""
    size = _size(form)
    if not content or len(content) % size:
        must = f"a file must be whole records of {size:,} bytes"
        count = f"{len(content):,} bytes, {len(content) // size:,} records and a rest"
        raise _refused(must, f"{where}: {count if content else 'nothing'}")
    table = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = table[:, : len(form.limits)]
    wrong = np.argwhere(labels >= np.array(form.limits))
    if len(wrong):
        record, which = map(int, wrong[0])
        must = f"labels must be in 0..{form.limits[which] - 1}"
        raise _refused(must, f"{where}: {labels[record, which]} in record {record}")
    pixels = table[:, len(form.limits) :].reshape(-1, 3, 32, 32)
    return labels, pixels.transpose(0, 2, 3, 1)


def _joined(parts: Sequence[tuple[Array, Array]], classes: tuple[str, ...]) -> CIFAR:
    labels = np.concatenate([each for each, _ in parts]).astype(np.int64)
    images = np.concatenate([each for _, each in parts])
    coarse = np.ascontiguousarray(labels[:, 0]) if labels.shape[1] == 2 else None
    return CIFAR(np.ascontiguousarray(images), np.ascontiguousarray(labels[:, -1]), coarse, classes)


def _refused(must: str, got: str) -> ValueError:
    return ValueError(message(_OWNER, must, got, _FIX))
