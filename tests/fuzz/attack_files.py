"""Reads files of anybody's making, in a process of its own with little memory; prints a line of
JSON for each that ends otherwise than it may.

    python attack_files.py [STRIDE]
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import valid
from limits import fault, limit

import ddbp
import layers
from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from ddbp.commands import checkpoint as command
from ddbp.export import archive
from ddbp.observers import rank_status
from layers.kernels import cache_folder

PART = "part-0000-of-0001.safetensors"
HOSTILE = (
    *(None, True, -1, 0, 1, 7, 2**53, 2**63, 10**400, 1.5, float("inf"), float("nan")),
    *("", "x", "../x", "/etc/passwd", "a\0b", "\ud800", "\x1b[2J", "é" * 300),
    *([], {}, [None], [[1]], {"a": 1}, [0] * 100, "__nested__"),
)
TARGET = Path("executed")


class Payload:
    """What leaves a file behind where somebody unpickles it."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(TARGET.absolute()),)


def nested(depth: int) -> Any:
    result: Any = 1
    for _ in range(depth):
        result = [result]
    return result


def paths(tree: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places in a tree of JSON, of lists the first and the last."""
    yield here
    if isinstance(tree, dict):
        for name in tree:
            yield from paths(tree[name], (*here, name))
    elif isinstance(tree, list) and tree:
        for index in {0, len(tree) - 1}:
            yield from paths(tree[index], (*here, index))


def changed(tree: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Return a tree of JSON with another entry."""
    if not place:
        return nested(200) if new == "__nested__" else new
    result = tree.copy()
    result[place[0]] = changed(tree[place[0]], place[1:], new)
    return result


def without(tree: Any, place: tuple[Any, ...]) -> Any:
    """Return a tree of JSON that lacks an entry."""
    result = tree.copy()
    if len(place) == 1:
        del result[place[0]]
    else:
        result[place[0]] = without(tree[place[0]], place[1:])
    return result


def manifests(facts: dict[str, Any], stride: int) -> Iterator[tuple[str, str]]:
    """Yield texts of a state.json, with the digests that they should have."""
    count = 0
    for place in paths(facts):
        if not place:
            continue
        yield f"without {place}", folder.manifest_text(without(facts, place))
        for new in HOSTILE:
            count += 1
            if count % stride == 0:
                text = folder.manifest_text(changed(facts, place, new))
                yield f"{place} = {str(new)[:20]!a}", text


def texts(good: str) -> dict[str, bytes]:
    """Return what is no state.json, or none that is believed."""
    depth = 100_000
    return {
        "nothing": b"",
        "nested lists": b"[" * depth + b"]" * depth,
        "nested objects": b'{"a":' * depth + b"1" + b"}" * depth,
        "nested within": good.replace(
            '"values": {', '"values": {"x": ' + "[" * 900 + "]" * 900 + ","
        ).encode(),
        "infinity": good.replace('"step": ', '"step": 1e999, "x": ', 1).encode(),
        "long integer": good.replace('"step": ', '"step": ' + "9" * 5000 + ', "x": ', 1).encode(),
        "name twice": good.replace('"step": ', '"step": 1, "step": ', 1).encode(),
        "not UTF-8": good.encode()[:50] + b"\xff\xfe" + good.encode()[50:],
        "UTF-16": good.encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + good.encode(),
        "zeros": bytes(1000),
        "two": good.encode() * 2,
        "cut": good.encode()[:-20],
        "pickle": pickle.dumps(Payload()),
    }


def safetensors(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """Return a file of that format with a header, which says that it has another size."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensors(good: bytes) -> dict[str, bytes]:
    """Return files of parameters that are none."""
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    of = {
        "overlap": {"a": one, "b": one},
        "negative": {"a": one | {"data_offsets": [-8, 0]}},
        "reversed": {"a": one | {"data_offsets": [8, 0]}},
        "beyond": {"a": one | {"data_offsets": [0, 2**63]}},
        "hole": {"a": one, "b": one | {"data_offsets": [16, 24]}},
        "overflow": {"a": one | {"shape": [2**62, 4]}},
        "huge": {"a": one | {"shape": [10**30]}},
        "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
        "other type": {"a": one | {"dtype": "BF16", "shape": [4]}},
        "complex": {"a": one | {"dtype": "C64", "shape": [1]}},
        "no type": {"a": one | {"dtype": "object"}},
        "numbers": {"a": 3},
        "names": {"../a\0": one},
        "list": [one],
        "metadata": {"__metadata__": {"a": 3}, "a": one},
    }
    files = {name: safetensors(header, bytes(16)) for name, header in of.items()}
    for dtype in ("I64", "F16", "BOOL", "U8", "F8_E4M3"):
        text = good[8 : 8 + struct.unpack("<Q", good[:8])[0]].replace(
            b'"F32"', f'"{dtype}"'.encode()
        )
        files[f"as {dtype}"] = safetensors(text, good[8 + len(text) :])
    return files | {
        "nothing": b"",
        "seven bytes": bytes(7),
        "header of 2^63": safetensors({}, size=2**63),
        "header of 2^64 - 1": safetensors({}, size=2**64 - 1),
        "header of 10^9": safetensors({}, size=10**9),
        "nested header": safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "cut": good[:-3],
        "more": good + bytes(8),
        "pickle": pickle.dumps(Payload()),
        "archive": _archive(np.array([Payload()], object)),
    }


def _archive(array: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, weight=array)
    return file.getvalue()


def odd(path: Path, good: bytes) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what may lie in place of a file, each with what puts it there."""
    elsewhere = Path("elsewhere").absolute()
    elsewhere.write_bytes(good)
    yield "nothing there", lambda: None
    yield "folder", path.mkdir
    yield "link", lambda: path.symlink_to(elsewhere)
    yield "link to itself", lambda: path.symlink_to(path)
    yield "link to nothing", lambda: path.symlink_to("/nowhere/at/all")
    yield "link to zeros", lambda: path.symlink_to("/dev/zero")
    yield "pipe", lambda: os.mkfifo(path)
    yield "huge", lambda: _sparse(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


class Reports:
    """Counts, and prints what is wrong."""

    def __init__(self) -> None:
        self.count = 0
        self.out = os.fdopen(os.dup(1), "w")

    def check(self, what: str, function: Callable[[], object]) -> None:
        """Run a function, which may succeed, or refuse in our words."""
        self.count += 1
        if found := fault(function, system=True):
            self.say(what, found)

    def say(self, what: str, found: str) -> None:
        print(json.dumps(["files", what, found]), file=self.out, flush=True)


def run_command(arguments: list[str]) -> None:
    """Run `ddbp checkpoint`; where the status is not 0 it says one line, all of it printable."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command.run(arguments)
    said = err.getvalue()
    assert (status, bool(said)) in ((0, False), (1, True)), (status, said)
    assert said.count("\n") <= 1, said
    text = out.getvalue() + said
    assert text.replace("\n", "").isprintable(), text[:200]


def read_whole(path: Path) -> None:
    """Read all of a checkpoint, and go on from it."""
    checkpoint = Checkpoint(path)
    checkpoint.require_whole()
    for array in checkpoint.snapshot().arrays.values():
        np.asarray(array)
    valid.trainer(resume=path)


def attack_checkpoints(reports: Reports, stride: int) -> None:
    runs = Path("run").absolute()
    callback = ddbp.Checkpoints(background=False)
    valid.trainer(run_dir=runs, callbacks=[callback, ddbp.EarlyStopping(patience=3)]).fit(
        valid.DATA, epochs=1, validation=valid.DATA
    )
    (path,) = folder.found(folder.within(runs))
    good = (path / folder.STATE).read_text()
    facts = json.loads(good)
    del facts["sha256"]
    state, part = path / folder.STATE, path / PART

    def commands(what: str) -> None:
        reports.check(f"read: {what}", lambda: read_whole(path))
        for name in ("list", "show", "verify", "export"):
            more = ["-o", "exported.safetensors"] * (name == "export")
            reports.check(f"{name}: {what}", partial(run_command, [name, str(runs), *more]))
            assert not TARGET.exists(), what

    reports.check("whole", lambda: read_whole(path))
    commands("whole")
    for what, text in manifests(facts, stride):
        state.write_text(text, encoding="utf-8")
        commands(what)
    for what, raw in texts(good).items():
        state.write_bytes(raw)
        commands(what)
    for file, raw in ((state, good.encode()), (part, part.read_bytes())):
        state.write_text(good)
        for what, put in odd(file, raw):
            file.unlink()
            put()
            commands(f"{what} in place of {file.name}")
            if file.is_dir() and not file.is_symlink():
                file.rmdir()
            file.unlink(missing_ok=True)
            file.write_bytes(raw)
    secret = Path("secret").absolute()
    shutil.copytree(path, secret)
    for what in ("link", "pipe", "file"):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        {"link": lambda: path.symlink_to(secret), "pipe": lambda: os.mkfifo(path)}.get(
            what, path.touch
        )()
        commands(f"{what} in place of the folder")
        with contextlib.suppress(DamagedError):
            list(folder.newest_whole(path.parent))
        path.unlink()
        shutil.copytree(secret, path)


def attack_parameters(reports: Reports) -> None:
    path = Path("model.safetensors").absolute()
    ddbp.save_parameters(valid.network(), path)
    good = path.read_bytes()
    model = valid.network()
    before = [parameter.value.tobytes() for parameter in model.parameters()]
    for what, raw in tensors(good).items():
        path.write_bytes(raw)
        reports.check(f"parameters: {what}", lambda: ddbp.load_parameters(model, path))
        now = [parameter.value.tobytes() for parameter in model.parameters()]
        if now != before and not what.startswith("as "):
            reports.say(f"parameters: {what}", "the model has changed")
    for what, put in odd(path, good):
        path.unlink()
        put()
        reports.check(f"parameters: {what}", lambda: ddbp.load_parameters(model, path))
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.touch()
    reports.check("name with a zero", lambda: ddbp.load_parameters(model, "a\0b"))


def attack_bundles(reports: Reports, stride: int) -> None:
    path = Path("a.ddbp").absolute()
    twice = layers.Linear(6, 6, rng=valid.RNG)
    body = layers.Sequential(twice, layers.GELU("tanh"), twice)
    model = layers.Sequential(layers.Residual(body), layers.BatchNorm(6))
    ddbp.export.save_bundle(
        path, model, preprocessing={"kind": "x"}, labels=["a", "b"], example=valid.X
    )
    good = path.read_bytes()
    facts, members = archive.read(path)

    def check(what: str) -> None:
        reports.check(f"bundle: {what}", lambda: ddbp.export.load_bundle(path))
        assert not TARGET.exists(), what

    check("whole")
    others = {"manifest": [*manifests(facts, stride)]}
    others["text"] = [*texts(folder.manifest_text(facts)).items()]
    for kind, each in others.items():
        for what, text in each:
            with zipfile.ZipFile(path, "w") as file:
                file.writestr(archive.MANIFEST, text)
                file.writestr(archive.PARAMETERS, members[archive.PARAMETERS])
            check(f"{kind} {what}")
    for what, raw in tensors(members[archive.PARAMETERS]).items():
        archive.write(path, facts, {archive.PARAMETERS: raw})
        check(what)
    for place in range(0, len(good), max(1, stride // 4)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x80]) + good[place + 1 :])
        check(f"byte {place}")
    for what, put in odd(path, good):
        path.unlink()
        put()
        check(what)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.touch()


def attack_run_folders(reports: Reports) -> None:
    """Attack the configuration of a run."""
    path = Path("options").absolute()
    path.mkdir()
    file = path / "config.json"
    options = ddbp.TrainerOptions(batch_size=4).as_dict()
    for place in paths(options):
        for new in HOSTILE:
            file.write_text(json.dumps(changed(options, place, new)))
            reports.check(
                f"config {place} = {str(new)[:20]!a}", lambda: ddbp.TrainerOptions.read(path)
            )
    for what, raw in texts(json.dumps(options)).items():
        file.write_bytes(raw)
        reports.check(f"config: {what}", lambda: ddbp.TrainerOptions.read(path))
    file.unlink()
    os.mkfifo(file)
    reports.check("config: pipe", lambda: ddbp.TrainerOptions.read(path))


def attack_status(reports: Reports) -> None:
    """Attack the folder of `ddbp launch`, where all ranks keep where they are."""
    path = Path("status").absolute()
    path.mkdir()
    file = path / "rank0"
    for position in range(8):
        for number in (-(2**63), -1, 1, 2**31, 2**63 - 1):
            words = [4, 1, 3, 1, 5, 0, 0, 0]
            words[position] = number
            file.write_bytes(struct.pack("<8q", *words) * 2)
            for names in (b"", b"\xff\xfe\n1 5 \n", b"1 5 x\0\n"):
                (path / "rank0.layers").write_bytes(names)
                reports.check(f"status {words}", lambda: rank_status.read(path, 0))
    (path / "rank0.layers").unlink()
    reports.check("status without names", lambda: rank_status.read(path, 0))
    for what, put in odd(file, bytes(64)):
        file.unlink(missing_ok=True)
        put()
        reports.check(f"status: {what}", lambda: rank_status.read(path, 0))
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
    file.unlink(missing_ok=True)


def attack_kernels(reports: Reports) -> None:
    """Attack a file of machine code, which is pickled, and is read only as it was written."""
    path = (Path("kernels") / "version-1" / "kernel.code").absolute()
    path.parent.mkdir(parents=True, mode=0o700)
    for parent in (path.parent, path.parent.parent):
        parent.chmod(0o700)
    cache_folder.write(path, pickle.dumps("code"))
    good = path.read_bytes()

    def read() -> None:
        assert cache_folder.read(path) is None, "a file that was altered is believed"

    for what, raw in {
        "pickle": pickle.dumps(Payload()),
        "other content": good[:32] + pickle.dumps(Payload()),
        "cut": good[:-1],
        "nothing": b"",
        "more": good + b"\0",
    }.items():
        path.write_bytes(raw)
        reports.check(f"kernel: {what}", read)
    for what, put in odd(path, good):
        path.unlink()
        put()
        if what != "huge":
            reports.check(f"kernel: {what}", read)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.touch()


def main(stride: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        reports = Reports()
        os.dup2(2, 1)
        limit()
        outside = Path("outside.txt")
        outside.write_text("mine")
        attack_checkpoints(reports, stride)
        attack_parameters(reports)
        attack_bundles(reports, stride)
        attack_run_folders(reports)
        attack_status(reports)
        attack_kernels(reports)
        if TARGET.exists():
            reports.say("pickle", "what it holds was executed")
        print(json.dumps(reports.count), file=reports.out, flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1)
