"""Sign symmetry: feedback has the signs of the weights, and other magnitudes."""

from typing import Any

import numpy as np

from layers.checks import one_of
from layers.engine.parameter import Parameter
from layers.engine.value import Value
from layers.types import Array

from .base import CARRYING, LearningRule, of_he

MAGNITUDES = ("uniform", "batchwise", "fixed")


class SignSymmetry(LearningRule):
    """Sign symmetry (Liao, Leibo & Poggio 2016, "How important is weight symmetry in
    backpropagation?", AAAI, arXiv 1510.05067): dx = dy (|M| ∘ sign W) in place of dy W, where only
    the signs of the weight W are known to the way back.

    Parameters
    ----------
    magnitudes
        |M|: "uniform", one number σ = √(2 / D) for a weight with D inputs; "batchwise", that of
        normal numbers of this standard deviation, drawn for each step; "fixed", drawn once.
    seed
        Of what is drawn, a function of it, of the step and of the number of the weight.
    """

    defined = CARRYING

    def __init__(self, magnitudes: str = "uniform", *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.magnitudes = one_of("SignSymmetry", "magnitudes", magnitudes, MAGNITUDES)
        self._step = 0

    def __repr__(self) -> str:
        return f"SignSymmetry({self.magnitudes!r}, seed={self.seed})"

    def begin(self, value: Value, gradient: Any) -> None:
        self._step = value.tape.step

    def feedback(self, parameter: Parameter) -> Array:
        weight = parameter.value
        if not self.carries(parameter):
            return weight
        deviation = of_he(weight)
        if self.magnitudes == "uniform":
            drawn = np.full(weight.shape, deviation, weight.dtype)
        elif self.magnitudes == "fixed":
            drawn = self.fixed(parameter, weight.shape, deviation)
        else:
            drawn = self.normal(parameter, weight.shape, deviation, self._step)
        result: Array = np.copysign(drawn, weight)
        return result
