"""Looking at checkpoints: `ddbp checkpoint list|show|verify|export FOLDER`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint, DamagedError
from ddbp.terminal import plain
from layers.errors import message

_MODEL = "model."


def run(arguments: Sequence[str]) -> int:
    """Run a command; return the exit status: 1 if a checkpoint is damaged."""
    parser = argparse.ArgumentParser(prog="ddbp checkpoint", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    of_folder = "a checkpoint, or a folder that has some, such as that of a run"
    helps: list[tuple[str, Callable[[argparse.Namespace], None], str]] = [
        ("list", _list, "list checkpoints, oldest first"),
        ("show", _show, "show what is in the newest"),
        ("verify", _verify, "compare all bytes with their digests"),
        ("export", _export, "write the model of the newest to one safetensors file"),
    ]
    for name, command, text in helps:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("folder", type=Path, help=of_folder)
        sub.set_defaults(command=command)
        if name == "export":
            default = Path("model.safetensors")
            about = "the file to write (%(default)s)"
            sub.add_argument("-o", "--output", type=Path, default=default, help=about)
            sub.add_argument("--overwrite", action="store_true", help="even if there is one")
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except (OSError, ValueError) as error:
        print(plain(error), file=sys.stderr)
        return 1
    return 0


def _paths(path: Path) -> list[Path]:
    """Return the checkpoints that are meant by a path, oldest first."""
    try:
        if (path / folder.STATE).exists():
            return [path]
        paths = folder.found(folder.within(path))
    except OSError as error:
        fix = "Name a folder that you may read."
        must = "the folder of checkpoints must be readable"
        got = f"{path}: {error.strerror}"
        raise OSError(message("ddbp checkpoint", must, got, fix)) from error
    if not paths:
        fix = "Name a checkpoint, or a folder that has some, such as that of a run."
        raise DamagedError(message("ddbp checkpoint", "there must be a checkpoint", path, fix))
    return paths


def _newest(path: Path) -> Checkpoint:
    return Checkpoint(_paths(path)[-1])


def _list(options: argparse.Namespace) -> None:
    damaged = []
    for path in _paths(options.folder):
        try:
            checkpoint = Checkpoint(path)
        except DamagedError as error:
            damaged.append(error)
            print(f"{path.name}  damaged")
            continue
        facts = checkpoint.facts
        size = sum(each.lstat().st_size for each in path.iterdir())
        best = f"  best {facts['best']}" if facts.get("best") is not None else ""
        words = f"epoch {facts.get('epoch')}  {facts.get('ranks')} ranks  {size / 2**20:.1f} MiB"
        print(plain(f"{path.name}  {facts.get('time')}  {words}{best}"))
    if damaged:
        raise damaged[0]


def _show(options: argparse.Namespace) -> None:
    checkpoint = _newest(options.folder)
    for name, value in checkpoint.facts.items():
        if name not in ("values", "arrays"):
            print(plain(f"{name}: {value}"))
    for name, value in checkpoint.values.items():
        print(plain(f"{name}: {value}"))
    for name, entry in checkpoint.arrays.items():
        words = f"{entry.shape} {entry.dtype}, in {len(entry.pieces)} pieces"
        print(plain(f"{name}: {words}"))


def _verify(options: argparse.Namespace) -> None:
    damaged = []
    for path in _paths(options.folder):
        try:
            Checkpoint(path).require_whole()
        except DamagedError as error:
            damaged.append(error)
            print(f"{path.name}  damaged")
        else:
            print(f"{path.name}  whole")
    if damaged:
        raise damaged[0]


def _export(options: argparse.Namespace) -> None:
    if os.path.lexists(options.output) and not options.overwrite:
        must, fix = "export must write a new file", "Name one by -o, or add --overwrite."
        raise ValueError(message("ddbp checkpoint", must, options.output, fix))
    checkpoint = _newest(options.folder)
    checkpoint.require_whole()
    arrays = checkpoint.snapshot().arrays
    model = {
        name.removeprefix(_MODEL): np.asarray(array)
        for name, array in arrays.items()
        if name.startswith(_MODEL)
    }
    folder.write_arrays(options.output, model)
    print(f"{options.output}: {len(model)} arrays of {checkpoint.path}")
