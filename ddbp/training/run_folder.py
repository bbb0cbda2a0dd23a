"""The run folder: configuration, metrics and parameters of a run, written by rank 0."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from ddbp.checkpoint.folder import write_arrays
from ddbp.reduction.replicate import named_arrays
from layers import Module
from layers.errors import Renamed, message


class RunFolder:
    """A folder with `config.json`, `metrics.jsonl` (a line per epoch) and, at the end,
    `model.safetensors`.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            fix = "Choose another with run_dir= (or --run-dir)."
            raise OSError(
                message(
                    "Trainer",
                    "the run folder must be writable",
                    f"{self.path}: {error.strerror}",
                    fix,
                )
            ) from error
        (self.path / "metrics.jsonl").write_text("")

    def write_configuration(self, facts: dict[str, Any]) -> None:
        """Write config.json."""
        self._replace(
            "config.json", json.dumps({"command": sys.argv, **facts}, indent=2, default=str) + "\n"
        )

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def write_metrics(self, records: Sequence[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew."""
        self._replace("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))

    def write_parameters(self, model: Module) -> None:
        """Write model.safetensors."""
        save_parameters(model, self.path / "model.safetensors")

    def _replace(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.new"
        temporary.write_text(text)
        temporary.replace(self.path / name)


def save_parameters(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the parameters and states of a model to a safetensors file, whole or not at all; on one
    rank.

    Parameters
    ----------
    model
        Names in the file are those of `Module.named_parameters` and `Module.named_states`.
    path
        The file; one that is there is replaced.
    """
    arrays = {name: array.value.copy() for name, array in named_arrays(model).items()}
    write_arrays(Path(path), arrays)


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
    """
    try:
        arrays = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        fix = "It may be cut off or of another format; save it again."
        raise ValueError(
            message("load_parameters", f"{path} must be a safetensors file", error, fix)
        ) from error
    wanted = named_arrays(model)
    if arrays.keys() != wanted.keys():
        missing = sorted(wanted.keys() - arrays.keys())
        unexpected = sorted(arrays.keys() - wanted.keys())
        got = f"missing {missing}, unexpected {unexpected}"
        old = sorted({name.rpartition(".")[2] for name in unexpected} & Renamed.names.keys())
        now = ", ".join(f"{name} is now {Renamed.names[name]}" for name in old)
        fix = f"Rename what the file holds: {now}." if old else "Build the same model first."
        raise ValueError(
            message(
                "load_parameters",
                f"{path} must hold the parameters of the model",
                got,
                fix,
            )
        )
    for name, array in wanted.items():
        if arrays[name].shape != array.shape:
            fix = "Build the same model first."
            raise ValueError(
                message(
                    "load_parameters",
                    f"{name} must have shape {array.shape}",
                    arrays[name].shape,
                    fix,
                )
            )
    for name, array in wanted.items():
        array.value = arrays[name]
