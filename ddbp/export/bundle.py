"""Bundles: a model, what prepares its inputs, and what its outputs are, in one file that others can
read.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ddbp.architecture.description import (
    ArchitectureError,
    architecture,
    build_for,
    require_precision,
)
from ddbp.data.samples import Ragged
from ddbp.reduction.replicate import named_arrays
from ddbp.training import checks, evaluation
from ddbp.training.paths import path_of
from ddbp.training.run_folder import take_arrays
from layers import Module
from layers.checks import positive_int
from layers.errors import message, wording
from layers.types import Array

from . import archive
from .archive import PARAMETERS, TOKENIZER, BundleError, damaged

TASKS = ("classification", "multilabel", "regression", "series", "language", "other")
"""What a model may be for."""
_DTYPES = ("float32", "float64", "int64")


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds.

    Attributes
    ----------
    model
        The model, with its parameters and states.
    preprocessing
        What prepares its inputs, as `state()` of it says; None if they are arrays.
    task
        "classification", "multilabel", "regression", "series", "language" or "other".
    labels
        The names of the classes, or of the outputs, in their order; None if they have none.
    example
        Shape (without the batch axis) and type of an input, such as ((28, 28, 1), "float32"); None
        if that was not said.
    ragged
        Whether inputs are sequences of different lengths, of which the example is one.
    facts
        All that bundle.json says.
    """

    model: Module
    preprocessing: dict[str, Any] | None = None
    task: str = "other"
    labels: tuple[str, ...] | None = None
    example: tuple[tuple[int, ...], str] | None = None
    ragged: bool = False
    facts: Mapping[str, Any] | None = None

    def predict(self, x: Any, batch_size: int = 256) -> Any:
        """Return the model's output for inputs that are prepared already, as `Trainer.predict`
        does: logits of a classifier, in the order of `labels`.

        Parameters
        ----------
        x
            An array (N, …), sequences of different lengths (`ddbp.Ragged`), or several in a tuple
            or dict.
        batch_size
            So many samples are computed at a time.
        """
        size = positive_int("Bundle.predict", "batch_size", batch_size, "256 is usual.")
        dtypes = [parameter.dtype for parameter in self.model.parameters()]
        samples = checks.samples_to_predict(x, dtypes[0] if dtypes else np.dtype(np.float32))
        return evaluation.predict(self.model, samples, size)


@wording("save_bundle")
def save_bundle(
    path: str | os.PathLike[str],
    model: Module,
    *,
    preprocessing: Any = None,
    task: str = "other",
    labels: Sequence[str] | None = None,
    example: Any = None,
) -> None:
    """Write a model and what belongs to it to one file, whole or not at all; on one rank.

    Parameters
    ----------
    path
        The file, by convention with the ending `.ddbp`; one that is there is replaced.
    model
        A model of layers of this package and of kinds that were registered, see `register`.
    preprocessing
        What prepares inputs: an object of `ddbp.data` with `state()`, or such a state, which JSON
        can hold. What it has under "tokenizer" becomes a file of its own.
    task
        "classification", "multilabel", "regression", "series", "language" or "other".
    labels
        The names of the classes, or of the outputs, in their order; those of the preprocessing
        unless given.
    example
        An input (N, …): its shape and type tell other tools what the model takes. Of a `Ragged`
        those of its first sequence, and that others may differ in length.

    Raises
    ------
    TypeError
        A layer is of a kind that files cannot name, or the preprocessing is nothing that JSON
        holds.
    OSError
        The file cannot be written.
    """
    target = path_of("save_bundle", "path", path)
    description = architecture(model)
    if task not in TASKS:
        fix = 'Write task="classification".'
        raise ValueError(message("save_bundle", f"task must be in {TASKS}", repr(task), fix))
    state = _state(preprocessing)
    if labels is None and state is not None:
        labels = state.get("classes") or None
    names = None if labels is None else _names(labels)
    members = {PARAMETERS: _packed(model)}
    if state is not None and isinstance(state.get("tokenizer"), dict):
        members[TOKENIZER] = json.dumps(state["tokenizer"], ensure_ascii=False).encode()
        state = {**state, "tokenizer": None}
    facts = {
        "task": task,
        "labels": names,
        "example": _facts_of(example),
        "preprocessing": state,
        "architecture": description,
    }
    archive.write(target, facts, members)


@wording("load_bundle")
def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a model and what belongs to it from a file that `save_bundle` has written. No code of
    the file is run, and nothing is written to a disk.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        It is no whole bundle, or of another version, or has a layer of a kind that is not known
        here; the error says which.
    OSError
        It cannot be read.
    """
    path = path_of("load_bundle", "path", path)
    facts, members = archive.read(path)
    arrays = unpacked(path, members[PARAMETERS])
    try:
        model = build_for(facts.get("architecture"), arrays)
        take_arrays("load_bundle", model, arrays, path)
        require_precision(model, facts["architecture"])
    except ArchitectureError as error:
        raise BundleError(f"load_bundle: {path} must describe a model; got {error}") from error
    except ValueError as error:
        raise BundleError(str(error)) from error
    state = facts.get("preprocessing")
    if state is not None and not isinstance(state, dict):
        raise damaged(path, "its preprocessing must be an object", type(state).__name__)
    if TOKENIZER in members:
        try:
            state = {**(state or {}), "tokenizer": json.loads(members[TOKENIZER])}
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"{TOKENIZER} must be JSON", error) from error
    labels = facts.get("labels")
    if labels is not None and not (
        isinstance(labels, list) and all(isinstance(each, str) for each in labels)
    ):
        raise damaged(path, "its labels must be texts", repr(labels)[:80])
    task = facts.get("task")
    if task not in TASKS:
        raise damaged(path, f"its task must be in {TASKS}", repr(task)[:80])
    example, ragged = _example(path, facts.get("example"))
    names = None if labels is None else (*labels,)
    return Bundle(model, state, task, names, example, ragged, facts)


def unpacked(path: Path, content: bytes) -> dict[str, Array]:
    """Return the arrays of a safetensors file by name."""
    try:
        arrays: dict[str, Array] = safetensors.numpy.load(content)
    except (
        safetensors.SafetensorError,
        ArithmeticError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise damaged(path, f"{PARAMETERS} must be a safetensors file", error) from error
    return arrays


def _names(labels: Any) -> list[str]:
    names = [str(label) for label in labels]
    if isinstance(labels, str | bytes) or len({*names}) < len(names):
        must, fix = "labels must be a list of names, all different", 'Write labels=["cat", "dog"].'
        raise ValueError(message("save_bundle", must, repr(labels)[:80], fix))
    return names


def _packed(model: Module) -> bytes:
    arrays = {name: np.array(each.value, order="C") for name, each in named_arrays(model).items()}
    return bytes(safetensors.numpy.save(arrays))


def _state(preprocessing: Any) -> dict[str, Any] | None:
    """Return the state of what prepares inputs, as it comes back from JSON."""
    if preprocessing is None:
        return None
    state = preprocessing.state() if hasattr(preprocessing, "state") else preprocessing
    try:
        if not isinstance(state, Mapping):
            raise TypeError(f"a {type(state).__name__}")
        result: dict[str, Any] = json.loads(json.dumps(dict(state), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        must = "preprocessing must have a state that JSON can hold"
        fix = "Pass an object of ddbp.data, or what its state() returns."
        raise TypeError(message("save_bundle", must, error, fix)) from error
    return result


def _facts_of(example: Any) -> dict[str, Any] | None:
    """Return shape and type of a sample."""
    if example is None:
        return None
    ragged = isinstance(example, Ragged)
    array = example.values[: example.lengths[0]][np.newaxis] if ragged else np.asarray(example)
    if array.ndim < 1 or array.dtype.kind not in "fiub":
        must, fix = "example must be an input (N, …)", "Pass example=x[:1]."
        got = f"shape {array.shape} of {array.dtype}"
        raise ValueError(message("save_bundle", must, got, fix))
    dtype = str(array.dtype) if array.dtype.kind == "f" else "int64"
    facts = {"shape": [*array.shape[1:]], "dtype": dtype}
    return {**facts, "ragged": True} if ragged else facts


def _example(path: Path, facts: Any) -> tuple[tuple[tuple[int, ...], str] | None, bool]:
    """Return shape and type of a sample, and whether samples may differ in length."""
    if facts is None:
        return None, False
    try:
        shape, dtype, ragged = facts["shape"], facts["dtype"], facts.get("ragged", False)
        known = dtype in _DTYPES and all(type(size) is int and 0 < size < 2**31 for size in shape)
        known = known and (ragged is False or (ragged is True and len(shape) > 0))
    except (AttributeError, TypeError, KeyError):
        known = False
    if not known:
        raise damaged(path, "its example must be a shape and a type", repr(facts)[:80])
    return ((*shape,), dtype), ragged
