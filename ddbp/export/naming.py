"""What others call the parts of a model: names by prefix, in order, or of a well-known network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import layers
from layers import Module
from layers.errors import message
from layers.types import Array

from .layouts import Entry

Names = str | Mapping[str, str] | Sequence[str] | None
SCHEMES = ("nanogpt", "gpt2", "resnet")
_OF_BLOCK = {
    "self_attn.in_proj_": "attn.c_attn.",
    "self_attn.out_proj.": "attn.c_proj.",
    "linear1.": "mlp.c_fc.",
    "linear2.": "mlp.c_proj.",
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
}
_TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
_MASKS = (".attn.bias", ".attn.masked_bias")


def renamed(owner: str, model: Module, found: list[Entry], names: Names) -> list[Entry]:
    """Return what a model has under the names of others.

    Raises
    ------
    ValueError
        No such scheme, the model is no such network, or there are more names than arrays or fewer.
    """
    if names is None:
        return found
    if isinstance(names, Mapping):
        return _by_prefix(found, {str(old): str(new) for old, new in names.items()})
    if isinstance(names, str):
        if names not in SCHEMES:
            fix = "Pass {'0': 'conv1', …}, or list(module.state_dict())."
            must = f"names must be one of {', '.join(SCHEMES)}, a dict or a list"
            raise ValueError(message(owner, must, repr(names), fix))
        prefixes = _resnet(owner, model) if names == "resnet" else _gpt(owner, model)
        found = _by_prefix(found, prefixes)
        return [_transposed(each) for each in found] if names == "gpt2" else found
    given = list(names)
    if len(given) != len(found) or not all(isinstance(each, str) for each in given):
        fix = "Pass list(module.state_dict()) of a module with the same layers, in their order."
        must = f"names must be texts for all {len(found)} arrays"
        got = f"{len(given)}, {given[:3]}…" if given else "none"
        raise ValueError(message(owner, must, got, fix))
    return [replace(each, name=name) for each, name in zip(found, given, strict=True)]


def as_of_gpt(theirs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of a GPT without the masks that older files have, and with the names of the
    whole network where they are those of one without its output layer.
    """
    kept = {name: array for name, array in theirs.items() if not name.endswith(_MASKS)}
    if any(name.startswith("transformer.") for name in kept):
        return kept
    start = "transformer."
    return {
        name if name.startswith("lm_head.") else start + name: each for name, each in kept.items()
    }


def _by_prefix(found: list[Entry], prefixes: Mapping[str, str]) -> list[Entry]:
    """Return entries whose names begin with the longest prefix that is known, or as they were."""

    def name(old: str) -> str:
        for prefix in sorted(prefixes, key=len, reverse=True):
            whole = prefix in ("", old) or prefix.endswith((".", "_"))
            if old.startswith(prefix if whole else f"{prefix}."):
                return prefixes[prefix] + old.removeprefix(prefix)
        return old

    return [replace(each, name=name(each.name)) for each in found]


def _transposed(entry: Entry) -> Entry:
    """Return a weight as GPT-2's layers have it, (inputs, outputs)."""
    if not entry.name.endswith(_TRANSPOSED):
        return entry
    out, back = entry.out, entry.back

    def turned(*ours: Array) -> Array:
        return out(*ours).T

    return replace(entry, out=turned, back=lambda theirs: back(theirs.T))


def _parts(owner: str, model: Any, what: str) -> Iterator[tuple[int, Any]]:
    if not isinstance(model, layers.Sequential):
        must, fix = f"the model must be {what}", "Pass names as a dict or a list."
        raise ValueError(message(owner, must, f"a {type(model).__name__}", fix))
    return enumerate(model.layers)


def _gpt(owner: str, model: Any) -> dict[str, str]:
    """Return what nanoGPT calls the parts of a `layers.models.gpt`."""
    what = "embedding, positions, blocks, norm and output layer, as layers.models.gpt"
    names, blocks = {}, 0
    places = {
        layers.Embedding: "transformer.wte.",
        layers.LearnedPositions: "transformer.wpe.",
        layers.LayerNorm: "transformer.ln_f.",
        layers.Linear: "lm_head.",
        layers.Dropout: "",
    }
    for i, part in _parts(owner, model, what):
        if type(part) is layers.EncoderBlock:
            for ours, theirs in _OF_BLOCK.items():
                names[f"{i}.{ours}"] = f"transformer.h.{blocks}.{theirs}"
            blocks += 1
        elif type(part) in places:
            names[f"{i}."] = places[type(part)]
        else:
            fix = "Pass names as a dict or a list."
            raise ValueError(message(owner, f"the model must be {what}", repr(part), fix))
    return names


def _resnet(owner: str, model: Any) -> dict[str, str]:
    """Return what torchvision calls the parts of a `layers.models.resnet20`; on the way to fewer
    pixels or more channels a stage begins.
    """
    what = "convolution, norm, residual blocks and output layer, as layers.models.resnet20"
    names: dict[str, str] = {}
    stage, block, width = 0, 0, None
    for i, part in _parts(owner, model, what):
        kind = type(part)
        if kind is layers.Conv2d and not stage:
            names[f"{i}."] = "conv1."
        elif kind in (layers.BatchNorm, layers.BatchNorm2d) and not stage:
            names[f"{i}."] = "bn1."
        elif kind is layers.Linear:
            names[f"{i}."] = "fc."
        elif kind is layers.Residual:
            convolutions = norms = 0
            body = [*_parts(owner, part.body, what)]
            outputs = max((each.out_channels for _, each in body if _is_conv(each)), default=width)
            if outputs != width:
                stage, block, width = stage + 1, 0, outputs
            start = f"layer{stage}.{block}."
            for j, each in body:
                if _is_conv(each):
                    convolutions += 1
                    names[f"{i}.body.{j}."] = f"{start}conv{convolutions}."
                elif isinstance(each, layers.BatchNorm):
                    norms += 1
                    names[f"{i}.body.{j}."] = f"{start}bn{norms}."
            names[f"{i}.shortcut."] = f"{start}downsample."
            block += 1
    return names


def _is_conv(layer: Any) -> bool:
    return isinstance(layer, layers.Conv2d)
