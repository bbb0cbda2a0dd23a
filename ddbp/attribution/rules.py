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
)
from layers.activation import Activation
from layers.engine.operators.elementary import Function
from layers.errors import message, wording
from layers.types import Array

from .explained import BATCH, Explained, Found, Part, Pass
from .result import Attribution
from .target import Target

ELEMENTWISE = (Activation, PReLU, Function)
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
    """The gradient, but through a function of one number the slope of the line between the sample
    and a reference, and through a maximum what adds up to its difference.

    Parameters
    ----------
    reference
        The calls of a pass at the reference.
    """

    def __init__(self, reference: Sequence[Call]) -> None:
        self.reference = reference

    def backward(self, call: Call, *dys: Any) -> tuple[Array | None, ...]:
        gradients = super().backward(call, *dys)
        layer = call.layer
        maximum = isinstance(layer, MAXIMA) and getattr(layer, "kind", "max") == "max"
        if not (maximum or isinstance(layer, ELEMENTWISE)) or gradients[0] is None:
            return gradients
        (dy,) = dys
        other = self.reference[call.index]
        x, x0 = _input(call), _input(other)
        rise = call.output.arrays[0] - other.output.arrays[0]
        first = gradients[0].copy()
        if maximum:
            # What the sample's maximum has above the reference's is due to where the sample has
            # it, and what it lacks to where the reference has its own.
            up = super().backward(call, dy * np.maximum(rise, 0))[0]
            down = super().backward(other, dy * np.minimum(rise, 0))[0]
            assert up is not None
            assert down is not None
            rises = up + down
        else:
            rises = dy * rise
        run = x - x0
        # Nearer than that the slope of a line says less than the derivative, for rounding.
        near = np.abs(run) <= np.sqrt(np.finfo(x.dtype).eps) * np.maximum(np.abs(x), np.abs(x0))
        slopes = np.divide(rises, run, out=first, where=~near)
        return (slopes, *gradients[1:])


def _input(call: Call) -> Array:
    found: Array = call.inputs[0].array
    return found


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
    of output and input from those at the baseline, and through maxima by what adds up to Δy;
    through all else by the gradient. So contributions add up to f(x) - f(b) where all else is
    linear, as convolutions and dense layers are; what products, attention, recurrent layers,
    softmax and layer normalisation leave is the `error` of the result.

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
        _require_same(owner, done, reference)
        gradients, _ = part.gradients(done, Rescale(reference.tape.calls))
        found = [g * (p - b) for g, p, b in zip(gradients, points, others, strict=True)]
        return found, numbers, at_baseline

    return explained.attributions(one)


def _require_same(owner: str, done: Pass, reference: Pass) -> None:
    """Refuse a model that did something else at the baseline."""
    layers, others = ([call.layer for call in each.tape.calls] for each in (done, reference))
    if len(layers) != len(others) or any(
        type(layer) is not type(other) for layer, other in zip(layers, others, strict=True)
    ):
        must = "the model must call the same layers at the samples and at the baseline"
        fix = "Let no branch depend on numbers of the input."
        raise ValueError(message(owner, must, f"{len(layers)} and {len(others)} calls", fix))
