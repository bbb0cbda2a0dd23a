"""The run folder: configuration, metrics and parameters of a run, written by rank 0."""

import errno
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.numpy

from ddbp import files
from ddbp.architecture.description import architecture
from ddbp.checkpoint.folder import write_arrays
from ddbp.reduction.replicate import named_arrays
from ddbp.terminal import json_line, json_text
from layers import Module
from layers.errors import Renamed, message
from layers.kernels.cache_folder import opened

from .paths import path_of

_UNREADABLE = (safetensors.SafetensorError, ArithmeticError, LookupError, MemoryError, ValueError)
_OF_ONE_RUN = (
    "architecture.json",
    "digests.jsonl",
    "findings.jsonl",
    "instruments/[0-9]*.npz",
    "instruments/layers.json",
    "nonfinite.jsonl",
    "report.html",
    "samples.npz",
    "status.json",
    "steps.jsonl",
    "trace.json",
)
"""What a run leaves beside its configuration, records and parameters, which the next one writes
over.
"""
_MODELS = ("model.ddbp", "model.safetensors")
"""What a run leaves when it comes to its end, of which others take its model."""
_LEAST = 2**16
"""Bytes that a run folder has room for when a trainer is made."""


class RunFolder:
    """A folder with `config.json`, `architecture.json`, `metrics.jsonl` (a line per epoch) and, at
    the end, `model.safetensors`; and `nonfinite.jsonl`, a line for each time that training has left
    out an update or gone back, as numbers were not finite.

    What it holds of another run stays until this one is accepted: see `clear`. Before training
    begins, whatever cannot be written is an error. After that training goes on: records wait for
    the next epoch, and parameters go to the temporary folder, with a warning.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # Lines of metrics that could not be written yet.
        self._waiting: list[str] = []
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(bytes(_LEAST))
        except OSError as error:
            raise self._refusal(error) from error

    def clear(self) -> None:
        """Remove what only another run can have left, but for its model, and its records."""
        try:
            (self.path / "metrics.jsonl").write_text("")
        except OSError as error:
            raise self._refusal(error) from error
        self._remove(_OF_ONE_RUN)

    def clear_models(self) -> None:
        """Remove the model of another run, as the first step of this one is about to be taken."""
        self._remove(_MODELS)

    def _remove(self, patterns: Sequence[str]) -> None:
        try:
            for pattern in patterns:
                for path in self.path.glob(pattern):
                    path.unlink()
        except OSError as error:
            raise self._refusal(error) from error

    def write_configuration(self, facts: dict[str, Any]) -> None:
        """Write config.json."""
        text = json_text({"command": sys.argv, **facts}, indent=2, default=str)
        self._replace("config.json", text + "\n")

    def write_architecture(self, model: Module) -> None:
        """Write architecture.json, of which `ddbp export` makes the model again; nothing of a model
        with layers that files cannot name.
        """
        try:
            text = json.dumps(architecture(model), indent=1)
        except TypeError:
            return
        self._replace("architecture.json", text + "\n")

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl, after those that could not be written before."""
        self._waiting.append(json_line(record) + "\n")
        path, lines = self.path / "metrics.jsonl", "".join(self._waiting).encode()
        try:
            with path.open("ab", buffering=0) as file:
                whole = file.tell()
                try:
                    if file.write(lines) < len(lines):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    # Not a part of a line.
                    os.truncate(path, whole)
                    raise
        except OSError as error:
            if len(self._waiting) == 1:
                must = f"{path} should hold a line for each epoch"
                fix = "Training goes on, and they are written as soon as that is possible."
                _warn(message("Trainer", must, error.strerror, fix))
        else:
            self._waiting.clear()

    def note(self, line: str) -> None:
        """Append a line to nonfinite.jsonl, if that is possible."""
        with suppress(OSError), (self.path / "nonfinite.jsonl").open("a") as file:
            file.write(line + "\n")

    def write_metrics(self, records: Sequence[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew."""
        self._waiting.clear()
        self._replace("metrics.jsonl", "".join(json_line(record) + "\n" for record in records))

    def write_parameters(self, model: Module) -> None:
        """Write model.safetensors; to a new folder for temporary files where it has no room here.

        Raises
        ------
        OSError
            There is no room there, either.
        """
        path = self.path / "model.safetensors"
        try:
            save_parameters(model, path)
        except OSError as error:
            other = None
            try:
                other = Path(tempfile.mkdtemp(prefix="ddbp-run-"), path.name)
                save_parameters(model, other)
            except OSError as second:
                if other is not None:
                    other.parent.rmdir()
                raise error from second
            _warn(f"{error} Meanwhile they are in {other}: move them.")

    def _replace(self, name: str, text: str) -> None:
        try:
            with files.whole(self.path / name) as place:
                place.write_text(text)
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> OSError:
        fix = "Choose another with run_dir= (or --run-dir), or free some space."
        got = f"{self.path}: {error.strerror}"
        return OSError(message("Trainer", "the run folder must be writable", got, fix))


def save_parameters(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the parameters and states of a model to a safetensors file, whole or not at all; on one
    rank.

    Parameters
    ----------
    model
        Names in the file are those of `Module.named_parameters` and `Module.named_states`.
    path
        The file; one that is there is replaced.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    target = path_of("save_parameters", "path", path)
    arrays = {name: array.value.copy() for name, array in _arrays("save_parameters", model).items()}
    write_arrays(target, arrays)


def _arrays(owner: str, model: Any) -> dict[str, Any]:
    """Return the parameters and states of a model by name, or refuse what has none."""
    if not isinstance(model, Module):
        must, fix = "model must be a layer or made of layers", "Pass the model itself."
        raise TypeError(message(owner, must, f"a {type(model).__name__}", fix))
    return dict(named_arrays(model))


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def load_parameters(model: Module, path: str | os.PathLike[str]) -> None:
    """Read the parameters and states of a model from a safetensors file.

    Parameters
    ----------
    model
        One of the same structure as the model that was saved.
    path
        The file.

    Raises
    ------
    ValueError
        The file is not a whole safetensors file, or its names or shapes are not those of the model;
        nothing is changed then.
    OSError
        The file cannot be read.
    """
    path = path_of("load_parameters", "path", path)
    _arrays("load_parameters", model)
    try:
        opened(path, links=True).close()
    except OSError as error:
        must, got = "path must be a readable file", f"{path}: {files.reason(error)}"
        raise type(error)(message("load_parameters", must, got, "Check the path.")) from error
    try:
        arrays = safetensors.numpy.load_file(path)
    except _UNREADABLE as error:
        fix = "It may be cut off or of another format; save it again."
        raise ValueError(
            message("load_parameters", f"{path} must be a safetensors file", error, fix)
        ) from error
    take_arrays("load_parameters", model, arrays, path)


def take_arrays(owner: str, model: Module, arrays: Mapping[str, Any], source: object) -> None:
    """Give a model arrays of a source, all of its parameters and states, by their names.

    Raises
    ------
    ValueError
        Names or shapes are not those of the model; nothing is changed then.
    """
    wanted = _arrays(owner, model)
    if arrays.keys() != wanted.keys():
        missing = sorted(wanted.keys() - arrays.keys())
        unexpected = sorted(arrays.keys() - wanted.keys())
        got = f"missing {missing}, unexpected {unexpected}"
        old = sorted({name.rpartition(".")[2] for name in unexpected} & Renamed.names.keys())
        now = ", ".join(f"{name} is now {Renamed.names[name]}" for name in old)
        fix = f"Rename what the file holds: {now}." if old else "Build the same model first."
        must = f"{source} must hold the parameters of the model"
        raise ValueError(message(owner, must, got, fix))
    for name, array in wanted.items():
        if arrays[name].shape != array.shape:
            fix = "Build the same model first."
            must = f"{name} must have shape {array.shape}"
            raise ValueError(message(owner, must, arrays[name].shape, fix))
    for name, array in wanted.items():
        array.value = arrays[name]
