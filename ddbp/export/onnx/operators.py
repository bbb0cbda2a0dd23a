"""What ordinary Python on values records, as nodes of ONNX."""

from typing import Any

from layers.engine.operators.arithmetic import Divide, Power, Subtract
from layers.engine.operators.elementary import Function
from layers.engine.operators.products import MatMul
from layers.engine.operators.reductions import LogSumExp, Mean, Sum
from layers.engine.operators.shaping import Index, ReshapeOp, Transpose

from .builder import Graph, Tensor
from .elementwise import Convert, joined

_FUNCTIONS = {
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "erf": "Erf",
    "absolute": "Abs",
    "negative": "Neg",
}
Shape = tuple[int, ...]
_FAR = 2**63 - 1
"""Beyond the end of every axis."""


class UnsupportedError(ValueError):
    """A call has no form in ONNX; the text says why."""


def function(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    operator = _FUNCTIONS.get(layer.name)
    if operator is None:
        raise UnsupportedError(f"the function {layer.name}")
    return Tensor(graph.add(operator, x.name), shape, x.first)


def matrix_product(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    return Tensor(graph.add("MatMul", *(graph.last(x) for x in inputs)), shape)


def reduction(operator: str) -> Convert:
    """Return what converts a sum, a mean or the like over axes other than that of the batch."""

    def convert(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
        (x,) = inputs
        axes = layer.axis if isinstance(layer.axis, tuple) else (layer.axis,)
        if layer.axis is None or any(axis % x.ndim == 0 for axis in axes):
            raise UnsupportedError("a sum over the batch")
        keeps = int(bool(layer.keepdims))
        name = graph.add(operator, graph.last(x), graph.integers(*axes), keepdims=keeps)
        return Tensor(name, shape)

    return convert


def transpose(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    axes = [layer.source(axis, x.ndim) for axis in range(x.ndim)]
    if axes[0]:
        raise UnsupportedError("a transposition of the batch")
    return Tensor(graph.add("Transpose", graph.last(x), perm=axes), shape)


def reshape(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    if not shape or shape[0] != x.shape[0]:
        raise UnsupportedError("a shape that joins samples")
    return Tensor(graph.reshaped(x, shape), shape)


def _ends(part: Any, axis: int) -> tuple[int, int, int, int]:
    """Return start, stop, axis and step of what is taken along an axis, of whatever length: numbers
    that count from its end do so there.
    """
    if not isinstance(part, slice):
        return int(part), _FAR if part == -1 else int(part) + 1, axis, 1
    step = 1 if part.step is None else int(part.step)
    first, last = (0, _FAR) if step > 0 else (_FAR, -_FAR)
    start, stop = (
        usual if end is None else int(end)
        for end, usual in ((part.start, first), (part.stop, last))
    )
    return start, stop, axis, step


def index(graph: Graph, layer: Any, inputs: list[Any], shape: Shape) -> Tensor:
    (x,) = inputs
    key = layer.key if isinstance(layer.key, tuple) else (layer.key,)
    if not layer.once:
        raise UnsupportedError("an index by arrays")
    given = sum(each is not None and each is not Ellipsis for each in key)
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    place = key.index(Ellipsis)
    key = (*key[:place], *[slice(None)] * (x.ndim - given), *key[place + 1 :])
    name, axis = graph.last(x), 0
    dropped: list[int] = []
    added: list[int] = []
    for position, each in enumerate(key):
        if each is None:
            added.append(position - len(dropped))
            continue
        if each != slice(None):
            if axis == 0:
                raise UnsupportedError("an index of samples")
            name = graph.add("Slice", name, *(graph.integers(end) for end in _ends(each, axis)))
            if not isinstance(each, slice):
                dropped.append(axis)
        axis += 1
    if dropped:
        name = graph.add("Squeeze", name, graph.integers(*dropped))
    if added:
        name = graph.add("Unsqueeze", name, graph.integers(*added))
    return Tensor(name, shape)


CONVERTERS: dict[type, Convert] = {
    Subtract: joined("Sub"),
    Divide: joined("Div"),
    Power: joined("Pow"),
    Function: function,
    MatMul: matrix_product,
    Sum: reduction("ReduceSum"),
    Mean: reduction("ReduceMean"),
    LogSumExp: reduction("ReduceLogSumExp"),
    Transpose: transpose,
    ReshapeOp: reshape,
    Index: index,
}
