"""Attributions by rules of the backward pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from layers import (
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    Call,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    Module,
    PoolOverTime,
    PReLU,
    ReLU,
    Rule,
    Value,
)
from layers.activation import Activation
from layers.engine.operators.arithmetic import Divide, Power, Where
from layers.engine.operators.elementary import Function
from layers.engine.sums import unbroadcast
from layers.errors import message, wording
from layers.types import Array

from .averages import Averages
from .explained import BATCH, Explained, Found, Part
from .result import Attribution
from .target import Target

ELEMENTWISE = (Activation, PReLU, Function)
WITH_CONSTANT = (Divide, Power, Where)
"""Functions of one number where the other input is a constant."""
MAXIMA = (AdaptiveMaxPool1d, AdaptiveMaxPool2d, MaxPool1d, MaxPool2d, MaxPool3d, PoolOverTime)


class Guided(Rule):
    """The gradient, of which a ReLU lets through only what is positive."""

    def __init__(self) -> None:
        self.met = False

    def error(self, call: Call, dy: Array) -> Array:
        if not isinstance(call.layer, ReLU):
            return dy
        self.met = True
        return np.maximum(dy, 0)


class Rescale(Rule):
    """The gradient where a layer is linear, but through a function of one number the slope of the
    line between the sample and a reference, through a maximum what adds up to its difference, and
    through all else the average of the gradients along the line.

    Parameters
    ----------
    owner
        The method, for errors.
    reference
        The calls of a pass at the reference, with those of the target.
    """

    def __init__(self, owner: str, reference: Sequence[Call]) -> None:
        self.owner = owner
        self.reference = reference
        self.compared = False
        self.averages = Averages(super().backward)

    def backward(self, call: Call, *dys: Any) -> tuple[Array | None, ...]:
        if not self.compared:
            _require_same(self.owner, call.tape.calls, self.reference)
            self.compared = True
        # Layers may add to what their inputs have received so far.
        received = [x.take() if isinstance(x, Value) else None for x in call.inputs]
        gradients = self._of_call(call, *dys)
        return tuple(
            gradient if before is None else before if gradient is None else before + gradient
            for before, gradient in zip(received, gradients, strict=True)
        )

    def _of_call(self, call: Call, *dys: Any) -> tuple[Array | None, ...]:
        """Return the gradients of the inputs of a call."""
        given = [None if dy is None else np.array(dy) for dy in dys]
        gradients = super().backward(call, *dys)
        layer = call.layer
        maximum = isinstance(layer, MAXIMA) and getattr(layer, "kind", "max") == "max"
        of_one = isinstance(layer, ELEMENTWISE) and gradients[0] is not None
        places = [place for place, gradient in enumerate(gradients) if gradient is not None]
        if isinstance(layer, WITH_CONSTANT):
            of_one = len(places) == 1
        other = self.reference[call.index]
        if not places or not (maximum or of_one):
            return self.averages(call, other, given, gradients)
        (dy,) = dys
        place = places[0]
        x, x0 = call.inputs[place].array, other.inputs[place].array
        with np.errstate(invalid="ignore"):
            run, rise = x - x0, call.output.arrays[0] - other.output.arrays[0]
        # Nothing comes through a mask of -inf.
        rise = np.where(np.isfinite(rise), rise, 0)
        first = np.array(gradients[place])
        if maximum:
            # What the sample's maximum has above the reference's is due to where the sample has
            # it, and what it lacks to where the reference has its own.
            up = super().backward(call, dy * np.maximum(rise, 0))[0]
            down = super().backward(other, dy * np.minimum(rise, 0))[0]
            assert up is not None
            assert down is not None
            rises = up + down
        else:
            rises = unbroadcast(dy * rise, x.shape)
        # Nearer than that the slope of a line says less than the derivative, for rounding; so it
        # does where x is infinite.
        far = np.abs(run) > np.sqrt(np.finfo(x.dtype).eps) * np.maximum(np.abs(x), np.abs(x0))
        slopes = np.divide(rises, run, out=first, where=far)
        return (*gradients[:place], slopes, *gradients[place + 1 :])


@wording("guided_backpropagation")
def guided_backpropagation(
    model: Module, x: Any, target: Target = None, *, batch_size: int = BATCH
) -> Attribution:
    """Return the gradient of which every `ReLU` lets through only what is positive (Springenberg et
    al. 2014, arXiv 1412.6806).

    It shows edges of the input rather than reasons of the model: see `sanity_check`.

    Parameters
    ----------
    model, x, target, batch_size
        See `saliency`.

    Raises
    ------
    ValueError
        Backward meets no ReLU.
    """
    owner = "guided_backpropagation"
    rule = Guided()

    def one(part: Part) -> Found:
        gradients, numbers = part.gradients(part.run(), rule)
        if not rule.met:
            fix = "Take saliency: without a ReLU they are one."
            raise ValueError(message(owner, "the model must have a ReLU", "none", fix))
        return [each.copy() for each in gradients], numbers, None

    return Explained(owner, model, x, target, batch_size).attributions(one)


@wording("deep_lift")
def deep_lift(
    model: Module,
    x: Any,
    target: Target = None,
    *,
    baseline: Any = None,
    batch_size: int = BATCH,
) -> Attribution:
    """Return the contribution of each input to the difference from a baseline by DeepLIFT's rescale
    rule (Shrikumar et al. 2017, arXiv 1704.02685, section 3.5.2).

    Backward goes through activations and other functions of one number by Δy / Δx, the differences
    of output and input from those at the baseline, through maxima by what adds up to Δy, and
    through convolutions, dense layers and whatever else is linear by the gradient. Where that does
    not add up to Δy, as in products, attention, recurrent layers, softmax and normalisation, it
    goes by the mean of the gradients on the line from the baseline to the sample (Aumann and
    Shapley 1974), which for functions of one number is Δy / Δx, too. What is left is the `error`
    of the result.

    Parameters
    ----------
    model, x, target, batch_size
        See `saliency`.
    baseline
        See `integrated_gradients`.
    """
    owner = "deep_lift"
    explained = Explained(owner, model, x, target, batch_size, baseline)

    def one(part: Part) -> Found:
        done = part.run()
        numbers, points = part.numbers(done), [point.copy() for point in done.points]
        others = part.baseline(points)
        reference = part.run(others, reference=True)
        at_baseline = part.numbers(reference)
        done = part.run(points)
        gradients, _ = part.gradients(done, Rescale(owner, reference.tape.calls))
        found = [g * (p - b) for g, p, b in zip(gradients, points, others, strict=True)]
        return found, numbers, at_baseline

    return explained.attributions(one)


def _require_same(owner: str, calls: Sequence[Call], others: Sequence[Call]) -> None:
    """Refuse a model, with its target, that did something else at the baseline."""
    if len(calls) != len(others) or any(
        type(call.layer) is not type(other.layer) for call, other in zip(calls, others, strict=True)
    ):
        must = "the model must call the same layers at the samples and at the baseline"
        fix = "Let no branch depend on numbers of the input."
        raise ValueError(message(owner, must, f"{len(calls)} and {len(others)} calls", fix))
