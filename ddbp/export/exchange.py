"""Weights to and from PyTorch, by safetensors: their names, their layouts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors

from ddbp import files
from ddbp.checkpoint.folder import write_arrays
from ddbp.training.paths import path_of
from layers import Module
from layers.checks import positive_int
from layers.errors import message, wording
from layers.kernels.cache_folder import opened
from layers.types import Array

from .layouts import Entry, entries
from .naming import Names, as_of_gpt, renamed

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_SHOWN = 6


@wording("to_torch")
def to_torch(
    model: Module,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Names = None,
    channels: int | Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """Return the arrays of a model by the names and in the layouts of PyTorch's modules, and write
    them to a safetensors file if a path is given.

    Parameters
    ----------
    model
        The model. A `Sequential` is named as `nn.Sequential`, as is what forward-forward predicts
        with, an `EncoderBlock` as `nn.TransformerEncoderLayer`, an `LSTM` as `nn.LSTM`, and so on;
        attributes of composites of your own as they are.
    path
        The file; `module.load_state_dict(safetensors.torch.load_file(path))` reads it.
    names
        What they are called there: None for the names of `nn.Sequential`; a dict from beginnings of
        these to others, {"0": "conv1", "7": "fc1"}; a list of all names in order, such as
        `list(module.state_dict())`; or "nanogpt", "gpt2" (of Hugging Face: weights transposed) or
        "resnet" (of torchvision).
    channels
        The channels of the images that the model takes, if it flattens them before any convolution:
        they come channels-first there. Or for layers in composites of your own, by their names, of
        how many channels the flattened images are that they read, 1 if they read none: {"fc1": 16}.

    Raises
    ------
    ValueError
        The names are not those of so many arrays, or two are the same.
    OSError
        The file cannot be written.
    """
    found = _named("to_torch", model, names, channels)
    arrays: dict[str, Array] = {}
    for entry in found:
        if entry.name in arrays:
            fix = "Give every layer a name of its own."
            raise ValueError(message("to_torch", "names must differ", f"{entry.name} twice", fix))
        arrays[entry.name] = entry.theirs()
    if path is not None:
        # That it is PyTorch's is what Hugging Face's loaders ask for.
        write_arrays(path_of("to_torch", "path", path), arrays, {"format": "pt"})
    return arrays


@wording("from_torch")
def from_torch(
    model: Module,
    source: Any,
    *,
    names: Names = None,
    channels: int | Mapping[str, int] | None = None,
) -> None:
    """Give a model the weights of a PyTorch module with the same layers.

    Parameters
    ----------
    model
        A model of the same layers. Other parameters of it are not left: all must be there.
    source
        A safetensors file, a module, or its `state_dict()`.
    names, channels
        As of `to_torch`. With a list, the first name is that of the model's first array.

    Raises
    ------
    ValueError
        Names or shapes are not those of the model: all that are missing, unexpected or of another
        shape are listed, with what would mend it; nothing is changed then. Or the file is none of
        safetensors.
    """
    theirs = _arrays_of(source)
    found = _named("from_torch", model, names, channels)
    if isinstance(names, str) and names != "resnet":
        theirs = as_of_gpt(theirs)
    known: dict[tuple[int, ...], Array] = {}
    missing, shapes = [], []
    for entry in found:
        array, key = theirs.get(entry.name), tuple(map(id, entry.ours))
        if array is None:
            if not entry.counter and not _held(found, entry, theirs):
                missing.append(entry.name)
        elif not entry.counter and array.shape != entry.theirs().shape:
            shapes.append((entry.name, array.shape, entry.theirs().shape))
        elif key in known and not entry.counter and not np.array_equal(known[key], array):
            fix = "Make a model that does not share the weight."
            must = f"{entry.name} must equal the weight that the model shares with it"
            raise ValueError(message("from_torch", must, "other numbers", fix))
        else:
            known[key] = array
    wanted = {entry.name for entry in found}
    unexpected = [name for name in theirs if name not in wanted]
    unexpected = [name for name in unexpected if not name.endswith("num_batches_tracked")]
    if missing or shapes or unexpected:
        raise _mismatch(found, theirs, missing, unexpected, shapes)
    for entry in found:
        if entry.name in theirs and not entry.counter:
            for ours, array in zip(entry.ours, entry.back(theirs[entry.name]), strict=True):
                ours.value = np.ascontiguousarray(array)


def _named(
    owner: str, model: Any, names: Names, channels: int | Mapping[str, int] | None
) -> list[Entry]:
    if not isinstance(model, Module):
        must, fix = "model must be a layer or made of layers", "Pass the model itself."
        raise TypeError(message(owner, must, f"a {type(model).__name__}", fix))
    given = channels if isinstance(channels, Mapping) else {"": channels}
    told = {
        str(name): positive_int(owner, "channels", count, "3 for colours.")
        for name, count in given.items()
        if count is not None
    }
    found = entries(owner, model, told)
    layers = {each.name.rpartition(".")[0] for each in found}
    if strange := [name for name in told if name and name not in layers]:
        must, fix = "channels must be of layers by their names here", 'Write {"fc": 16}.'
        raise ValueError(message(owner, must, ", ".join(strange), fix))
    return renamed(owner, model, found, names)


def _held(found: list[Entry], entry: Entry, theirs: Mapping[str, Array]) -> bool:
    """Return whether the array of an entry is there under the name of another, which shares it."""
    ours = tuple(map(id, entry.ours))
    return any(tuple(map(id, each.ours)) == ours and each.name in theirs for each in found)


def _arrays_of(source: Any) -> dict[str, Array]:
    """Return the arrays of a file, of a module, or of its state."""
    if isinstance(source, str | os.PathLike):
        return _read(path_of("from_torch", "source", Path(source)))
    state = source.state_dict() if hasattr(source, "state_dict") else source
    if not isinstance(state, Mapping):
        fix = "Pass a path, module.state_dict(), or the module."
        must = "source must be a safetensors file, a module or its state_dict"
        raise TypeError(message("from_torch", must, f"a {type(source).__name__}", fix))
    return {str(name): _array(name, value) for name, value in state.items()}


def _array(name: str, value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        fix = "Pass tensors, or arrays of numbers."
        raise TypeError(message("from_torch", f"{name} must be numbers", array.dtype, fix))
    return array


def _read(path: Path) -> dict[str, Array]:
    """Return the arrays of a safetensors file, of bfloat16 as float32."""
    fix = "Write it with safetensors.torch.save_file(module.state_dict(), path)."
    if path.suffix in _PICKLED:
        must = "weights must come by safetensors: files of pickle run code"
        raise ValueError(message("from_torch", must, path, fix))
    try:
        with opened(path, links=True) as file:
            content = file.readall()
    except OSError as error:
        must, got = "source must be a readable file", f"{path}: {files.reason(error)}"
        raise type(error)(message("from_torch", must, got, "Check the path.")) from error
    arrays, read = {}, cast(Any, safetensors.deserialize)
    try:
        for name, each in read(content):
            data, shape = each["data"], each["shape"]
            if each["dtype"] == "BF16":
                words = np.frombuffer(data, "<u2").astype(np.uint32) << 16
                arrays[name] = words.view(np.float32).reshape(shape)
            else:
                arrays[name] = np.frombuffer(data, _TYPES[each["dtype"]]).reshape(shape)
    except (safetensors.SafetensorError, ArithmeticError, LookupError, ValueError) as error:
        must = f"{path} must be a safetensors file of numbers"
        raise ValueError(message("from_torch", must, error, fix)) from error
    return arrays


def _mismatch(
    found: list[Entry],
    theirs: Mapping[str, Array],
    missing: list[str],
    unexpected: list[str],
    shapes: list[tuple[str, Any, Any]],
) -> ValueError:
    """Return the error that names what does not fit, and the likely reason."""
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else ""
            parts.append(f"{what} {', '.join(names[:_SHOWN])}{more}")
    parts += [f"{name} of shape {got} for {wanted}" for name, got, wanted in shapes[:_SHOWN]]
    must = "names and shapes must be those of the model"
    return ValueError(
        message(
            "from_torch", must, "; ".join(parts), _fix(found, theirs, missing, unexpected, shapes)
        )
    )


def _fix(
    found: list[Entry],
    theirs: Mapping[str, Array],
    missing: list[str],
    unexpected: list[str],
    shapes: list[tuple[str, Any, Any]],
) -> str:
    wanted = {entry.name: entry for entry in found if not entry.counter}
    if missing and unexpected:
        for name in unexpected:
            start = name.removesuffix(missing[0])
            if start != name and {start + each for each in wanted} <= theirs.keys():
                return f"Their names begin with {start!r}: pass names={{'': {start!r}}}."
        here = [entry.theirs().shape for entry in found if not entry.counter]
        there = [a.shape for name, a in theirs.items() if not name.endswith("num_batches_tracked")]
        if here == there:
            return "All shapes agree in their order: pass names=list(module.state_dict())."
        if any(name.startswith(("transformer.h.", "h.")) for name in theirs):
            return (
                'They are of a GPT: pass names="nanogpt", or names="gpt2" for transposed weights.'
            )
    if shapes and all(got == wanted[::-1] and len(got) == 2 for _, got, wanted in shapes):
        return 'Weights are (inputs, outputs) there: names="gpt2", or transpose them.'
    if missing and not unexpected and all(each.endswith("bias") for each in missing):
        return "Make those layers with bias=False."
    if unexpected and not missing and all("bias" in each.rpartition(".")[2] for each in unexpected):
        return "Make those layers with bias=True."
    if shapes and not missing and not unexpected:
        return "Build the model of the same sizes."
    return "Build the same model, or say by names= what its parts are called there."
