"""Activations, norms, dense layers and what joins inputs, as nodes of ONNX."""

from collections.abc import Callable
from typing import Any

import numpy as np

import layers

from .builder import Graph, Tensor

Convert = Callable[[Graph, Any, list[Any], tuple[int, ...]], Tensor]
"""Adds a layer's nodes to a graph, given its inputs and the shape of its output; returns that."""


def unary(operator: str, **read: Callable[[Any], float]) -> Convert:
    """Return what converts a function of each element, with attributes that are read of a layer."""

    def convert(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
        (x,) = inputs
        attributes = {name: value(layer) for name, value in read.items()}
        return Tensor(graph.add(operator, x.name, **attributes), shape, x.first)

    return convert


def composed(make: Callable[[Graph, Any, str], str]) -> Convert:
    """Return what converts a function of each element that several nodes make."""

    def convert(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
        (x,) = inputs
        return Tensor(make(graph, layer, x.name), shape, x.first)

    return convert


def _number(graph: Graph, value: float) -> str:
    return graph.constant(np.array(value, graph.dtype))


def _silu(graph: Graph, layer: Any, x: str) -> str:
    return str(graph.add("Mul", x, graph.add("Sigmoid", x)))


def _mish(graph: Graph, layer: Any, x: str) -> str:
    return str(graph.add("Mul", x, graph.add("Tanh", graph.add("Softplus", x))))


def _softplus(graph: Graph, layer: Any, x: str) -> str:
    if layer.beta == 1:
        return str(graph.add("Softplus", x))
    beta = _number(graph, layer.beta)
    return str(graph.add("Div", graph.add("Softplus", graph.add("Mul", x, beta)), beta))


def _clip(graph: Graph, layer: Any, x: str) -> str:
    low, high = (_number(graph, each) for each in (layer.low, layer.high))
    return str(graph.add("Clip", x, low, high))


def same(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    """Add nothing: a layer that does nothing outside of training."""
    x: Tensor = inputs[0]
    return x


def softmax(operator: str) -> Convert:
    """Return what converts a function along an axis."""

    def convert(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
        (x,) = inputs
        return Tensor(graph.add(operator, graph.last(x), axis=layer.axis), shape)

    return convert


def prelu(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    slope = graph.constant(layer.weight.value, "slope")
    return Tensor(graph.add("PRelu", graph.last(x), slope), shape)


def linear(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    weight, bias = layer.weight.value, layer.bias
    rest = [] if bias is None else [graph.constant(bias.value, "bias")]
    if x.ndim == 2:
        name = graph.add("Gemm", x.name, graph.constant(weight, "weight"), *rest, transB=1)
        return Tensor(name, shape)
    name = graph.add("MatMul", graph.last(x), graph.constant(weight.T, "weight"))
    return Tensor(graph.add("Add", name, *rest) if rest else name, shape)


def batch_norm(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    size = layer.features
    gain = np.ones(size) if layer.weight is None else layer.weight.value
    bias = np.zeros(size) if layer.bias is None else layer.bias.value
    mean, variance = layer.running_mean.value, layer.running_variance.value
    if x.first or x.ndim == 2:
        arrays = [graph.constant(np.asarray(a, graph.dtype)) for a in (gain, bias, mean, variance)]
        name = graph.add("BatchNormalization", x.name, *arrays, epsilon=layer.epsilon)
        return Tensor(name, shape, x.first)
    scale = gain / np.sqrt(variance.astype(np.float64) + layer.epsilon)
    name = graph.add("Sub", x.name, graph.constant(mean))
    name = graph.add("Mul", name, graph.constant(scale))
    return Tensor(graph.add("Add", name, graph.constant(np.asarray(bias, graph.dtype))), shape)


def layer_norm(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    sizes = layer.features if isinstance(layer.features, tuple) else (layer.features,)
    gain = np.ones(sizes, graph.dtype) if layer.weight is None else layer.weight.value
    rest = [] if layer.bias is None else [graph.constant(layer.bias.value)]
    name = graph.add(
        "LayerNormalization",
        graph.last(x),
        graph.constant(gain),
        *rest,
        axis=-len(sizes),
        epsilon=layer.epsilon,
    )
    return Tensor(name, shape)


def rms_norm(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    name = graph.last(x)
    count = len(layer.features) if isinstance(layer.features, tuple) else 1
    axes = graph.integers(*range(-count, 0))
    mean = graph.add("ReduceMean", graph.add("Mul", name, name), axes, keepdims=1)
    root = graph.add("Sqrt", graph.add("Add", mean, _number(graph, layer.epsilon)))
    name = graph.add("Div", name, root)
    if layer.weight is not None:
        name = graph.add("Mul", name, graph.constant(layer.weight.value))
    return Tensor(name, shape)


def group_norm(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    groups, size = layer.groups, layer.features
    ones, zeros = (graph.constant(np.full(groups, value, graph.dtype)) for value in (1, 0))
    first = graph.first(x)
    parts = graph.add("Reshape", first, graph.integers(0, groups, -1))
    parts = graph.add("InstanceNormalization", parts, ones, zeros, epsilon=layer.epsilon)
    name = graph.add("Reshape", parts, graph.add("Shape", first))
    if layer.weight is not None:
        place = (size, *[1] * (x.ndim - 2))
        name = graph.add("Mul", name, graph.constant(layer.weight.value.reshape(place)))
        name = graph.add("Add", name, graph.constant(layer.bias.value.reshape(place)))
    return Tensor(name, shape, x.ndim > 2)


def joined(operator: str) -> Convert:
    """Return what converts the sum or the product of several inputs, which broadcast."""

    def convert(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
        names, first = graph.together(*inputs)
        name = names[0]
        for other in names[1:]:
            name = graph.add(operator, name, other)
        return Tensor(name, shape, first)

    return convert


def concatenate(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    axis = layer.axis % len(shape)
    names, first = graph.together(*inputs)
    if first and axis:
        axis = 1 if axis == len(shape) - 1 else axis + 1
    return Tensor(graph.add("Concat", *names, axis=axis), shape, first)


def reshape(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    return Tensor(graph.reshaped(x, shape), shape)


def channels_last(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    return Tensor(graph.last(inputs[0]), shape, True)


def channels_first(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    return Tensor(graph.first(inputs[0]), shape)


def coefficients(graph: Graph, layer: Any, inputs: list[Any], shape: tuple[int, ...]) -> Tensor:
    (x,) = inputs
    rows = graph.size(x.name, 0)
    whole = graph.add("Concat", rows, graph.integers(*shape[1:]), axis=0)
    return Tensor(graph.add("Expand", graph.constant(layer.values.value), whole), shape)


CONVERTERS: dict[type, Convert] = {
    layers.ReLU: unary("Relu"),
    layers.LeakyReLU: unary("LeakyRelu", alpha=lambda layer: layer.slope),
    layers.Sigmoid: unary("Sigmoid"),
    layers.Tanh: unary("Tanh"),
    layers.SiLU: composed(_silu),
    layers.GELU: unary("Gelu", approximate=lambda layer: layer.approximate),
    layers.ELU: unary("Elu", alpha=lambda layer: layer.alpha),
    layers.CELU: unary("Celu", alpha=lambda layer: layer.alpha),
    layers.SELU: unary("Selu", alpha=lambda layer: layer._alpha, gamma=lambda layer: layer._scale),
    layers.Softplus: composed(_softplus),
    layers.Mish: composed(_mish),
    layers.Hardtanh: composed(_clip),
    layers.ReLU6: composed(_clip),
    layers.Hardsigmoid: unary("HardSigmoid", alpha=lambda _: 1 / 6, beta=lambda _: 0.5),
    layers.Hardswish: unary("HardSwish"),
    layers.PReLU: prelu,
    layers.Softmax: softmax("Softmax"),
    layers.LogSoftmax: softmax("LogSoftmax"),
    layers.Linear: linear,
    **dict.fromkeys((layers.Identity, layers.Dropout, layers.Dropout2d), same),
    **dict.fromkeys((layers.BatchNorm, layers.BatchNorm2d), batch_norm),
    layers.LayerNorm: layer_norm,
    layers.RMSNorm: rms_norm,
    **dict.fromkeys(
        (layers.GroupNorm, layers.InstanceNorm, layers.InstanceNorm1d, layers.InstanceNorm2d),
        group_norm,
    ),
    layers.Add: joined("Add"),
    layers.Multiply: joined("Mul"),
    layers.Concatenate: concatenate,
    **dict.fromkeys((layers.Flatten, layers.Reshape), reshape),
    layers.ChannelsLast: channels_last,
    layers.ChannelsFirst: channels_first,
    layers.Coefficients: coefficients,
}
