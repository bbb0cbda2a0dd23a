"""Our arrays as PyTorch's modules have them: under which names, in which order of axes.

The walk follows images on their way through a model: here they are channels-last, there
channels-first, so that what reads flattened ones reads them in another order.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import layers
from layers import Module
from layers.conv.base import Convolution
from layers.engine.fixed_array import FixedArray
from layers.errors import message
from layers.rules.predictor import Predictor
from layers.types import Array

Out = Callable[..., Array]
Back = Callable[[Array], tuple[Array, ...]]


@dataclass(frozen=True)
class Entry:
    """An array of theirs.

    Attributes
    ----------
    name
        Its name in a `state_dict`.
    ours
        Our arrays that it is made of; none for what we do not have.
    out
        Returns theirs, given ours.
    back
        Returns ours, given theirs.
    counter
        Whether it is a count of batches, which nothing depends on.
    """

    name: str
    ours: tuple[FixedArray, ...]
    out: Out = lambda array: array
    back: Back = lambda array: (array,)
    counter: bool = False

    def theirs(self) -> Array:
        """Return the array as they have it."""
        if self.counter:
            return np.zeros((), np.int64)
        return np.array(self.out(*(each.value for each in self.ours)), order="C")


@dataclass
class _Flow:
    """What comes to a layer.

    Attributes
    ----------
    channels
        How many channels the images have that come to it; None for anything but images.
    flattened
        How many channels the images had that come to it flattened; 1 if none did.
    sure
        Whether it is known that what comes is of the layer before it: in composites of users'
        classes, layers are called as their code has it.
    told
        As `flattened`, for layers by their names.
    owner
        Who refuses what is not known.
    """

    channels: int | None = None
    flattened: int = 1
    sure: bool = True
    told: Mapping[str, int] = field(default_factory=dict)
    owner: str = ""

    def count(self, size: int, path: str) -> int:
        """Return of how many channels the flattened images are that a layer reads by an array of a
        size; 1 if it reads none.
        """
        name = path.removesuffix(".")
        if name in self.told:
            if size % self.told[name]:
                must, got = f"channels of {name} must divide its {size} inputs", self.told[name]
                raise ValueError(message(self.owner, must, got, "Pass those of the images."))
            return self.told[name]
        if self.sure:
            return self.flattened
        count = self.channels or self.flattened
        if count == 1 or size % count or size == count:
            return 1
        must = f"it must be known whether {name} reads flattened images, of {count} channels"
        fix = f'Pass channels={{"{name}": {count}}} if it does, or {{"{name}": 1}} if not.'
        raise ValueError(message(self.owner, must, f"{size} inputs, in a composite", fix))


def entries(owner: str, model: Module, channels: Mapping[str, int]) -> list[Entry]:
    """Return what a model's arrays are in PyTorch, in the order of a `state_dict`; `channels` are
    those of the flattened images that layers read, by their names, and under "" those of the images
    that the model takes, if there are any.
    """
    return [*_walk(model, "", _Flow(channels.get(""), told=channels, owner=owner))]


def _walk(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    """Yield the arrays of a layer, and have the flow be what comes after it."""
    kind = type(layer)
    if kind in (layers.Sequential, Predictor):
        for i, part in enumerate(layer.layers):
            yield from _walk(part, f"{path}{i}.", flow)
    elif kind is layers.Residual:
        after = replace(flow)
        yield from _walk(layer.body, f"{path}body.", after)
        if layer.shortcut is not None:
            yield from _walk(layer.shortcut, f"{path}shortcut.", replace(flow))
        vars(flow).update(vars(after))
    elif kind is layers.Recompute:
        yield from _walk(layer.segment, path, flow)
    elif kind in _WALKS:
        yield from _WALKS[kind](layer, path, flow)
    elif isinstance(layer, Convolution):
        yield from _convolution(layer, path, flow)
    elif isinstance(layer, layers.Composite):
        before = replace(flow)
        arrays = [*_attributes(vars(layer), path, flow)]
        # In which order they are called, only its code knows.
        vars(flow).update(vars(replace(flow, sure=False) if arrays else before))
        yield from arrays
    elif isinstance(layer, layers.Module):
        _pass(layer, flow)
        yield from _attributes(vars(layer), path, flow)


def _attributes(attribute: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    """Yield the arrays in attributes, by their names."""
    if isinstance(attribute, dict):
        items: Any = attribute.items()
    else:
        items = enumerate(attribute)
    for name, part in items:
        if str(name).startswith("_"):
            continue
        if isinstance(part, FixedArray):
            yield Entry(f"{path}{name}", (part,))
        elif isinstance(part, Module):
            flow.sure = False
            yield from _walk(part, f"{path}{name}.", flow)
        elif isinstance(part, list | tuple | dict):
            yield from _attributes(part, f"{path}{name}.", flow)


def _pass(layer: Any, flow: _Flow) -> None:
    """Have the flow be what a layer without a weight of two axes gives."""
    kind = type(layer)
    if isinstance(layer, layers.Reshape):
        if layer.shape == (-1,):
            flow.flattened = flow.channels or flow.flattened
            flow.channels = None
        else:
            flow.channels, flow.flattened = layer.shape[-1], 1
    elif kind is layers.PaddedShortcut:
        flow.channels = layer.out_channels
    elif kind in (layers.GlobalAveragePool, layers.PoolOverTime, layers.ChannelsFirst):
        flow.channels = None


def _moved(flow: _Flow, size: int, path: str) -> tuple[Out, Back]:
    """Return how the last axis of an array goes that reads flattened images."""
    count = flow.count(size, path)
    if count == 1 or size % count or size == count:
        return lambda a: a, lambda a: (a,)

    def order(array: Array, first: int, second: int) -> Array:
        parts = array.reshape(*array.shape[:-1], first, second)
        return parts.swapaxes(-1, -2).reshape(array.shape)

    pixels = size // count
    return lambda a: order(a, pixels, count), lambda a: (order(a, count, pixels),)


def _linear(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    yield Entry(f"{path}weight", (layer.weight,), *_moved(flow, layer.in_features, path))
    if layer.bias is not None:
        yield Entry(f"{path}bias", (layer.bias,))
    flow.channels, flow.flattened = None, 1


def _convolution(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    sequence = isinstance(layer, layers.Conv1d | layers.ConvTranspose1d)

    def out(weight: Array) -> Array:
        weight = np.moveaxis(weight, (-1, -2), (0, 1))
        return weight[:, :, 0] if sequence else weight

    def back(weight: Array) -> tuple[Array, ...]:
        weight = weight[:, :, np.newaxis] if sequence else weight
        return (np.moveaxis(weight, (1, 0), (-2, -1)),)

    yield Entry(f"{path}weight", (layer.weight,), out, back)
    if layer.bias is not None:
        yield Entry(f"{path}bias", (layer.bias,))
    flow.channels, flow.flattened, flow.sure = layer.out_channels, 1, True


def _prelu(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    yield Entry(f"{path}weight", (layer.weight,), *_moved(flow, layer.features, path))


def _norm(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    if isinstance(layer, layers.BatchNorm2d) and flow.flattened == 1:
        flow.channels = layer.features
    if isinstance(layer.features, int):
        moved: tuple[Out, Back] = _moved(flow, layer.features, path)
    elif flow.channels == layer.features[-1]:
        # Of whole images, which have their channels first there.
        moved = (lambda a: np.moveaxis(a, -1, 0)), (lambda a: (np.moveaxis(a, 0, -1),))
    else:
        moved = (lambda a: a), (lambda a: (a,))
    for name, theirs in (
        *(("weight", "weight"), ("bias", "bias"), ("running_mean", "running_mean")),
        ("running_variance", "running_var"),
    ):
        array = getattr(layer, name, None)
        if array is not None:
            yield Entry(f"{path}{theirs}", (array,), *moved)
    if isinstance(layer, layers.BatchNorm):
        yield Entry(f"{path}num_batches_tracked", (), counter=True)


def _embedding(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    def out(weight: Array) -> Array:
        # The vector of padding is 0 here whatever its row holds, and there it is its row.
        if layer.padding is not None:
            weight = weight.copy()
            weight[layer.padding] = 0
        return weight

    yield Entry(f"{path}weight", (layer.weight,), out)
    flow.channels, flow.flattened = None, 1


def _sequences(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    ways = 2 if layer.bidirectional else 1
    for i, cell in enumerate(layer.cells):
        end = f"_l{i // ways}{'_reverse' * (i % ways)}"
        yield from (replace(each, name=each.name + end) for each in _gates(cell, path))
    flow.channels, flow.flattened = None, 1


def _gates(cell: Any, path: str) -> Iterator[Entry]:
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        if getattr(cell, name) is not None:
            yield Entry(f"{path}{name}", (getattr(cell, name),))


def _cell(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    yield from _gates(layer.layer.cells[0], path)


def _attention(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    flow.channels, flow.flattened = None, 1
    size = layer.features
    parts = (layer.query, layer.memory) if layer.cross else (layer.projection,)
    cuts = [size] if layer.cross else []
    for name in ("weight", "bias"):
        arrays = tuple(getattr(part, name) for part in parts)
        if arrays[0] is not None:
            yield Entry(
                f"{path}in_proj_{name}",
                arrays,
                lambda *all_: np.concatenate(all_),
                lambda array: tuple(np.split(array, cuts)),
            )
    yield from _linear(layer.output, f"{path}out_proj.", flow)


def _block(layer: Any, path: str, flow: _Flow) -> Iterator[Entry]:
    yield from _attention(layer.attention, f"{path}self_attn.", flow)
    norms = [layer.norm_attention, layer.norm_dense]
    if isinstance(layer, layers.DecoderBlock):
        yield from _attention(layer.cross, f"{path}multihead_attn.", flow)
        norms.insert(1, layer.norm_cross)
    yield from _linear(layer.dense[0], f"{path}linear1.", flow)
    yield from _walk(layer.dense[1], f"{path}activation.", flow)
    yield from _linear(layer.dense[2], f"{path}linear2.", flow)
    for i, norm in enumerate(norms, 1):
        yield from _norm(norm, f"{path}norm{i}.", flow)


_WALKS: dict[type, Callable[[Any, str, _Flow], Iterator[Entry]]] = {
    layers.Linear: _linear,
    layers.PReLU: _prelu,
    layers.Embedding: _embedding,
    layers.MultiHeadAttention: _attention,
    **dict.fromkeys((layers.EncoderBlock, layers.DecoderBlock), _block),
    **dict.fromkeys((layers.LSTM, layers.GRU, layers.RNN), _sequences),
    **dict.fromkeys((layers.LSTMCell, layers.GRUCell, layers.RNNCell), _cell),
    **dict.fromkeys(
        (
            *(layers.BatchNorm, layers.BatchNorm2d, layers.LayerNorm, layers.RMSNorm),
            *(layers.GroupNorm, layers.InstanceNorm, layers.InstanceNorm1d, layers.InstanceNorm2d),
        ),
        _norm,
    ),
}
