"""Convolutions, pooling and resizing, as nodes of ONNX: channels-first, along any number of
axes.
"""

from typing import Any

import numpy as np

import layers
from layers.types import Array
from layers.upsample import between
from layers.windows import adaptive, sliding

from .builder import Graph, Tensor
from .elementwise import Convert

_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
Shape = tuple[int, ...]


def _sizes(layer: Any, x: Tensor, name: str) -> list[int]:
    """Return numbers of a layer for the axes of its images; sequences are images of one row
    there.
    """
    value = getattr(layer, name)
    return [*value[-(x.ndim - 2) :]]


def _weight(layer: Any, x: Tensor) -> Array:
    weight: Array = np.moveaxis(layer.weight.value, (-1, -2), (0, 1))
    return weight[:, :, 0] if x.ndim == 3 else weight


def convolution(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    image = x.shape[1:-1]
    ends = layer._ends(image if x.ndim > 3 else (1, *image))[-len(image) :]
    name = graph.first(x)
    pads = [*(before for before, _ in ends), *(after for _, after in ends)]
    if layer.padding_mode != "zeros" and any(pads):
        count = len(image)
        around = graph.integers(0, 0, *pads[:count], 0, 0, *pads[count:])
        name = graph.add("Pad", name, around, mode=_MODES[layer.padding_mode])
        pads = [0] * len(pads)
    bias = [] if layer.bias is None else [graph.constant(layer.bias.value, "bias")]
    name = graph.add(
        "Conv",
        name,
        graph.constant(_weight(layer, x), "weight"),
        *bias,
        kernel_shape=_sizes(layer, x, "kernel_size"),
        strides=_sizes(layer, x, "stride"),
        dilations=_sizes(layer, x, "dilation"),
        group=layer.groups,
        pads=pads,
    )
    return Tensor(name, shape, True)


def transposed(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    bias = [] if layer.bias is None else [graph.constant(layer.bias.value, "bias")]
    name = graph.add(
        "ConvTranspose",
        graph.first(x),
        graph.constant(_weight(layer, x), "weight"),
        *bias,
        kernel_shape=_sizes(layer, x, "kernel_size"),
        strides=_sizes(layer, x, "stride"),
        dilations=_sizes(layer, x, "dilation"),
        output_padding=_sizes(layer, x, "output_padding"),
        group=layer.groups,
        pads=_sizes(layer, x, "padding") * 2,
    )
    return Tensor(name, shape, True)


def pooling(maximum: bool) -> Convert:
    """Return what converts pooling by windows that slide.

    Windows of ceil_mode, which may end beyond the padding, are those of so much more padding.
    """

    def convert(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
        (x,) = inputs
        window, strides, before = (
            _sizes(layer, x, name) for name in ("kernel_size", "stride", "padding")
        )
        numbers = [*zip(x.shape[1:-1], shape[1:-1], window, strides, before, strict=True)]
        after = before
        if layer.ceil_mode:
            after = [max(0, (count - 1) * s + k - n - p) for n, count, k, s, p in numbers]
        options = {"kernel_shape": window, "strides": strides, "pads": [*before, *after]}
        name = graph.first(x)
        if maximum:
            return Tensor(graph.add("MaxPool", name, **options), shape, True)
        include = int(layer.count_padding)
        name = graph.add("AveragePool", name, **options, count_include_pad=include)
        if layer.count_padding and after != before:
            # What lies beyond the padding is not counted.
            factors = np.ones(())
            for n, _, k, s, p in numbers:
                counted = sliding(n, k, s, p, layer.ceil_mode, True)[:, 2]
                factors = np.multiply.outer(factors, k / counted)
            if (factors != 1).any():
                name = graph.add("Mul", name, graph.constant(factors))
        return Tensor(name, shape, True)

    return convert


def adaptive_pooling(maximum: bool) -> Convert:
    """Return what converts pooling to a size: windows of one size, or a matrix along each axis, or
    a maximum of each part.
    """

    def convert(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
        (x,) = inputs
        name, image, outputs = graph.first(x), x.shape[1:-1], shape[1:-1]
        if all(n % m == 0 for n, m in zip(image, outputs, strict=True)):
            window = [n // m for n, m in zip(image, outputs, strict=True)]
            operator = "MaxPool" if maximum else "AveragePool"
            name = graph.add(operator, name, kernel_shape=window, strides=window)
            return Tensor(name, shape, True)
        for axis, (n, m) in enumerate(zip(image, outputs, strict=True), 2):
            table = adaptive(n, m)
            if maximum:
                name = _maxima(graph, name, axis, table)
                continue
            matrix = np.zeros((m, n))
            for row, (start, size, over) in zip(matrix, table, strict=True):
                row[start : start + size] = 1 / over
            name = _times(graph, name, matrix, axis, x.ndim)
        return Tensor(name, shape, True)

    return convert


def _maxima(graph: Graph, name: str, axis: int, table: Any) -> str:
    axes, parts = graph.integers(axis), []
    for start, size, _ in table:
        ends = graph.integers(start), graph.integers(start + size)
        part = graph.add("Slice", name, *ends, axes)
        parts.append(graph.add("ReduceMax", part, axes, keepdims=1))
    return str(graph.add("Concat", *parts, axis=axis))


def _times(graph: Graph, name: str, matrix: Array, axis: int, ndim: int) -> str:
    """Multiply an axis of images (N, C, …), the last or the one before it, by a matrix."""
    if axis == ndim - 1:
        return str(graph.add("MatMul", name, graph.constant(matrix.T)))
    return str(graph.add("MatMul", graph.constant(matrix), name))


def global_average(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    name = graph.add("GlobalAveragePool", graph.first(x))
    return Tensor(graph.add("Flatten", name, axis=1), shape)


def upsample(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    name = graph.first(x)
    for axis, (n, m) in enumerate(zip(x.shape[1:-1], shape[1:-1], strict=True), 2):
        if layer.mode == "nearest":
            pixels = np.arange(m) * n // m
            name = graph.add("Gather", name, graph.constant(pixels), axis=axis)
            continue
        places, matrix = between(n, m, layer.align_corners, np.float64), np.zeros((m, n))
        for row, (first, second), share in zip(matrix, places.pixels, places.shares, strict=True):
            row[first] += 1 - share
            row[second] += share
        name = _times(graph, name, matrix, axis, x.ndim)
    return Tensor(name, shape, True)


def padded_shortcut(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    name, step = graph.first(x), layer.stride
    if step > 1:
        ends = graph.integers(0, 0), graph.integers(*x.shape[1:3])
        name = graph.add("Slice", name, *ends, graph.integers(2, 3), graph.integers(step, step))
    more = layer.out_channels - layer.in_channels
    if more:
        name = graph.add("Pad", name, graph.integers(0, 0, 0, 0, 0, more, 0, 0))
    return Tensor(name, shape, True)


CONVERTERS: dict[type, Convert] = {
    **dict.fromkeys((layers.Conv1d, layers.Conv2d, layers.Conv3d), convolution),
    **dict.fromkeys(
        (layers.ConvTranspose1d, layers.ConvTranspose2d, layers.ConvTranspose3d), transposed
    ),
    **dict.fromkeys((layers.MaxPool1d, layers.MaxPool2d, layers.MaxPool3d), pooling(True)),
    **dict.fromkeys((layers.AvgPool1d, layers.AvgPool2d, layers.AvgPool3d), pooling(False)),
    **dict.fromkeys((layers.AdaptiveMaxPool1d, layers.AdaptiveMaxPool2d), adaptive_pooling(True)),
    **dict.fromkeys((layers.AdaptiveAvgPool1d, layers.AdaptiveAvgPool2d), adaptive_pooling(False)),
    layers.GlobalAveragePool: global_average,
    layers.Upsample: upsample,
    layers.PaddedShortcut: padded_shortcut,
}
