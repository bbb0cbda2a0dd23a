"""What a model is made of: shapes, parameters, work and memory, layer by layer."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .checks import require_model_type
from .engine.call import Call
from .engine.hooks import TapeHook
from .engine.merge import Add
from .engine.module import Module
from .engine.tape import Tape
from .errors import message
from .tables import html_table, text_table
from .types import Array

Shape = tuple[int, ...]
_HEAD = ("layer", "", "output", "parameters", "FLOPs", "memory")
_FIX = "summary(model, (8, 64)) is of a batch of 8 samples with 64 features."
_REST = "(parameters that are not used)"


class LayerSummary(NamedTuple):
    """What is known of a layer.

    Attributes
    ----------
    name
        Its dotted name in the model; what arithmetic with values does has none.
    layer
        What it is.
    outputs
        The shapes of what it gives; of the last call, if there are several.
    parameters, trainable
        Its numbers, and how many of them are trained. Those that layers share count once, at the
        first.
    flops
        The floating-point operations of all of its calls.
    memory
        Bytes that its calls keep until backward.
    calls
        How often it is called.
    """

    name: str
    layer: str
    outputs: tuple[Shape, ...]
    parameters: int
    trainable: int
    flops: int
    memory: int
    calls: int


class Summary:
    """What `summary` returns: shown as a table, in notebooks, too.

    Parameters
    ----------
    rows
        The layers, in the order of their first calls.
    inputs
        The shapes of the model's inputs.
    parameter_memory
        Bytes of all parameters.

    Attributes
    ----------
    rows, inputs, parameter_memory
        As given.
    """

    def __init__(
        self, rows: list[LayerSummary], inputs: tuple[Shape, ...], parameter_memory: int
    ) -> None:
        self.rows = rows
        self.inputs = inputs
        self.parameter_memory = parameter_memory

    @property
    def parameters(self) -> int:
        """The numbers in all parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """How many of them are trained."""
        return sum(row.trainable for row in self.rows)

    @property
    def flops(self) -> int:
        """The floating-point operations of forward."""
        return sum(row.flops for row in self.rows)

    @property
    def memory(self) -> int:
        """Bytes that are kept from forward to backward, beside inputs and parameters."""
        return sum(row.memory for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, as JSON can hold it."""
        names = ("parameters", "trainable", "flops", "memory", "parameter_memory")
        totals = {name: getattr(self, name) for name in names}
        layers = [
            {**row._asdict(), "outputs": [[*shape] for shape in row.outputs]} for row in self.rows
        ]
        return {"inputs": [[*shape] for shape in self.inputs], **totals, "layers": layers}

    def __repr__(self) -> str:
        return "\n".join([text_table(_HEAD, [*self._cells()], left=3), *self._totals()])

    def _repr_html_(self) -> str:
        below = "<br>".join(self._totals())
        return f"{html_table(_HEAD, [*self._cells()], left=3)}<p>{below}</p>"

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for row in self.rows:
            shapes = ", ".join(map(str, row.outputs))
            times = f" x {row.calls}" if row.calls > 1 else ""
            numbers = (f"{row.parameters:,}", f"{row.flops:,}", _bytes(row.memory))
            yield (row.name, f"{row.layer}{times}", shapes, *numbers)

    def _totals(self) -> list[str]:
        shapes = ", ".join(map(str, self.inputs))
        fixed = self.parameters - self.trainable
        frozen = f", {fixed:,} of them frozen" if fixed else ""
        held = f"{self.parameters:,} parameters ({_bytes(self.parameter_memory)})"
        return [
            f"of inputs {shapes}: {held}{frozen}",
            f"forward: {self.flops:,} FLOPs in products, 2 for each multiplication and addition",
            f"kept for backward: {_bytes(self.memory)}",
        ]


def summary(model: Module, *inputs: Any) -> Summary:
    """Return the shapes, parameters, FLOPs and memory of the layers of a model, found by one
    forward pass in training mode: neither parameters nor states change.

    Layers that run as one call are shown as those that they were made of.

    Parameters
    ----------
    model
        A layer, or what is made of layers.
    inputs
        What it is called with: the shape (N, …) of an array of floats, or the very input, such as
        an array of integers or a `TreeBatch`.

    Notes
    -----
    FLOPs are those of matrix products, convolutions, recurrences and attention in one forward of
    the whole batch: 2 for each multiplication and its addition, as PyTorch's `FlopCounterMode`
    counts them. What is done element by element (activations, normalisation, biases, pooling) is
    not counted; masks and lengths spare nothing; whatever the algorithm, a convolution counts the
    sums that define it. Backward takes about twice as many. A layer of your own defines
    `Layer.flops`.

    Memory is what calls keep from forward to backward: outputs, and what else their backward
    needs. Layers that run as one call share it, which counts for the last of them.

    Raises
    ------
    TypeError
        The model is no layer.
    ValueError
        There is no input, or a shape is none; or a layer does not take what it gets.
    """
    given: Any = model
    if not isinstance(given, Module):
        must, fix = "model must be a layer or made of layers", "Pass the model itself."
        raise TypeError(message("summary", must, f"a {type(given).__name__}", fix))
    if not inputs:
        must = "the model must have an input"
        raise ValueError(message("summary", must, "none", _FIX))
    values = {id(each): each for each in model.parameters()}
    dtype = next((each.dtype for each in values.values()), np.dtype(np.float32))
    arrays = [_input(each, require_model_type("summary", dtype)) for each in inputs]
    watch = _Watch(model)
    # What layers observe of the batch is never applied: states stay as they are.
    tape = Tape(training=True, deferred=True, hooks=[watch])
    with np.errstate(all="ignore"):
        model(*(tape.input(x) if isinstance(x, np.ndarray) else x for x in arrays))
    rows = watch.rows(tape, [x for x in arrays if isinstance(x, np.ndarray)])
    tape.release()
    unused = [each for key, each in values.items() if key not in watch.seen]
    if unused:
        count, trained = _counts(unused)
        rows.append(LayerSummary("", _REST, (), count, trained, 0, 0, 0))
    shapes = tuple(np.shape(x) if isinstance(x, np.ndarray) else () for x in arrays)
    return Summary(rows, shapes, sum(each.value.nbytes for each in values.values()))


def _input(given: Any, dtype: Any) -> Any:
    """Return an array of ones for a shape, and whatever else an input is as it is."""
    if not isinstance(given, tuple | list):
        return given
    sizes = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in given)
    if not sizes or not given or min(given) < 0:
        must = "an input must be a shape (N, ...), or an array"
        raise ValueError(message("summary", must, repr(given), _FIX))
    try:
        return np.ones(tuple(map(int, given)), dtype)
    except (MemoryError, OverflowError, ValueError) as error:
        must = "an input must be a shape of which there is memory for the array"
        raise ValueError(message("summary", must, repr(given), _FIX)) from error


class _Watch(TapeHook):
    """Learns what each call does; the layers of a model are known by their names."""

    def __init__(self, model: Module) -> None:
        self._names = {id(layer): _public(name) for name, layer in model.named_layers()}
        # Of layers that are made for a call.
        self._owners = {
            id(each): name.rpartition(".")[0] for name, each in model.named_parameters()
        }
        self._rows: dict[Any, LayerSummary] = {}
        self._keys: dict[int, Any] = {}
        self.seen: set[int] = set()

    def on_forward_end(self, call: Call) -> None:
        layer: Any = call.layer
        inputs = [getattr(x, "array", x) for x in call.inputs]
        outputs = tuple(call.output.arrays)
        if not layer.parts:
            self._add(call, layer, outputs, inputs)
            return
        # Once more, one by one: each gets what the one before has given, and a sum all there is.
        for part in layer.parts:
            taken = inputs if isinstance(part, Add) else inputs[:1]
            y = part(*taken)
            self._add(call, part, (y,), taken)
            inputs = [y, *inputs[len(taken) :]]

    def _add(self, call: Call, layer: Any, outputs: tuple[Array, ...], inputs: list[Any]) -> None:
        owned = layer.own_parameters()
        key: Any = id(layer)
        name = self._names.get(key)
        if name is None:
            name = self._owners.get(id(owned[0]), "") if owned else ""
            key = (name, repr(layer))
        self._keys[id(call)] = key
        own = [each for each in owned if id(each) not in self.seen]
        self.seen.update(map(id, own))
        count, trained = _counts(own)
        flops = layer.flops(outputs if len(outputs) > 1 else outputs[0], *inputs)
        before = self._rows.get(key)
        self._rows[key] = LayerSummary(
            name,
            repr(layer),
            tuple(map(np.shape, outputs)),
            count + (before.parameters if before else 0),
            trained + (before.trainable if before else 0),
            int(flops) + (before.flops if before else 0),
            0,
            1 + (before.calls if before else 0),
        )

    def rows(self, tape: Tape, inputs: list[Array]) -> list[LayerSummary]:
        """Return what has been learnt, with the memory that calls hold."""
        buffers = tape.workspace.of_calls()
        known = {id(_root(each)) for held in buffers.values() for each in held}
        known.update(id(_root(x)) for x in inputs)
        known.update(id(_root(x.array)) for x in tape.kept)
        for call in tape.calls:
            held = sum(each.size for each in buffers.get(call.index, ()))
            known.update(id(_root(each.value)) for each in call.layer.parameters())
            for array in (*call.output.arrays, *call.saved):
                if isinstance(array, np.ndarray) and id(_root(array)) not in known:
                    known.add(id(_root(array)))
                    held += _root(array).nbytes
            key = self._keys[id(call)]
            self._rows[key] = self._rows[key]._replace(memory=self._rows[key].memory + held)
        return [*self._rows.values()]


def _counts(parameters: list[Any]) -> tuple[int, int]:
    """Return how many numbers parameters have, and how many of these are trained."""
    sizes = [(each.value.size, each.trainable) for each in parameters]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def _public(name: str) -> str:
    """Return a dotted name up to what is hidden in a layer."""
    return name.partition("._")[0] if not name.startswith("_") else ""


def _root(array: Array) -> Array:
    """Return the array whose memory an array is a part of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _bytes(count: int) -> str:
    """Return a number of bytes in the largest unit of which there is one."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
