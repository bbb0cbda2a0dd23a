"""Gradient descent."""

from ddbp.reduction.partition import Chunk
from layers.checks import boolean, fraction
from layers.errors import message
from layers.kernels import updates
from layers.types import Array

from .groups import Groups
from .optimizer import Optimizer
from .powers import USUAL
from .schedule import Schedule


class SGD(Optimizer):
    """Gradient descent, w -= η g, or with momentum m = μ m + g, w -= η m, as in PyTorch.

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    momentum
        μ, in [0, 1); 0 is none.
    nesterov
        Whether to look ahead, w -= η (g + μ m); needs a momentum.
    weight_decay
        λ: λ w is added to the gradient of weights, not of biases.
    groups, state_bits
        Options of their own for some parameters, and moments in 8 bits: see `Optimizer`.
    """

    blockwise = True

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
        state_bits: int | None = None,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay=weight_decay, groups=groups, state_bits=state_bits
        )
        self.momentum = fraction("SGD", "momentum", momentum, USUAL)
        self.nesterov = boolean("SGD", "nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError(
                message(
                    "SGD",
                    "nesterov needs a momentum above 0",
                    momentum,
                    "SGD(0.1, momentum=0.9, nesterov=True).",
                )
            )
        if state_bits and not self.momentum:
            must, fix = "state_bits=8 needs a momentum above 0", "Leave state_bits out."
            raise ValueError(message("SGD", must, momentum, fix))
        self.slots = ("momentum",) if self.momentum else ()

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        if not self.momentum:
            self.apply(updates.gradient_descent, chunk, moments, (rate,))
            return
        formula = updates.nesterov if self.nesterov else updates.momentum
        self.apply(formula, chunk, moments, (rate, self.momentum, self.steps == 1))
