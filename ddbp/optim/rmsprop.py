"""RMSProp."""

from ddbp.reduction.partition import Chunk
from layers.checks import fraction, non_negative
from layers.kernels import updates
from layers.types import Array

from .groups import Groups
from .optimizer import Optimizer
from .powers import USUAL
from .schedule import Schedule


class RMSProp(Optimizer):
    """v = α v + (1 - α) g², w -= η g / (√v + ε) (Tieleman and Hinton 2012).

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    alpha
        α, in [0, 1).
    epsilon
        ε, at least 0.
    momentum
        μ, in [0, 1): of the step g / (√v + ε); 0 is none.
    weight_decay
        λ: λ w is added to the gradient of weights, not of biases.
    groups, state_bits
        Options of their own for some parameters, and moments in 8 bits: see `Optimizer`.
    """

    blockwise = True
    positive = ("square",)

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-2,
        *,
        alpha: float = 0.99,
        epsilon: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
        state_bits: int | None = None,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay=weight_decay, groups=groups, state_bits=state_bits
        )
        self.alpha = fraction("RMSProp", "alpha", alpha, USUAL)
        self.epsilon = non_negative("RMSProp", "epsilon", epsilon)
        self.momentum = fraction("RMSProp", "momentum", momentum, USUAL)
        self.slots = ("square", "momentum") if self.momentum else ("square",)

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        scalars = (rate, self.alpha, self.epsilon)
        if self.momentum:
            self.apply(updates.rmsprop_momentum, chunk, moments, (*scalars, self.momentum))
        else:
            self.apply(updates.rmsprop, chunk, moments, scalars)
