"""Adam and its kin."""

import math

from ddbp.reduction.partition import Chunk
from layers.checks import fraction, non_negative
from layers.kernels import optimizer as kernels
from layers.types import Array

from .groups import Groups
from .optimizer import USUAL, Optimizer
from .schedule import Schedule


class Adam(Optimizer):
    """Adam: m = β₁ m + (1 - β₁) g, v = β₂ v + (1 - β₂) g², w -= η m̂ / (√v̂ + ε), where m̂ and v̂
    are m and v over 1 - βᵗ (Kingma and Ba 2015, algorithm 1).

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    betas
        β₁ and β₂, in [0, 1).
    epsilon
        ε, at least 0.
    weight_decay
        λ: λ w is added to the gradient of weights, not of biases.
    groups
        Options of their own for some parameters: see `Optimizer`.
    """

    slots = ("mean", "square")

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, groups=groups)
        self.betas = (
            fraction(type(self).__name__, "betas", betas[0], USUAL),
            fraction(type(self).__name__, "betas", betas[1], USUAL),
        )
        self.epsilon = non_negative(type(self).__name__, "epsilon", epsilon)

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        beta1, beta2 = self.betas
        correction1, root_correction2 = 1 - beta1**self.steps, math.sqrt(1 - beta2**self.steps)
        kernels.adam(
            chunk.values,
            chunk.gradient,
            moments["mean"],
            moments["square"],
            rate / correction1,
            beta1,
            beta2,
            self.epsilon,
            root_correction2,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: w *= 1 - η λ first (Loshchilov and Hutter 2019, algorithm
    2).

    Parameters
    ----------
    learning_rate, betas, epsilon
        As those of `Adam`.
    weight_decay
        λ, for weights, not for biases.
    groups
        Options of their own for some parameters: see `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 1e-2,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(
            learning_rate, betas=betas, epsilon=epsilon, weight_decay=weight_decay, groups=groups
        )

    def decay(self, chunk: Chunk, rate: float) -> None:
        for start, stop in chunk.regularized:
            kernels.scale(chunk.values[start:stop], 1 - rate * self.weight_decay)
