"""Target propagation: layers get targets, by inverses that learn to undo the layers after them."""

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from layers.activation import Activation
from layers.checks import non_negative, positive
from layers.containers import Sequential
from layers.engine.module import Module
from layers.engine.value import Value
from layers.errors import message
from layers.kernels import random
from layers.linear import Linear
from layers.loss.regression import MeanSquaredError
from layers.shape import Flatten, Reshape
from layers.types import Array

from .base import STREAM, LearningRule, carrying_weight, parameters_only
from .chain import Chain

if TYPE_CHECKING:
    from layers.engine.call import Call


class Inverses(Module):
    """The inverses of the blocks of a chain, from the second to the last but one."""

    def __init__(self, layers: list[Sequential]) -> None:
        self.inverses = layers


class DifferenceTargetPropagation(LearningRule):
    """Difference target propagation (Lee, Zhang, Fischer & Bengio 2015, "Difference target
    propagation", ECML, arXiv 1412.7525): the last hidden layer has the target t = h - r ∂L/∂h, L
    the loss of a sample, and each before it t_i-1 = h_i-1 + g_i(t_i) - g_i(h_i), where g_i is the
    learned inverse of layer i. Weights follow the gradient of (h_i - t_i)² / 2r of their own layer,
    those of the output that of L.

    Inverses learn beside the network, by the same optimizer, to undo their layer on inputs with
    noise: g_i(f_i(h + ε)) ≈ h + ε. They are a dense layer, with the activation that h came from,
    and part of the trainer's parameters, under `rule`. Defined for a Sequential of `Linear` layers
    and activations. With one hidden layer it is backpropagation, of which `bind` warns.

    Parameters
    ----------
    rate
        r, how far the last hidden layer's target lies along its gradient.
    noise
        The standard deviation of ε, drawn for each sample and step.
    seed
        Of the inverses and of ε.
    """

    defined = (Linear,)
    difference = True

    def __init__(self, rate: float = 0.1, noise: float = 0.1, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        name = type(self).__name__
        self.rate = positive(name, "rate", rate, "rate=0.1 is usual.")
        self.noise = non_negative(name, "noise", noise)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.rate}, {self.noise}, seed={self.seed})"

    def bind(self, model: Module) -> Module | None:
        super().bind(model)
        self._chain = chain = Chain(type(self).__name__, model, (Activation, Flatten, Reshape))
        self._numbers = {id(each.weight): n for n, each in enumerate(chain.heads)}
        pairs = zip(chain.heads[1:-1], chain.following, strict=False)
        self.inverses = [self._inverse(*pair) for pair in pairs]
        if self.inverses:
            return Inverses(self.inverses)
        must, fix = "the model should have two hidden layers", "With one this is backpropagation."
        warnings.warn(message(type(self).__name__, must, "one", fix), RuntimeWarning, stacklevel=2)
        return None

    def _inverse(self, layer: Linear, activations: list[Any]) -> Sequential:
        weight, rng = layer.weight, np.random.default_rng(0)
        drawn = self.normal(weight, weight.shape[::-1], math.sqrt(1 / layer.out_features))
        inverse = Linear(*weight.shape, rng=rng, weight_init=lambda *_: drawn, dtype=weight.dtype)
        return Sequential(inverse, *activations)

    def losses(self, model: Any, loss: Any, x: Any, *targets: Any) -> tuple[Value, Value]:
        h, inputs = self.one_array(x), []
        for block in self._chain.blocks:
            inputs.append(h)
            h = block(h)
        value = total = loss(h, *targets)
        for number, inverse in enumerate(self.inverses, 1):
            noisy = self._noisy(number, inputs[number])
            there = x.tape.input(self._chain.blocks[number](noisy), gradient=False)
            total = total + MeanSquaredError()(inverse(there), noisy)
        return self.started(value, total)

    def _noisy(self, number: int, h: Value) -> Array:
        """Return an input of a block with noise, a function of seed, step, sample and block."""
        tape, draw, seed = h.tape, len(self._names) + number, np.uint64(self.seed ^ STREAM)
        noise = np.empty((len(h), math.prod(h.shape[1:])), h.dtype)
        random.standard_normal(noise, tape.first_sample, tape.step, draw, seed)
        noise *= noise.dtype.type(self.noise)
        return h.array + noise.reshape(h.shape)

    def begin(self, value: Value, gradient: Any) -> None:
        self._require_bound()
        if self.inverses:
            self.require_started(value)
        self._scale = float(np.asarray(gradient).item())
        self._above: tuple[Array, Array] | None = None

    def backward(self, call: "Call", *dys: Any) -> tuple[Array | None, ...]:
        number = self._numbers.get(id(carrying_weight(call)))
        if number is None:
            return super().backward(call, *dys)
        h, above = call.inputs[0].array, self._above
        if number == len(self._chain.heads) - 1:
            # A gradient of the loss is of a mean, and targets are of each sample's own.
            self._reach = self.rate * call.samples(len(h)) / self._scale
            (dx,) = super().backward(call, *dys)
        else:
            parameters_only(call, *dys)
            dx = self._back(self.inverses[number - 1], h, *above) if number and above else None
        self._above = None if dx is None else (h, dx)
        return (dx,)

    def _back(self, inverse: Sequential, before: Array, after: Array, error: Array) -> Array:
        """Return the error (h - t) / r of a layer's input `before`, given those of its block's
        output `after` (h, and the error there).
        """
        reach = after.dtype.type(self._reach)
        aim = inverse(after - reach * error)
        result: Array = ((inverse(after) if self.difference else before) - aim) / reach
        return result


class TargetPropagation(DifferenceTargetPropagation):
    """Target propagation (Bengio 2014, "How auto-encoders could provide credit assignment in deep
    networks via target propagation", arXiv 1407.7906): as difference target propagation, without
    the difference, t_i-1 = g_i(t_i). What the inverses cannot undo is then a part of the target.

    Parameters
    ----------
    rate, noise, seed
        See `DifferenceTargetPropagation`.
    """

    difference = False

    def __init__(self, rate: float = 10.0, noise: float = 0.1, *, seed: int = 0) -> None:
        super().__init__(rate, noise, seed=seed)
