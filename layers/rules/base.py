"""What rules share: layers that they define, the order of weights, what is drawn by counter."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import non_negative_int
from layers.conv.base import Convolution
from layers.embedding import Embedding
from layers.engine.memory import empty
from layers.engine.module import Module
from layers.engine.parameter import Parameter
from layers.engine.rules import Rule
from layers.engine.value import Value
from layers.errors import message
from layers.kernels import dense, random
from layers.layer_norm import LayerNorm
from layers.linear import Linear
from layers.positional import LearnedPositions
from layers.recurrent.recurrence import Recurrence, RecurrentPass
from layers.tree.cells import TreeCell
from layers.types import Array

if TYPE_CHECKING:
    from layers.engine.call import Call

SEQUENTIAL = (Recurrence, RecurrentPass)
RECURRENT = (*SEQUENTIAL, TreeCell)
CARRYING = (Linear, Convolution, *RECURRENT)
"""The layers whose weights carry the error back."""
_EXACT = (Embedding, LayerNorm, LearnedPositions)
"""Those whose parameters may have two axes, and carry nothing."""
STREAM = 0x6665656462616B73
"""Keeps what rules draw apart from the random masks of the same seed."""


class LearningRule(Rule):
    """Base of the rules that a network learns by. They differ from backpropagation in layers with
    weights (dense, convolutional, recurrent, trees); all others, such as activations, pooling,
    normalisation and losses, propagate exactly.

    Parameters
    ----------
    seed
        Of what the rule draws.

    Attributes
    ----------
    drawn
        What has been drawn for the run, by the name of a weight; it is in the state.
    """

    defined: tuple[type, ...] = (Linear, Convolution)
    """The kinds of layers with weights that the rule defines."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = non_negative_int(type(self).__name__, "seed", seed, "seed=0 is usual.")
        self.drawn: dict[str, Array] = {}
        self._names: dict[int, tuple[str, int, Parameter]] = {}
        self._known: set[int] = set()
        self._start: Value | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed})"

    def bind(self, model: Module) -> Module | None:
        """Prepare for a model, and refuse one that has weights in layers that the rule does not
        define; what was drawn for another is forgotten.
        """
        name = type(self).__name__
        carrying: set[int] = set()
        for path, layer in model.named_layers():
            weights = [id(each) for each in layer.own_parameters() if each.value.ndim > 1]
            if not weights or layer.parts or isinstance(layer, _EXACT):
                continue
            if not isinstance(layer, self.defined):
                must = f"layers with weights must be {_in_words(self.defined)}"
                fix = "Train this model by another rule, or by exact backpropagation."
                got = f"{path or 'the model'}: {layer!r}"
                raise ValueError(message(name, must, got, fix))
            carrying.update(weights)
        self.drawn = {}
        self._names = {}
        for path, parameter in model.named_parameters():
            if id(parameter) in carrying and id(parameter) not in self._names:
                self._names[id(parameter)] = (path, len(self._names), parameter)
        if not self._names:
            must, fix = "the model must have a layer with weights", "Add a layer such as Linear."
            raise ValueError(message(name, must, model, fix))
        self._known = {id(parameter) for parameter in model.parameters()}
        return super().bind(model)

    def carries(self, parameter: Parameter) -> bool:
        """Return whether a parameter is a weight of the model that the rule is bound to; what is
        frozen may be of another.
        """
        known = id(parameter) in self._known or not parameter.trainable
        self._require_bound(None if known else parameter)
        return id(parameter) in self._names

    def place(self, parameter: Parameter) -> tuple[str, int]:
        """Return the name of a weight, and its number among those of the model.

        Raises
        ------
        ValueError
            The rule is not bound to the model of this weight.
        """
        self._require_bound(parameter)
        name, number, _ = self._names[id(parameter)]
        return name, number

    def _require_bound(self, parameter: Parameter | None = None) -> None:
        if not self._names or (parameter is not None and id(parameter) not in self._names):
            must = "the rule must be bound to the model"
            got = "another one" if self._names else "none"
            fix = "Call rule.bind(model), or pass it as Trainer(rule=…)."
            raise ValueError(message(type(self).__name__, must, got, fix))

    def normal(self, parameter: Parameter, shape: Any, deviation: float, step: int = 0) -> Array:
        """Return normal numbers of mean 0 and this standard deviation, a function of the seed, the
        step and the number of the weight: the same bits everywhere.
        """
        _, number = self.place(parameter)
        numbers = np.empty((1, math.prod(shape)), parameter.dtype)
        random.standard_normal(numbers, 0, step, number, np.uint64(self.seed ^ STREAM))
        numbers *= numbers.dtype.type(deviation)
        return numbers.reshape(shape)

    def fixed(self, parameter: Parameter, shape: Any, deviation: float) -> Array:
        """Return what `normal` has drawn once for this weight."""
        name, _ = self.place(parameter)
        found = self.drawn.get(name)
        if found is None or found.shape != shape:
            if found is not None:
                must = f"the feedback of {name} must keep its shape {found.shape}"
                fix = "Give the network inputs and outputs of one size."
                raise ValueError(message(type(self).__name__, must, shape, fix))
            found = self.drawn[name] = self.normal(parameter, shape, deviation)
        return found

    def started(self, value: Value, start: Value) -> tuple[Value, Value]:
        """Return what `losses` returns: the loss, and what the backward pass must begin from."""
        self._start = start
        return value, start

    def require_started(self, value: Value) -> None:
        """Refuse a backward pass that does not begin from what `losses` has returned last."""
        self._require_bound()
        if value is not self._start:
            name = type(self).__name__
            must = "the backward pass must begin from the losses of the rule's own"
            fix = (
                "Train by Trainer.fit or train_step; without a trainer, take loss, start ="
                " rule.losses(model, criterion, x, y), and start.backward(rule=rule)."
            )
            raise ValueError(message(name, must, repr(value.call or value), fix))

    def require_equal_samples(self, loss: Any, *weights: Any) -> None:
        """Refuse a loss in which samples do not count alike: by weights, classes or `ignore`."""
        layer = loss.call.layer if loss.call else None
        of_classes = getattr(layer, "class_weights", None)
        if loss.divisor is not None or any(each is not None for each in (*weights, of_classes)):
            must = "samples must have no weights, nor their classes, and none may be ignored"
            fix = "Take direct feedback alignment, whose error has them."
            raise ValueError(message(type(self).__name__, must, f"{layer!r} with weights", fix))

    def one_array(self, x: Any) -> Value:
        """Return the inputs of a batch, which must be one array."""
        if isinstance(x, Value):
            return x
        must, got = "x must be one array", type(x).__name__
        raise TypeError(message(type(self).__name__, must, got, "Pass one array."))

    def state(self) -> dict[str, Array]:
        return dict(self.drawn)

    def load_state(self, state: dict[str, Array]) -> None:
        self.drawn = {name: np.array(array, order="C") for name, array in state.items()}


def _in_words(kinds: tuple[type, ...]) -> str:
    if kinds is CARRYING:
        return "Linear, convolutions, recurrent layers or tree cells"
    words = {Convolution: "convolutions", Recurrence: "recurrent layers"}
    *others, last = (words.get(each, each.__name__) for each in kinds if each is not RecurrentPass)
    return f"{', '.join(others)} or {last}" if others else last


def carrying_weight(call: "Call") -> Parameter | None:
    """Return the weight by which the layer of a call carries the error back, None if it has
    none.
    """
    for part in call.layer.parts or (call.layer,):
        if isinstance(part, CARRYING):
            return next(each for each in part.own_parameters() if each.value.ndim > 1)
    return None


def of_he(weight: Array) -> float:
    """Return the standard deviation √(2 / D) of the weights of a layer whose outputs are made of D
    inputs each (He et al. 2015).
    """
    inputs = weight.shape[1] if weight.ndim == 2 else weight.size // weight.shape[-1]
    return math.sqrt(2 / max(1, inputs))


def parameters_only(call: "Call", *dys: Any) -> None:
    """Run the backward of the layer of a call for its parameters; inputs count as constants."""
    inputs = call.inputs
    call.inputs = tuple(x.array if isinstance(x, Value) else x for x in inputs)
    try:
        call.layer.backward(call, *dys)
    finally:
        call.inputs = inputs


def product(call: "Call", name: str, x: Array, weight: Array) -> Array:
    """Return x (R, C) weightᵀ (O, C), each row the same bits whatever the others are."""
    y = call.pooled(name, (len(x), len(weight)), x.dtype)
    call.run(dense.forward, y, x, weight, empty(x, 1), dense.IDENTITY)
    return y
