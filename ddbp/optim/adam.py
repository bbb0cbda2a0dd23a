"""Adam and its kin."""

import math

from ddbp.reduction.partition import Chunk
from layers.checks import boolean, non_negative
from layers.kernels import updates
from layers.types import Array

from .groups import Groups
from .optimizer import Optimizer
from .powers import decay_rates
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
    amsgrad
        Whether the largest v so far takes the place of v (Reddi, Kale and Kumar 2018).
    groups, state_bits
        Options of their own for some parameters, and moments in 8 bits: see `Optimizer`.
    """

    blockwise = True
    slots: tuple[str, ...] = ("mean", "square")
    positive = ("square", "largest")

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        groups: Groups | None = None,
        state_bits: int | None = None,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay=weight_decay, groups=groups, state_bits=state_bits
        )
        self.betas = decay_rates(type(self).__name__, betas)
        self.epsilon = non_negative(type(self).__name__, "epsilon", epsilon)
        self.amsgrad = boolean(type(self).__name__, "amsgrad", amsgrad)
        if amsgrad:
            self.slots = (*self.slots, "largest")

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        beta1, beta2 = self.betas
        correction1, root_correction2 = 1 - self.left(beta1), math.sqrt(1 - self.left(beta2))
        formula = updates.amsgrad if self.amsgrad else updates.adam
        scalars = (rate / correction1, beta1, beta2, self.epsilon, root_correction2)
        self.apply(formula, chunk, moments, scalars)


class AdamW(Adam):
    """Adam with decoupled weight decay: w *= 1 - η λ first (Loshchilov and Hutter 2019, algorithm
    2).

    Parameters
    ----------
    learning_rate, betas, epsilon
        As those of `Adam`.
    weight_decay
        λ, for weights, not for biases.
    amsgrad
        As that of `Adam`.
    groups, state_bits
        Options of their own for some parameters, and moments in 8 bits: see `Optimizer`.
    """

    decoupled = True

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        groups: Groups | None = None,
        state_bits: int | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            groups=groups,
            state_bits=state_bits,
        )


class RAdam(Optimizer):
    """Adam whose step is rectified while v is of few gradients (Liu et al. 2020, algorithm 2).

    With ρ∞ = 2 / (1 - β₂) - 1 and ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ), the step is that of Adam times
    √((ρ - 4)(ρ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρ)) where ρ > 5, and η m̂ before. As in PyTorch, ε is
    added to √v, not to √v̂.

    Parameters
    ----------
    learning_rate, betas, epsilon, weight_decay, groups, state_bits
        As those of `Adam`.
    """

    blockwise = True
    slots = ("mean", "square")
    positive = ("square",)

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
        state_bits: int | None = None,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay=weight_decay, groups=groups, state_bits=state_bits
        )
        self.betas = decay_rates("RAdam", betas)
        self.epsilon = non_negative("RAdam", "epsilon", epsilon)

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        beta1, beta2 = self.betas
        left = self.left(beta2)
        rate /= 1 - self.left(beta1)
        rest = 1 - left
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * self.steps * left / rest
        if length <= 5:
            self.apply(updates.unscaled_adam, chunk, moments, (rate, beta1, beta2))
            return
        rate *= math.sqrt(
            (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
        )
        root = math.sqrt(rest)
        self.apply(updates.adam, chunk, moments, (rate, beta1, beta2, self.epsilon / root, root))
