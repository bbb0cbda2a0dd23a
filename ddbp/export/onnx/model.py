"""A model to ONNX: it is called once, on a tape, and every call that is recorded becomes nodes."""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from typing import Any

import numpy as np

import layers
from ddbp import files
from ddbp.training.paths import path_of
from layers import Module, Tape, Value
from layers.checks import boolean
from layers.errors import message, wording
from layers.recurrent.recurrence import RecurrentPass
from layers.types import Array

from . import elementwise, images, operators, sequences
from .builder import Graph, Tensor, onnx
from .operators import UnsupportedError

_CONVERTERS = {
    **elementwise.CONVERTERS,
    **images.CONVERTERS,
    **sequences.CONVERTERS,
    **operators.CONVERTERS,
}
_LARGEST = 2**31 - 1
"""Bytes of a file of ONNX without files beside it."""
_OWNER = "to_onnx"
_OTHERS = 8
"""Numbers of steps that a model of any is asked for, beside that of the example."""
_FIXES = {"samples": "Write it for any.", "steps": "Write it for any, or leave out any_length."}


@wording("to_onnx")
def to_onnx(
    model: Module,
    path: str | os.PathLike[str],
    example: Any,
    *,
    lengths: Any = None,
    any_length: bool = False,
) -> None:
    """Write a model to a file of ONNX, for inference: dropout does nothing, batch norms take their
    running statistics.

    Parameters
    ----------
    model
        The model; one in float64 is written in float32. Composites of your own are followed through
        what they call: branches go as the example goes.
    path
        The file, by convention with the ending `.onnx`.
    example
        An input (N, …), or a tuple of several, as the model takes them: images are channels-last
        there, too. N may differ later, and no other size but for `any_length`.
    lengths
        The number of valid steps of each sample (N,), if the model takes that: it becomes an input,
        too.
    any_length
        Whether the number of steps, the size of axis 1 of inputs, may differ later, too: of models
        of sequences whose layers all take any.

    Raises
    ------
    ValueError
        Layers have no form in ONNX: the error names them all, and nothing is written.
    ImportError
        `onnx` is not installed: `pip install "ddbp[onnx]"`.
    OSError
        The file cannot be written.

    Notes
    -----
    Inputs are called "input" (or "input_0", …) and "lengths", outputs "output" (or "output_0", …).
    """
    target = path_of(_OWNER, "path", path)
    any_length = boolean(_OWNER, "any_length", any_length)
    package = onnx()
    given: Any = model
    if not isinstance(given, Module):
        must, fix = "model must be a layer or made of layers", "Pass the model itself."
        raise TypeError(message(_OWNER, must, f"a {type(given).__name__}", fix))
    if any(parameter.dtype == np.float64 for parameter in model.parameters()):
        model = model.astype(np.float32)
    arrays = [_array(each) for each in (example if isinstance(example, tuple) else (example,))]
    if len({len(array) for array in arrays}) != 1 or not len(arrays[0]):
        must, fix = "example must be of one sample or more", "Pass example=x[:1]."
        raise ValueError(message(_OWNER, must, [array.shape for array in arrays], fix))
    valid = _lengths(lengths, len(arrays[0]))
    export = _Export(model)
    made = export.model(arrays, valid, any_length)
    _require_any_number(export, model, arrays, valid, any_length)
    package.checker.check_model(made, full_check=True)
    content = made.SerializeToString()
    if len(content) > _LARGEST:
        must, fix = "the model must fit in a file of 2 GiB", "Export parts of it."
        raise ValueError(message(_OWNER, must, f"{len(content)} bytes", fix))
    try:
        with files.whole(target) as place:
            place.write_bytes(content)
    except OSError as error:
        raise files.unwritable(_OWNER, target, error) from error


def _array(given: Any) -> Array:
    array = np.asarray(given)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind not in "iu" or not array.ndim:
        must, fix = "example must be an array of numbers (N, …)", "Pass example=x[:1]."
        raise TypeError(message(_OWNER, must, f"shape {array.shape} of {array.dtype}", fix))
    return array.astype(np.int64)


def _lengths(given: Any, samples: int) -> Array | None:
    if given is None:
        return None
    array = np.asarray(given)
    if array.dtype.kind not in "iu" or array.shape != (samples,):
        must = f"lengths must be integers of shape ({samples},)"
        fix = "Pass the number of valid steps of each sample of the example."
        raise ValueError(message(_OWNER, must, f"{array.shape} of {array.dtype}", fix))
    return array.astype(np.int64)


def _require_any_number(
    export: "_Export", model: Module, arrays: list[Array], lengths: Array | None, any_length: bool
) -> None:
    """Refuse a model that does something else for other numbers of samples, or of steps: a graph is
    that of one. Numbers of steps that come after each other tell a stride, too.
    """
    more = [np.concatenate([array, array[-1:]]) for array in arrays]
    valid = None if lengths is None else np.append(lengths, lengths[-1:])
    _require(export, model, "samples", [(more, valid)])
    if not any_length:
        return
    steps = [array.shape[1] for array in arrays if array.ndim > 1]
    if not steps:
        must, fix = "with any_length, inputs must have steps on axis 1", "Leave it out."
        raise ValueError(message(_OWNER, must, [array.shape for array in arrays], fix))
    found = []
    for change in range(2 - min(steps), _OTHERS + 1):
        others = [_of_steps(array, change) for array in arrays]
        valid = None if lengths is None else np.minimum(lengths, others[0].shape[1])
        found += [(others, valid)] * (change != 0)
    _require(export, model, "steps", found)


def _require(
    export: "_Export", model: Module, what: str, inputs: list[tuple[list[Array], Array | None]]
) -> None:
    """Refuse a model with layers that do something else for some of these inputs, the first of them
    that it takes.
    """
    told, reason = 0, "none"
    for arrays, lengths in inputs:
        if told == _OTHERS:
            break
        other = _Export(model)
        try:
            other.model(arrays, lengths, False)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            reason = str(error)
            continue
        told += 1
        if (layer := export.differs(other)) is not None:
            must = f"no layer must depend on the number of {what}"
            raise ValueError(message(_OWNER, must, layer, _FIXES[what]))
    if not told:
        must = f"the model must take other numbers of {what}"
        raise ValueError(message(_OWNER, must, reason.rstrip("."), _FIXES[what]))


def _of_steps(array: Array, change: int) -> Array:
    """Return an input of so many more steps, or fewer."""
    if array.ndim < 2:
        return array
    return array[:, np.minimum(np.arange(array.shape[1] + change), array.shape[1] - 1)]


class _Export:
    """Follows a model through a call.

    Parameters
    ----------
    model
        The model, in float32.
    """

    def __init__(self, model: Module) -> None:
        self._model = model
        self._graph = Graph(np.float32)
        self._names = {id(layer): name for name, layer in model.named_layers()}
        self._unsupported: list[str] = []
        self._layers: list[str] = []

    def differs(self, other: "_Export") -> str | None:
        """Return the first layer whose nodes are others there, None if all are the same."""
        mine, theirs = self._graph, other._graph
        whose = chain(self._layers, repeat("the output"))
        for node, found, layer in zip(mine.nodes, theirs.nodes, whose, strict=False):
            constants = mine.initializers.keys() & node.input
            if node != found or not all(
                _alike(mine.initializers[name], theirs.initializers[name]) for name in constants
            ):
                return layer
        return None if len(mine.nodes) == len(theirs.nodes) else "the output"

    def model(self, arrays: list[Array], lengths: Array | None, any_length: bool) -> Any:
        """Return the model of ONNX for inputs like these."""
        inputs = [("input", arrays[0])]
        if len(arrays) > 1:
            inputs = [(f"input_{i}", array) for i, array in enumerate(arrays)]
        given = [Tensor(name, array.shape) for name, array in inputs]
        call: Callable[..., Any] = self._model
        known = {}
        if lengths is not None:
            inputs.append(("lengths", lengths))
            known[id(lengths)] = Tensor("lengths", lengths.shape)

            def call(*values: Any) -> Any:
                model: Any = self._model
                return model(*values, lengths=lengths)

        found = [*_leaves("output", self._traced(call, arrays, given, known))]
        if self._unsupported:
            fix = "Take them out of the model, or export a model without them."
            must = "every layer must have a form in ONNX"
            names = ", ".join(dict.fromkeys(self._unsupported))
            raise ValueError(message(_OWNER, must, names, fix))
        outputs = []
        for name, tensor, dtype in found:
            node = onnx().helper.make_node("Identity", [self._graph.last(tensor)], [name])
            self._graph.nodes.append(node)
            shape = _free(tensor.shape, len(arrays[0]))
            if any_length and shape[2:]:
                shape[1] = None
            outputs.append((name, dtype, shape))
        shapes = []
        for name, array in inputs:
            shape = _free(array.shape, len(arrays[0]))
            if any_length and shape[1:]:
                shape[1] = name.replace("input", "steps")
            shapes.append((name, array.dtype, shape))
        return self._graph.model(shapes, outputs, {"written_by": "ddbp"})

    def _traced(
        self,
        call: Callable[..., Any],
        arrays: list[Any],
        tensors: list[Any],
        known: Mapping[int, Tensor],
    ) -> Any:
        """Call a function with values of arrays, add the nodes of what it does, and return what it
        returns, with tensors and their types in place of values.
        """
        tape = Tape()
        values = [tape.input(a) if isinstance(a, np.ndarray) else a for a in arrays]
        tensors_of = {id(value): tensor for value, tensor in zip(values, tensors, strict=True)}
        result = call(*values)
        for each in tape.calls:
            output: Any = each.output
            outputs = getattr(output, "values", None) or (output,)
            inputs = [tensors_of.get(id(x)) or known.get(id(x)) for x in each.inputs]
            made = self._call(each, inputs, outputs, known)
            tensors_of |= {id(value): tensor for value, tensor in zip(outputs, made, strict=True)}

        def tensor(value: Any) -> tuple[Tensor, Any]:
            if not isinstance(value, Value) or id(value) not in tensors_of:
                must = "the model must return what it has computed from its inputs"
                fix = "Return values, in a tuple or a dict if there are several."
                raise TypeError(message(_OWNER, must, type(value).__name__, fix))
            return tensors_of[id(value)], value.dtype

        if isinstance(result, Mapping):
            return {name: tensor(value) for name, value in result.items()}
        return tuple(map(tensor, result)) if isinstance(result, tuple) else tensor(result)

    def _call(
        self, call: Any, inputs: list[Any], outputs: tuple[Value, ...], known: Mapping[int, Tensor]
    ) -> list[Tensor]:
        """Add the nodes of a call; return the tensors of its outputs."""
        made = self._nodes(call, inputs, outputs, known)
        name = self._names.get(id(call.layer), "")
        shown = f"{call.layer!r} ({name})" if name else repr(call.layer)
        self._layers += [shown] * (len(self._graph.nodes) - len(self._layers))
        return made

    def _nodes(
        self, call: Any, inputs: list[Any], outputs: tuple[Value, ...], known: Mapping[int, Tensor]
    ) -> list[Tensor]:
        layer, shapes = call.layer, [value.shape for value in outputs]
        if isinstance(layer, layers.Recompute):
            *arguments, named = call.inputs
            return self._inside(
                lambda *values: named(layer.segment, [*values]), arguments, inputs, known
            )
        if hasattr(layer, "apart"):
            return self._inside(layer.apart, call.inputs, inputs, known)
        given = [
            self._constant(array) if tensor is None else tensor
            for tensor, array in zip(inputs, call.inputs, strict=True)
        ]
        try:
            if type(layer) is RecurrentPass:
                return sequences.recurrence(self._graph, layer, given, shapes)
            convert = _CONVERTERS.get(type(layer))
            if convert is None:
                raise UnsupportedError(repr(layer))
            return [convert(self._graph, layer, given, shapes[0])]
        except UnsupportedError as error:
            name = self._names.get(id(layer), "")
            self._unsupported.append(f"{error} ({name})" if name else str(error))
            return [Tensor("unsupported", shape) for shape in shapes]

    def _inside(
        self,
        function: Callable[..., Any],
        arguments: Any,
        tensors: list[Any],
        known: Mapping[int, Tensor],
    ) -> list[Tensor]:
        """Add the nodes of what a call does within."""
        arrays = [x.array if isinstance(x, Value) else x for x in arguments]
        # Lengths and the like stay what they are: they are known by what they are.
        constants = {i for i, x in enumerate(arguments) if not isinstance(x, Value)}

        def call(*values: Any) -> Any:
            return function(*(arguments[i] if i in constants else v for i, v in enumerate(values)))

        result = self._traced(call, arrays, tensors[: len(arrays)], known)
        pairs = result if isinstance(result[0], tuple) else (result,)
        return [tensor for tensor, _ in pairs]

    def _constant(self, given: Any) -> Any:
        """Return a constant input of a call; of booleans and what is no array, itself."""
        if isinstance(given, int | float) and not isinstance(given, bool):
            given = np.array(given, np.float32)
        if not isinstance(given, np.ndarray | np.generic) or np.asarray(given).dtype == bool:
            return given
        array = np.asarray(given)
        return Tensor(self._graph.constant(array), array.shape)


def _alike(mine: Array, theirs: Array) -> bool:
    """Return whether constants are the same, or become so for another number of samples."""
    one = mine.ndim == theirs.ndim and mine.shape[:1] == (1,) and mine.shape[1:] == theirs.shape[1:]
    return np.array_equal(mine, theirs) or (one and bool((mine == theirs).all()))


def _leaves(name: str, result: Any) -> Iterator[tuple[str, Tensor, Any]]:
    """Yield name, tensor and type of each output."""
    if isinstance(result, dict):
        for key, (tensor, dtype) in result.items():
            yield str(key), tensor, dtype
    elif isinstance(result[0], tuple):
        for i, (tensor, dtype) in enumerate(result):
            yield f"{name}_{i}", tensor, dtype
    else:
        yield name, *result


def _free(shape: tuple[int, ...], samples: int) -> list[Any]:
    """Return a shape whose first size may differ."""
    return ["batch" if shape and shape[0] == samples else size for size in shape[:1]] + [*shape[1:]]
