"""Predictive coding with fixed predictions: the errors that a network settles to."""

from typing import TYPE_CHECKING, Any

import numpy as np

from layers.checks import positive_int
from layers.containers import Sequential
from layers.conv.base import Convolution
from layers.engine.module import Module
from layers.engine.value import Value
from layers.errors import message
from layers.linear import Linear
from layers.recompute import Recompute
from layers.residual import Residual
from layers.types import Array

from .base import CARRYING, SEQUENTIAL, LearningRule, carrying_weight

if TYPE_CHECKING:
    from layers.engine.call import Call


_MOST_STEPS = 10_000


class PredictiveCoding(LearningRule):
    """Predictive coding under the fixed-prediction assumption (Whittington & Bogacz 2017; Millidge,
    Tschantz & Buckley 2022, "Predictive coding approximates backprop along arbitrary computation
    graphs", Neural Computation 34, arXiv 2006.04182; Rosenbaum 2022, "On the relationship between
    predictive coding and backpropagation", PLoS ONE 17, algorithm 2).

    Each layer holds a prediction v̂, that of the forward pass, and a belief v, which begins there;
    their differences e are relaxed in so many steps, all layers at once, de_l = rate (J_l+1ᵀ e_l+1
    - e_l), e of the output being the gradient there. Weights learn by the errors at the end.

    With predictions fixed this is linear. So where all paths from a layer to the output pass the
    same number d of layers with weights, its error after n steps is its gradient times P(B >= d), B
    binomial of n and the rate: the number of steps in which an error moves on. It is computed as
    that, in one pass. With a rate of 1 and as many steps as layers it is backpropagation, bit for
    bit; with fewer steps what is further from the output does not learn.

    A recurrent layer is one vertex of the graph, its prediction that of the whole sequence: errors
    go through its time steps at once, as by backpropagation, where Millidge et al. have a vertex
    for each. Cells in loops have a vertex for each step, and are refused where a state is used
    twice, by the next step and by what follows: paths to the output differ.

    Parameters
    ----------
    steps
        n, how many steps of relaxation, at most 10,000.
    rate
        In (0, 1].
    """

    defined = (Linear, Convolution, *SEQUENTIAL)

    def __init__(self, steps: int = 20, rate: float = 0.5) -> None:
        super().__init__()
        fix = "steps=20 is enough for few layers."
        self.steps = positive_int("PredictiveCoding", "steps", steps, fix, _MOST_STEPS)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
            must, fix = "rate must be a number in (0, 1]", "rate=1.0 is backpropagation."
            raise ValueError(message("PredictiveCoding", must, repr(rate), fix))
        self.rate = float(rate)
        self._depths: dict[int, int] = {}
        self._shares: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"PredictiveCoding({self.steps}, {self.rate})"

    def bind(self, model: Module) -> Module | None:
        for path, layer in model.named_layers():
            if isinstance(layer, Recompute):
                must = "the model must have no segments that are computed again"
                fix = "Train it without Recompute: depths are counted along all of its values."
                raise ValueError(message("PredictiveCoding", must, path or layer, fix))
        own = super().bind(model)
        _require_equal_paths("", model, trained=False)
        return own

    def begin(self, value: Value, gradient: Any) -> None:
        self._depths = {id(value): 0}

    def share(self, depth: int) -> float:
        """Return what part of its gradient is the error of a layer, where so many layers with
        weights lie between it and the output, P(B >= depth).
        """
        if depth in self._shares:
            return self._shares[depth]
        shares = [1.0] + [0.0] * depth
        for _ in range(self.steps):
            for d in range(depth, 0, -1):
                shares[d] += self.rate * (shares[d - 1] - shares[d])
        self._shares[depth] = shares[depth]
        return shares[depth]

    def backward(self, call: "Call", *dys: Any) -> tuple[Array | None, ...]:
        outputs = call.output.values if hasattr(call.output, "values") else (call.output,)
        depths = {self._depths[id(each)] for each in outputs if id(each) in self._depths} or {0}
        if len(depths) > 1:
            got = f"{call.layer!r}, whose outputs have paths of several lengths"
            raise ValueError(_of_unequal_paths(got))
        (depth,) = depths
        gradients = super().backward(call, *dys)
        carries = carrying_weight(call) is not None
        for x in call.inputs:
            if isinstance(x, Value) and x.wants:
                below = self._depths.setdefault(id(x), depth + carries)
                if below != depth + carries:
                    got = f"{call.layer!r} beside a path of another length"
                    raise ValueError(_of_unequal_paths(got))
        if not carries:
            return gradients
        before, after = self.share(depth), self.share(depth + 1)
        if before == after:
            return gradients
        factor = after / before if before else 0.0
        return tuple(
            None if each is None else np.multiply(each, each.dtype.type(factor))
            for each in gradients
        )


def _of_unequal_paths(got: str) -> str:
    must = "all paths to the output must pass as many layers with weights"
    return message("PredictiveCoding", must, got, "Take a network without shortcuts.")


def _require_equal_paths(path: str, layer: Any, *, trained: bool) -> bool:
    """Refuse residual blocks that are known to have paths of two lengths; return whether anything
    learns up to the end of a layer, given whether anything does before it: else errors do not go
    so far.
    """
    if type(layer) is Sequential:
        for number, part in enumerate(layer.layers):
            trained = _require_equal_paths(f"{path}layers.{number}.", part, trained=trained)
        return trained
    if type(layer) is Residual:
        numbers = _weights(layer.body), _weights(layer.shortcut)
        if trained and None not in numbers and numbers[0] != numbers[1]:
            raise ValueError(_of_unequal_paths(f"{path[:-1] or 'the model'}: {layer!r}"))
        _require_equal_paths(f"{path}body.", layer.body, trained=trained)
        _require_equal_paths(f"{path}shortcut.", layer.shortcut, trained=trained)
    return trained or (layer is not None and any(each.trainable for each in layer.parameters()))


def _weights(layer: Any) -> int | None:
    """Return how many layers with weights a path through a layer passes, None if that is unknown.
    Nothing is the identity.
    """
    if isinstance(layer, CARRYING):
        return 1
    if type(layer) is Sequential:
        numbers = [_weights(part) for part in layer.layers]
        return None if None in numbers else sum(filter(None, numbers))
    if type(layer) is Residual:
        return _weights(layer.body)
    below = () if layer is None else (each for _, each in layer.named_layers())
    return None if any(isinstance(each, CARRYING) for each in below) else 0
