"""Lion."""

from ddbp.reduction.partition import Chunk
from layers.kernels import updates
from layers.types import Array

from .groups import Groups
from .optimizer import Optimizer
from .powers import decay_rates
from .schedule import Schedule


class Lion(Optimizer):
    """w -= η sign(β₁ m + (1 - β₁) g), m = β₂ m + (1 - β₂) g (Chen et al. 2023, algorithm 2).

    Every weight moves by η in each step: take a rate of a third to a tenth of Adam's, and a weight
    decay as much larger.

    Parameters
    ----------
    learning_rate
        η: a number, or a `Schedule` of the step.
    betas
        β₁ and β₂, in [0, 1).
    weight_decay
        λ: w *= 1 - η λ before the update, for weights, not for biases.
    groups, state_bits
        Options of their own for some parameters, and moments in 8 bits: see `Optimizer`.
    """

    blockwise = True
    decoupled = True
    slots = ("mean",)

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        groups: Groups | None = None,
        state_bits: int | None = None,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay=weight_decay, groups=groups, state_bits=state_bits
        )
        self.betas = decay_rates("Lion", betas)

    def update(self, chunk: Chunk, moments: dict[str, Array], rate: float) -> None:
        self.apply(updates.lion, chunk, moments, (rate, *self.betas))
