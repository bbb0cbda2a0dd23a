"""A graph of ONNX while it is built: nodes, constants, and in which layout a tensor lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from layers.errors import message
from layers.types import Array

OPSET = 20
"""The version of ONNX's operators that graphs are written for."""
IR_VERSION = 10


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes
    ----------
    name
        Its name there.
    shape
        What its shape is here, with the batch of the example: channels last.
    first
        Whether it lies channels-first in the graph.
    """

    name: str
    shape: tuple[int, ...]
    first: bool = False

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


def onnx() -> Any:
    """Return the package, or say how to get it."""
    try:
        import onnx as package
    except ImportError as error:
        fix = 'Install it: pip install "ddbp[onnx]".'
        raise ImportError(message("to_onnx", "onnx must be installed", "none", fix)) from error
    return package


class Graph:
    """Builds a graph.

    Parameters
    ----------
    dtype
        The floating type of its tensors.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.nodes: list[Any] = []
        self.initializers: dict[str, Array] = {}
        self._constants: dict[Any, str] = {}
        self._turned: dict[tuple[str, bool], str] = {}
        self._count = 0

    def new(self, what: str) -> str:
        """Return a name that is not taken."""
        self._count += 1
        return f"{what.lower()}_{self._count}"

    def constant(self, array: Any, name: str | None = None) -> str:
        """Return the name of a constant; the same bytes are held once."""
        array = np.asarray(array)
        array = np.asarray(array, self.dtype if array.dtype.kind == "f" else None, order="C")
        key = array.dtype.str, array.shape, array.tobytes()
        known = self._constants.get(key)
        if known is None:
            known = name if name and name not in self.initializers else self.new(name or "constant")
            self._constants[key] = known
            self.initializers[known] = array
        return known

    def integers(self, *numbers: int) -> str:
        """Return the name of a constant of integers, as shapes and axes are given."""
        return self.constant(np.array(numbers, np.int64))

    def size(self, name: str, axis: int) -> str:
        """Return the name of the size of a tensor along an axis (1,), whatever it is when the graph
        runs.
        """
        return str(self.add("Shape", name, start=axis, end=axis + 1))

    def range(self, size: str, start: int = 0) -> str:
        """Return the name of so many integers (n,), from a first one on."""
        zero, one = (self.constant(np.array(number)) for number in (0, 1))
        numbers = self.add("Range", zero, self.add("Squeeze", size), one)
        if not start:
            return str(numbers)
        return str(self.add("Add", numbers, self.constant(np.array(start))))

    def add(self, operator: str, *inputs: str, outputs: Any = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or the names of several."""
        names = [self.new(operator) for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        node = onnx().helper.make_node(operator, list(inputs), names, names[0], **given)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def first(self, x: Tensor) -> str:
        """Return the name of a tensor (N, …, C) as (N, C, …)."""
        return self._in_layout(x, True)

    def last(self, x: Tensor) -> str:
        """Return the name of a tensor in our layout."""
        return self._in_layout(x, False)

    def _in_layout(self, x: Tensor, first: bool) -> str:
        if x.first is first or x.ndim < 3:
            return x.name
        known = self._turned.get((x.name, first))
        if known is None:
            axes = [*range(x.ndim)]
            axes = [0, x.ndim - 1, *axes[1:-1]] if first else [0, *axes[2:], 1]
            known = self.add("Transpose", x.name, perm=axes)
            self._turned[x.name, first] = known
            self._turned[known, not first] = x.name
        return known

    def reshaped(self, x: Tensor, shape: tuple[int, ...]) -> str:
        """Return the name of a tensor in another shape, in our layout: sizes that stay are those
        that it has when the graph runs, as that of the batch.
        """
        # A 0 stands for the size that the axis has.
        sizes = [0 if new == old else new for new, old in zip_longest(shape, x.shape)]
        return str(self.add("Reshape", self.last(x), self.integers(*sizes[: len(shape)])))

    def together(self, *tensors: Tensor) -> tuple[list[str], bool]:
        """Return the names of tensors in one layout, and whether that is channels-first: if all are
        that already, and have as many axes.
        """
        first = all(each.first for each in tensors) and len({each.ndim for each in tensors}) == 1
        return [each.name if first else self.last(each) for each in tensors], first

    def model(
        self,
        inputs: Sequence[tuple[str, Any, Sequence[Any]]],
        outputs: Sequence[tuple[str, Any, Sequence[Any]]],
        facts: dict[str, str],
    ) -> Any:
        """Return the model with inputs and outputs: name, type, and shape, in which a text is a
        size that may differ.
        """
        package = onnx()
        helper, of = package.helper, package.helper.np_dtype_to_tensor_dtype
        arrays = [
            package.numpy_helper.from_array(array, name)
            for name, array in self.initializers.items()
        ]
        infos = [
            [
                helper.make_tensor_value_info(name, of(np.dtype(dtype)), [*shape])
                for name, dtype, shape in some
            ]
            for some in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "ddbp", *infos, arrays)
        opset = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, producer_name="ddbp", opset_imports=opset)
        made.ir_version = IR_VERSION
        helper.set_model_props(made, facts)
        return made
