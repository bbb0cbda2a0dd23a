"""The file of a bundle: a zip whose members are stored, a few of known names, read as if anybody
had made it.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddbp import files
from ddbp.checkpoint.folder import manifest_facts, manifest_text
from layers.errors import message
from layers.kernels.cache_folder import opened

FORMAT = 1
"""The version of what a bundle holds."""
MANIFEST = "bundle.json"
PARAMETERS = "parameters.safetensors"
TOKENIZER = "tokenizer.json"
MEMBERS = (MANIFEST, PARAMETERS, TOKENIZER)
_LARGEST_MANIFEST = 2**26
_FIX = "It was cut off or changed, or is no bundle; save it again."
_UNREADABLE = (
    zipfile.BadZipFile,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    ValueError,
)
# Of the permissions that a member may state, those of a link.
_LINK, _KINDS = 0o120000, 0o170000
_ENCRYPTED = 1


class BundleError(ValueError):
    """A file is no whole bundle, or one of another version."""


def write(path: Path, facts: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Write a bundle that appears whole: the facts, with the digests of the members, and these. The
    same content is the same bytes.

    Raises
    ------
    OSError
        The file cannot be written; nothing is left of it.
    """
    digests = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in members.items()
    }
    manifest = manifest_text({"format": FORMAT, **facts, "files": digests}).encode()
    try:
        with files.whole(path, durable=True) as place, zipfile.ZipFile(place, "w") as archive:
            for name, content in {MANIFEST: manifest, **members}.items():
                # Without a date of its own, it has that of the beginning of zip.
                archive.writestr(zipfile.ZipInfo(name), content)
    except OSError as error:
        raise files.unwritable("save_bundle", path, error) from error


def read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the facts of a bundle, and its members by name; nothing is written to a disk.

    Raises
    ------
    OSError
        The file cannot be read.
    BundleError
        It is no whole bundle of this version.
    """
    try:
        file = opened(path, links=True)
    except OSError as error:
        fix = "Name a file that ddbp.export.save_bundle has written."
        must = "a bundle must be a readable file"
        got = f"{path}: {files.reason(error)}"
        raise type(error)(message("load_bundle", must, got, fix)) from error
    try:
        with file, zipfile.ZipFile(file) as archive:
            entries = _entries(path, archive, os.fstat(file.fileno()).st_size)
            members = {name: archive.read(entry) for name, entry in entries.items()}
    except _UNREADABLE as error:
        if isinstance(error, BundleError):
            raise
        raise damaged(path, "it must be a whole zip file", error) from error
    try:
        facts, stated, found = manifest_facts(members.pop(MANIFEST))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"{MANIFEST} must be an object of JSON", error) from error
    if facts.get("format") != FORMAT:
        fix = "Read it with the ddbp that has written it, or save it again."
        must = f"{path} must be of format {FORMAT}"
        raise BundleError(message("load_bundle", must, repr(facts.get("format"))[:80], fix))
    if stated != found:
        raise damaged(path, f"{MANIFEST} must have its digest {str(stated)[:80]}", found)
    listed = facts.get("files")
    if not isinstance(listed, dict) or listed.keys() != members.keys():
        raise damaged(path, "its members must be those that it lists", sorted(members))
    for name, content in members.items():
        digest = hashlib.sha256(content).hexdigest()
        if listed[name] != {"bytes": len(content), "sha256": digest}:
            raise damaged(path, f"{name} must have its digest", digest)
    return facts, members


def damaged(path: Path, must: str, got: Any) -> BundleError:
    """Return the error of a file that is no whole bundle."""
    return BundleError(message("load_bundle", f"{path}: {must}", got, _FIX))


def _entries(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an archive of so many bytes by name, none of which has been read."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename
        if name not in MEMBERS:
            raise damaged(path, f"members must be {', '.join(MEMBERS)}", repr(name)[:200])
        if name in entries:
            raise damaged(path, "no member may occur twice", name)
        if entry.external_attr >> 16 & _KINDS == _LINK:
            raise damaged(path, "members must be files", f"{name}, a link")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise damaged(path, "members must be stored as they are", name)
        most = _LARGEST_MANIFEST if name == MANIFEST else size
        if entry.file_size != entry.compress_size or entry.file_size > min(most, size):
            must = f"{name} must have at most {min(most, size)} bytes"
            raise damaged(path, must, entry.file_size)
        entries[name] = entry
    # Members that share their bytes would take more than the file.
    if sum(entry.file_size for entry in entries.values()) > size:
        raise damaged(path, "its members must lie in it one after the other", f"{size} bytes")
    for name in (MANIFEST, PARAMETERS):
        if name not in entries:
            raise damaged(path, f"it must have {name}", sorted(entries))
    return entries
