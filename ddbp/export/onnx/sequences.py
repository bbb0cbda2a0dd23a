"""Embeddings, positions, recurrences and attention, as nodes of ONNX."""

from typing import Any

import numpy as np

import layers
from layers.recurrent.kinds import GRURecurrence, LSTMRecurrence
from layers.recurrent.recurrence import RecurrentPass
from layers.types import Array

from .builder import Graph, Tensor
from .elementwise import Convert

Shape = tuple[int, ...]
_LOW = -1e30
"""What stands for a score that does not count."""


def embedding(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (ids,) = inputs
    weight = layer.weight.value
    if layer.padding is not None:
        weight = weight.copy()
        weight[layer.padding] = 0
    return Tensor(graph.add("Gather", graph.constant(weight, "table"), ids.name), shape)


def learned_positions(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    return _added(graph, inputs[0], layer.weight.value, shape)


def sinusoidal(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    return _added(graph, inputs[0], layer._table, shape)


def _added(graph: Graph, x: Tensor, positions: Array, shape: Shape) -> Tensor:
    name, zero = graph.last(x), graph.integers(0)
    some = graph.add(
        "Slice", graph.constant(positions, "positions"), zero, graph.size(name, 1), zero
    )
    return Tensor(graph.add("Add", name, some), shape)


def _there(graph: Graph, steps: str, lengths: str) -> str:
    """Return which of so many steps of each sample there are (N, T)."""
    column = graph.add("Unsqueeze", lengths, graph.integers(1))
    return str(graph.add("Less", graph.range(steps), column))


def over_time(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    x, *rest = inputs
    name, axis = graph.last(x), graph.integers(1)
    if not rest:
        if layer.kind == "last":
            last = graph.constant(np.array(-1))
            return Tensor(graph.add("Gather", name, last, axis=1), shape)
        operator = {"mean": "ReduceMean", "max": "ReduceMax"}[layer.kind]
        return Tensor(graph.add(operator, name, axis, keepdims=0), shape)
    lengths, steps = rest[0].name, graph.size(name, 1)
    there = graph.add("Unsqueeze", _there(graph, steps, lengths), graph.integers(2))
    if layer.kind == "max":
        low = graph.constant(np.array(-np.inf, graph.dtype))
        name = graph.add("Where", there, name, low)
        return Tensor(graph.add("ReduceMax", name, axis, keepdims=0), shape)
    if layer.kind == "last":
        column = graph.add("Unsqueeze", lengths, graph.integers(1, 2))
        numbers = graph.add("Unsqueeze", graph.range(steps, 1), graph.integers(0, 2))
        there = graph.add("Equal", numbers, column)
    zero = graph.constant(np.zeros((), graph.dtype))
    name = graph.add("ReduceSum", graph.add("Where", there, name, zero), axis, keepdims=0)
    if layer.kind == "mean":
        count = graph.add("Unsqueeze", graph.add("CastLike", lengths, name), axis)
        name = graph.add("Div", name, count)
    return Tensor(name, shape)


def _in_their_order(core: Any, array: Array) -> Array:
    """Return rows of gates in the order i o f c of an LSTM, and z r h of a GRU."""
    order = {LSTMRecurrence: [0, 3, 1, 2], GRURecurrence: [1, 0, 2]}.get(type(core), [0])
    return np.concatenate([np.split(array, core.gates)[gate] for gate in order])


def recurrence(
    graph: Graph, layer: RecurrentPass, inputs: list[Any], shapes: list[Shape]
) -> list[Tensor]:
    """Add one layer of a recurrence in one direction; return its outputs and last states."""
    x, *rest = inputs
    core: Any = layer.core
    lengths = ""
    if layer.ragged:
        lengths = graph.add("Cast", rest.pop().name, to=6)
    states = [graph.add("Unsqueeze", each.name, graph.integers(0)) for each in rest]
    weights = [
        graph.constant(_in_their_order(core, each.value)[np.newaxis], "weight")
        for each in (core.weight_ih, core.weight_hh)
    ]
    bias = ""
    if core.bias_ih is not None:
        both = [_in_their_order(core, each.value) for each in (core.bias_ih, core.bias_hh)]
        bias = graph.constant(np.concatenate(both)[np.newaxis], "bias")
    operator = {LSTMRecurrence: "LSTM", GRURecurrence: "GRU"}.get(type(core), "RNN")
    options: dict[str, Any] = {
        "hidden_size": core.hidden_size,
        "direction": "reverse" if layer.reverse else "forward",
    }
    if operator == "GRU":
        options["linear_before_reset"] = 1
    if operator == "RNN":
        options["activations"] = ["Relu" if core.rectified else "Tanh"]
    in_time = graph.add("Transpose", graph.last(x), perm=[1, 0, 2])
    given = [in_time, *weights, bias, lengths, *states]
    while not given[-1]:
        given.pop()
    y, *last = graph.add(operator, *given, outputs=1 + core.states, **options)
    y = graph.add("Squeeze", y, graph.integers(1))
    names = [graph.add("Transpose", y, perm=[1, 0, 2])]
    names += [graph.add("Squeeze", each, graph.integers(0)) for each in last]
    return [Tensor(name, shape) for name, shape in zip(names, shapes, strict=True)]


def attention(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    holders = [x for x in inputs if isinstance(x, Tensor) and x.shape[2:]]
    further = inputs[len(holders) :]
    parts = _split(graph, holders, shape[2])
    width = shape[2] // layer.heads
    q, k, v = (
        graph.add(
            "Transpose",
            graph.add("Reshape", part, graph.integers(0, 0, layer.heads, width)),
            perm=[0, 2, 3, 1] if place == 1 else [0, 2, 1, 3],
        )
        for place, part in enumerate(parts)
    )
    scale = graph.constant(np.array(width**-0.5, graph.dtype))
    scores = graph.add("Mul", graph.add("MatMul", q, k), scale)
    seen = _seen(graph, layer, further, graph.size(parts[1], 1))
    if seen:
        low = graph.constant(np.array(_LOW, graph.dtype))
        scores = graph.add("Where", seen, scores, low)
    shares = graph.add("Softmax", scores, axis=-1)
    if seen:
        # A query that sees nothing gets 0.
        zero = graph.constant(np.zeros((), graph.dtype))
        shares = graph.add("Where", seen, shares, zero)
    y = graph.add("Transpose", graph.add("MatMul", shares, v), perm=[0, 2, 1, 3])
    return Tensor(graph.add("Reshape", y, graph.integers(0, 0, shape[2])), shape)


def _split(graph: Graph, holders: list[Tensor], features: int) -> list[str]:
    """Return queries, keys and values, of which inputs may hold several."""
    parts: list[str] = []
    for x in holders:
        count = x.shape[2] // features
        if count == 1:
            parts.append(graph.last(x))
        else:
            parts += graph.add("Split", graph.last(x), outputs=count, axis=2, num_outputs=count)
    return parts


def _seen(graph: Graph, layer: Any, further: list[Any], keys: str) -> str:
    """Return which of so many keys a query sees, as what broadcasts to (N, H, T, U); "" for all."""
    seen = ""

    def also(mask: str) -> str:
        return str(graph.add("And", seen, mask)) if seen else mask

    if layer.causal:
        numbers = graph.range(keys)
        column = graph.add("Unsqueeze", numbers, graph.integers(1))
        seen = graph.add("GreaterOrEqual", column, numbers)
    for each in further:
        if isinstance(each, Tensor):
            there = graph.add("Unsqueeze", _there(graph, keys, each.name), graph.integers(1, 2))
            seen = also(there)
        else:
            seen = also(graph.constant(np.asarray(each)))
    return seen


CONVERTERS: dict[type, Convert] = {
    layers.Embedding: embedding,
    layers.LearnedPositions: learned_positions,
    layers.SinusoidalPositions: sinusoidal,
    layers.PoolOverTime: over_time,
    layers.Attention: attention,
}
