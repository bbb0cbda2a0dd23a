"""A model for other tools: `ddbp export BUNDLE_OR_RUN --onnx FILE --torch FILE --bundle FILE`."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddbp import files, written
from ddbp.comm.current import communicator
from ddbp.data.samples import Ragged
from ddbp.export.bundle import Bundle, load_bundle, save_bundle
from ddbp.export.exchange import to_torch
from ddbp.export.naming import SCHEMES
from ddbp.export.onnx.model import to_onnx
from ddbp.export.run import load_run
from ddbp.terminal import plain
from layers import Embedding
from layers.errors import message
from layers.types import Array

from .bundles import NAME

_OWNER = "ddbp export"
_LARGEST = 2**26
"""Numbers of an input, at most."""
_CLOSE = 1e-4
"""How far outputs of onnxruntime may be from ours, of the largest."""


def run(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status: 1 if the model cannot be read or exported."""
    parser = argparse.ArgumentParser(prog=_OWNER, description=__doc__)
    parser.add_argument("source", type=Path, help="a bundle, or the folder of a run")
    parser.add_argument("--bundle", type=Path, help="write a bundle (NAME.ddbp)")
    parser.add_argument("--onnx", type=Path, help="write a file of ONNX")
    parser.add_argument("--torch", type=Path, help="write safetensors with PyTorch's names")
    parser.add_argument(
        "--names", choices=SCHEMES, help="names of a well-known network, of --torch"
    )
    parser.add_argument(
        "--shape", type=_shape, help="of an input without the batch, such as 28,28,1, for --onnx"
    )
    parser.add_argument(
        "--lengths",
        action=argparse.BooleanOptionalAction,
        help="have --onnx take the lengths of sequences (where a recipe has trained so)",
    )
    parser.add_argument(
        "--any-length",
        action=argparse.BooleanOptionalAction,
        help="have --onnx take sequences of any length (where it takes their lengths)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    options = parser.parse_args(arguments)
    try:
        _export(options)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(plain(error), file=sys.stderr)
        return 1
    return 0


def _shape(text: str) -> tuple[int, ...]:
    sizes = tuple(written.integer(size.strip()) for size in text.split(","))
    if min(sizes) < 1 or math.prod(sizes) > _LARGEST:
        raise ValueError
    return sizes


def _export(options: argparse.Namespace) -> None:
    if not communicator().leads:
        # Of several ranks one writes.
        return
    source = options.source
    bundle = _of_run(source) if os.path.isdir(source) else load_bundle(source)
    targets = [each for each in (options.bundle, options.onnx, options.torch) if each is not None]
    for target in targets:
        if os.path.lexists(target) and not options.overwrite:
            must, fix = "export must write a new file", "Name another one, or add --overwrite."
            raise ValueError(message(_OWNER, must, target, fix))
        if not target.parent.is_dir():
            raise files.unwritable(_OWNER, target, FileNotFoundError("no such folder"))
    if not targets:
        _show(bundle)
    if options.bundle is not None:
        save_bundle(
            options.bundle,
            bundle.model,
            preprocessing=bundle.preprocessing,
            task=bundle.task,
            labels=bundle.labels,
            example=_example_of_bundle(options, bundle),
        )
        print(plain(f"{options.bundle}: a bundle"))
    if options.torch is not None:
        arrays = to_torch(bundle.model, options.torch, names=options.names)
        print(plain(f"{options.torch}: {len(arrays)} arrays with PyTorch's names"))
    if options.onnx is not None:
        print(plain(f"{options.onnx}: {_to_onnx(options, bundle)}"))


def _to_onnx(options: argparse.Namespace, bundle: Bundle) -> str:
    """Write a file of ONNX; return what it takes, and how far its outputs are from ours."""
    example, ragged = _example(options, bundle), _ragged(options, bundle)
    free = ragged if options.any_length is None else options.any_length
    if (ragged or free) and example.ndim < 2:
        must, fix = (
            "inputs with --lengths or --any-length must have steps",
            "Leave these flags out.",
        )
        raise ValueError(message(_OWNER, must, f"shape {example.shape[1:]} of a sample", fix))
    lengths = np.full(len(example), example.shape[1]) if ragged else None
    to_onnx(bundle.model, options.onnx, example, lengths=lengths, any_length=free)
    given = [(example, lengths)]
    if ragged:
        shorter = np.maximum(1, [example.shape[1], example.shape[1] // 2])
        given.append((example, shorter))
    if free:
        steps = max(1, example.shape[1] // 2)
        given.append((example[:, :steps], np.array([steps, 1]) if ragged else None))
    said = "takes lengths of sequences, " * ragged + "of any number of steps; " * free
    return said + _compared(bundle.model, options.onnx, given)


def _of_run(folder: Path) -> Bundle:
    """Return the model of a run, with what the bundle that a recipe has left says beside it."""
    found, described = load_run(folder), folder / NAME
    return replace(load_bundle(described), model=found.model) if described.is_file() else found


def _show(bundle: Bundle) -> None:
    print(plain(f"task: {bundle.task}"))
    if bundle.labels is not None:
        print(plain(f"labels: {', '.join(bundle.labels)}"))
    if bundle.example is not None:
        more = ", and others of other lengths" * bundle.ragged
        print(plain(f"example: {bundle.example[0]} {bundle.example[1]}{more}"))
    if bundle.preprocessing is not None:
        print(plain(f"preprocessing: {bundle.preprocessing.get('kind')}"))
    size = sum(parameter.size for parameter in bundle.model.parameters())
    print(f"parameters: {size}")
    print(plain(f"model: {bundle.model!r}"))


def _ragged(options: argparse.Namespace, bundle: Bundle) -> bool:
    """Return whether the model takes the lengths of sequences."""
    return bundle.ragged if options.lengths is None else bool(options.lengths)


def _example_of_bundle(options: argparse.Namespace, bundle: Bundle) -> Any:
    """Return what a bundle keeps an input by, if it is known."""
    if not (options.shape or bundle.example):
        return None
    example = _example(options, bundle)
    return Ragged([*example]) if _ragged(options, bundle) else example


def _example(options: argparse.Namespace, bundle: Bundle) -> Array:
    """Return an input of two samples, as the bundle says or --shape does."""
    shape, dtype = bundle.example or (None, "float32")
    if options.shape:
        shape = options.shape
        parts = [layer for _, layer in bundle.model.named_layers()]
        leaves = [layer for layer in parts if len([*layer.named_layers()]) == 1]
        dtype = "int64" if leaves and isinstance(leaves[0], Embedding) else "float32"
    if shape is None:
        fix = "Add --shape, such as --shape 28,28,1 for images or --shape 64 for tokens."
        raise ValueError(message(_OWNER, "the shape of an input must be known", "none", fix))
    rng = np.random.default_rng(0)
    if dtype == "int64":
        tables = [part for _, part in bundle.model.named_layers() if isinstance(part, Embedding)]
        # Numbers that all tables have.
        most = min((len(table.weight.value) for table in tables), default=1)
        return rng.integers(0, most, (2, *shape))
    return rng.standard_normal((2, *shape)).astype(np.float32)


def _compared(model: Any, path: Path, inputs: Sequence[tuple[Array, Array | None]]) -> str:
    """Return how far the outputs of a file of ONNX are from ours at most, where that can be told,
    for inputs and their lengths.
    """
    try:
        import onnxruntime
    except ImportError:
        return "checked by onnx; onnxruntime, which would compare outputs, is not installed"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = []
    for x, lengths in inputs:
        given = {"input": x} | ({} if lengths is None else {"lengths": lengths})
        (found,) = session.run(None, given)
        expected = model(x) if lengths is None else model(x, lengths=lengths)
        differences.append(np.abs(found - expected).max() / max(1e-30, np.abs(expected).max()))
    difference = float(np.max(differences))
    if not difference < _CLOSE:
        fix = "Report it, with the architecture."
        must = "onnxruntime must give the outputs of the model"
        raise ValueError(message(_OWNER, must, f"a difference of {difference:.1e}", fix))
    return f"outputs of onnxruntime differ by {difference:.1e} of the largest"
